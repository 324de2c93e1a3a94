package integration

import (
	"bufio"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// checkInvariants checks what must hold of every batch that has ended and of
// what was left behind (I1 to I8; I6, that the batch ends, is what the caller
// waited for). Nobody else may be working in the world.
func (w *world) checkInvariants(t *testing.T, id string) {
	t.Helper()
	l, err := app.OpenLedgerReader(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // opened for reading
	s, err := l.Batch(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	w.checkFiles(t, s, w.checkRecords(t, l, s))
}

// checkRecords checks all invariants but those of files, which batches that share a
// root have together.
func (w *world) checkRecords(t *testing.T, l *ledger.Reader, s schemas.Summary) []schemas.Result {
	t.Helper()
	results := w.checkResults(t, l, s)
	w.checkEvidence(t, s, results)
	w.checkArchive(t, s, results)
	w.checkNothingLeft(t)
	return results
}

// checkResults checks I1 (each item has exactly one result), I2 (counters, rows
// and document agree) and I5 (no attempt was lost to anything but the item).
func (w *world) checkResults(t *testing.T, l *ledger.Reader, s schemas.Summary) []schemas.Result {
	t.Helper()
	if !s.State.Final() {
		t.Errorf("I1: batch %s is %s, not ended", s.ID, s.State)
	}
	kept, counted, err := l.Audit(t.Context(), s.ID)
	if err != nil || kept != counted {
		t.Errorf("I2: kept %+v, counted %+v, %v", kept, counted, err)
	}
	if counted.Done() != s.Total || s.Open() != 0 {
		t.Errorf("I2: %d results of %d items, %d open", counted.Done(), s.Total, s.Open())
	}
	var results []schemas.Result
	for r, err := range l.Results(t.Context(), s.ID, ledger.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(len(results)); r.Index != want {
			t.Fatalf("I1: index %d where %d is due", r.Index, want)
		}
		if there(r.Outcome) && r.Attempts != 1 {
			t.Errorf("I5: item %d took %d attempts although nothing is wrong with it", r.Index, r.Attempts)
		}
		results = append(results, r)
	}
	if int64(len(results)) != s.Total {
		t.Errorf("I1: %d results of %d items", len(results), s.Total)
	}
	w.checkDocument(t, s)
	return results
}

func (w *world) checkDocument(t *testing.T, s schemas.Summary) {
	t.Helper()
	var text strings.Builder
	if err := app.WriteResultDocument(t.Context(), w.cfg, s.ID, &text, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Total, Succeeded, Failed int64
		Results                  []struct{ Status string }
	}
	if err := json.Unmarshal([]byte(text.String()), &doc); err != nil {
		t.Fatalf("I2: result document: %v", err)
	}
	good := s.Counts.Restored + s.Counts.Unchanged
	if doc.Total != s.Total || doc.Succeeded != good || doc.Failed != s.Total-good || int64(len(doc.Results)) != s.Total {
		t.Errorf("I2: the document says %d = %d + %d with %d results, the ledger %+v",
			doc.Total, doc.Succeeded, doc.Failed, len(doc.Results), s.Counts)
	}
}

// checkFiles checks I3 (what is visible is right), that every success is
// visible, and I7 as far as the root goes: nothing is there that nobody asked for.
func (w *world) checkFiles(t *testing.T, s schemas.Summary, results []schemas.Result) {
	t.Helper()
	asked := map[string]schemas.Result{}
	for _, r := range results {
		asked[r.Output] = r
		if !there(r.Outcome) {
			continue
		}
		if got := fileSHA256(t, r.Target); got != r.SHA256 {
			t.Errorf("I3: %s has SHA-256 %s, want %s", r.Target, got, r.SHA256)
		}
	}
	for _, path := range filesBelow(t, filepath.Join(s.Settings.Root, "out")) {
		rel, _ := filepath.Rel(s.Settings.Root, path)
		if r, ok := asked[filepath.ToSlash(rel)]; !ok || !there(r.Outcome) && r.Code != schemas.CodeDestinationExists {
			t.Errorf("I7: %s was not asked for", path)
		}
	}
}

func there(o schemas.Outcome) bool {
	return o == schemas.OutcomeRestored || o == schemas.OutcomeUnchanged
}

// filesBelow lists the regular files below a directory that need not exist.
func filesBelow(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			found = append(found, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

// checkEvidence checks I4: the log verifies and has one line for each item, one
// for the start and one for the end.
func (w *world) checkEvidence(t *testing.T, s schemas.Summary, results []schemas.Result) {
	t.Helper()
	path := app.EvidencePath(w.cfg)
	if _, err := evidence.Verify(path); err != nil {
		t.Errorf("I4: %v", err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	lines := map[int64]schemas.Record{}
	phases := map[string]int{}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r schemas.Record
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			t.Fatalf("I4: %v in %s", err, in.Text())
		}
		switch {
		case r.Batch != s.ID || r.Action == schemas.ActionBatchControl:
		case r.Index == nil:
			phases[r.Phase]++
		default:
			if _, twice := lines[*r.Index]; twice {
				t.Errorf("I4: two lines for item %d", *r.Index)
			}
			lines[*r.Index] = r
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{schemas.PhaseStart: 1, schemas.PhaseEnd: 1}, phases); diff != "" {
		t.Errorf("I4: lines of the batch (-want +got):\n%s", diff)
	}
	for _, r := range results {
		line, ok := lines[r.Index]
		if !ok || line.Outcome != r.Outcome || line.Tombstone != r.Tombstone || line.Code != r.Code {
			t.Errorf("I4: item %d: result %s %s, evidence %+v", r.Index, r.Outcome, r.Code, line)
		}
	}
	if len(lines) != len(results) {
		t.Errorf("I4: %d lines for %d items", len(lines), len(results))
	}
}

// checkArchive checks that the archive has exactly one RESTORE event of the
// batch for each restored item.
func (w *world) checkArchive(t *testing.T, s schemas.Summary, results []schemas.Result) {
	t.Helper()
	db := w.openArchive(t)
	defer db.Close() //nolint:errcheck // or its side files would count as left behind
	want := map[string]int{}
	for _, r := range results {
		if r.Outcome == schemas.OutcomeRestored {
			want[r.Item]++
		}
	}
	got := map[string]int{}
	// However the database formats JSON.
	rows, err := db.QueryContext(t.Context(), `SELECT e.item_id, i.restored_at FROM event e JOIN item i ON i.id = e.item_id
		WHERE e.action = 'RESTORE' AND `+w.contextText()+` LIKE '%"`+s.ID+`"%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // read to its end
	for rows.Next() {
		var item string
		var at sql.NullString
		if err := rows.Scan(&item, &at); err != nil {
			t.Fatal(err)
		}
		if !at.Valid {
			t.Errorf("item %s has a RESTORE event and no restored_at", item)
		}
		got[item]++
	}
	if diff := cmp.Diff(want, got); diff != "" || rows.Err() != nil {
		t.Errorf("RESTORE events by item (-want +got): %v\n%s", rows.Err(), diff)
	}
}

// checkNothingLeft checks I8: no temporary files, no messages, no lock. It also
// checks the parts of I7 that lie in the world: nothing but exhume's own
// directories appeared outside the root.
func (w *world) checkNothingLeft(t *testing.T) {
	t.Helper()
	if temp := w.tempFiles(); len(temp) > 0 {
		t.Errorf("I8: left behind: %v", temp)
	}
	for _, side := range []string{"archive.sqlite-wal", "archive.sqlite-shm"} {
		if _, err := os.Stat(w.path(side)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("I8: %s was left behind (%v)", side, err)
		}
	}
	if left := w.left(t); len(left) > 0 {
		t.Errorf("I8: left in the broker: %v", left)
	}
}

// tempFiles are the temporary files and directories in the world.
func (w *world) tempFiles() (found []string) {
	_ = filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasPrefix(d.Name(), ".exhume-") || strings.HasPrefix(d.Name(), ".results-")) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

func fileSHA256(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close() //nolint:errcheck // opened for reading
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err.Error()
	}
	return hex.EncodeToString(h.Sum(nil))
}

// contextText is the context of an event as text.
func (w *world) contextText() string {
	if w.cfg.Backend.Backend == archive.Postgres {
		return "e.context::text"
	}
	return "e.context"
}

// openArchive opens the world's archive as the database that it is.
func (w *world) openArchive(t *testing.T) *sql.DB {
	t.Helper()
	url := w.cfg.Backend.URL
	driver := "pgx"
	switch w.cfg.Backend.Backend {
	case archive.SQLite:
		return openSQL(t, w.path("archive.sqlite"))
	case archive.MariaDB:
		rest := strings.TrimPrefix(url, "mariadb://")
		user, rest, _ := strings.Cut(rest, "@")
		address, database, _ := strings.Cut(rest, "/")
		driver, url = "mysql", fmt.Sprintf("%s@tcp(%s)/%s", user, address, database)
	}
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func openSQL(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?_pragma=busy_timeout(5000)", path))
	if err != nil {
		t.Fatal(err)
	}
	return db
}
