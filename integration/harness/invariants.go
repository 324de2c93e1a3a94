package harness

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"
	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// CheckInvariants checks what must hold of every batch that has ended and of
// what was left behind (I1 to I8; I6, that the batch ends, is what the caller
// waited for). Nobody else may be working in the world.
func (w *World) CheckInvariants(tb testing.TB, id string) {
	tb.Helper()
	l, err := app.OpenLedgerReader(tb.Context(), w.Config)
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // opened for reading
	s, err := l.Batch(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	w.checkFiles(tb, s, w.CheckRecords(tb, l, s))
}

// CheckRecordsOf is CheckInvariants without the files, for a root that is none of this
// system's.
func (w *World) CheckRecordsOf(tb testing.TB, id string) {
	tb.Helper()
	l := w.Ledger(tb)
	s, err := l.Batch(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	w.CheckRecords(tb, l, s)
}

// CheckRecords checks all invariants but those of files, which batches that share a
// root have together.
func (w *World) CheckRecords(tb testing.TB, l *ledger.Reader, s schemas.Summary) []schemas.Result {
	tb.Helper()
	results := w.checkResults(tb, l, s)
	w.checkEvidence(tb, s, results)
	w.checkArchive(tb, s, results)
	w.CheckNothingLeft(tb)
	return results
}

// checkResults checks I1 (each item has exactly one result), I2 (counters, rows
// and document agree) and I5 (no attempt was lost to anything but the item).
func (w *World) checkResults(tb testing.TB, l *ledger.Reader, s schemas.Summary) []schemas.Result {
	tb.Helper()
	if !s.State.Final() {
		tb.Errorf("I1: batch %s is %s, not ended", s.ID, s.State)
	}
	kept, counted, err := l.Audit(tb.Context(), s.ID)
	if err != nil || kept != counted {
		tb.Errorf("I2: kept %+v, counted %+v, %v", kept, counted, err)
	}
	if counted.Done() != s.Total || s.Open() != 0 {
		tb.Errorf("I2: %d results of %d items, %d open", counted.Done(), s.Total, s.Open())
	}
	var results []schemas.Result
	for r, err := range l.Results(tb.Context(), s.ID, ledger.Filter{}) {
		if err != nil {
			tb.Fatal(err)
		}
		if want := int64(len(results)); r.Index != want {
			tb.Fatalf("I1: index %d where %d is due", r.Index, want)
		}
		if There(r.Outcome) && r.Attempts > max(1, w.Attempts) {
			tb.Errorf("I5: item %d took %d attempts although nothing is wrong with it", r.Index, r.Attempts)
		}
		results = append(results, r)
	}
	if int64(len(results)) != s.Total {
		tb.Errorf("I1: %d results of %d items", len(results), s.Total)
	}
	w.checkDocument(tb, s)
	return results
}

func (w *World) checkDocument(tb testing.TB, s schemas.Summary) {
	tb.Helper()
	var text strings.Builder
	if err := app.WriteResultDocument(tb.Context(), w.Config, s.ID, &text, zerolog.Nop()); err != nil {
		tb.Fatal(err)
	}
	var doc struct {
		Total, Succeeded, Failed int64
		Results                  []struct{ Status string }
	}
	if err := json.Unmarshal([]byte(text.String()), &doc); err != nil {
		tb.Fatalf("I2: result document: %v", err)
	}
	good := s.Counts.Restored + s.Counts.Unchanged
	if doc.Total != s.Total || doc.Succeeded != good || doc.Failed != s.Total-good || int64(len(doc.Results)) != s.Total {
		tb.Errorf("I2: the document says %d = %d + %d with %d results, the ledger %+v",
			doc.Total, doc.Succeeded, doc.Failed, len(doc.Results), s.Counts)
	}
}

// checkFiles checks I3 (what is visible is right), that every success is
// visible, and I7 as far as the root goes: nothing is there that nobody asked for.
func (w *World) checkFiles(tb testing.TB, s schemas.Summary, results []schemas.Result) {
	tb.Helper()
	asked := map[string]schemas.Result{}
	for _, r := range results {
		asked[r.Output] = r
		if !There(r.Outcome) {
			continue
		}
		if got := FileSHA256(r.Target); got != r.SHA256 {
			tb.Errorf("I3: %s has SHA-256 %s, want %s", r.Target, got, r.SHA256)
		}
	}
	for _, path := range FilesBelow(tb, filepath.Join(s.Settings.Root, "out")) {
		rel, _ := filepath.Rel(s.Settings.Root, path)
		if r, ok := asked[filepath.ToSlash(rel)]; !ok || !There(r.Outcome) && r.Code != schemas.CodeDestinationExists {
			tb.Errorf("I7: %s was not asked for", path)
		}
	}
}

// There says whether an outcome means that the item's bytes are in place.
func There(o schemas.Outcome) bool {
	return o == schemas.OutcomeRestored || o == schemas.OutcomeUnchanged
}

// checkEvidence checks I4: the logs verify and have one line for each item, one for
// the start and one for the end. A line may stand in two logs when one collector
// went on with what another was killed over, never twice in one.
func (w *World) checkEvidence(tb testing.TB, s schemas.Summary, results []schemas.Result) {
	tb.Helper()
	all := newLines()
	for _, path := range w.evidenceLogs() {
		if _, err := evidence.Verify(path); err != nil {
			tb.Errorf("I4: %v", err)
		}
		log, err := readLines(path, s.ID)
		if err != nil {
			tb.Fatal(err)
		}
		for _, twice := range log.twice {
			tb.Errorf("I4: %s: two lines for %s", path, twice)
		}
		all.add(log)
	}
	if diff := cmp.Diff(map[string]bool{schemas.PhaseStart: true, schemas.PhaseEnd: true}, all.phases); diff != "" {
		tb.Errorf("I4: lines of the batch (-want +got):\n%s", diff)
	}
	for _, r := range results {
		line, ok := all.items[r.Index]
		if !ok || line.Outcome != r.Outcome || line.Tombstone != r.Tombstone || line.Code != r.Code {
			tb.Errorf("I4: item %d: result %s %s, evidence %+v", r.Index, r.Outcome, r.Code, line)
		}
		if n := len(all.retries[r.Index]); n < r.Attempts-1 {
			tb.Errorf("I4: item %d: %d attempts, and evidence of %d that failed", r.Index, r.Attempts, n)
		}
	}
	if len(all.items) != len(results) {
		tb.Errorf("I4: lines for %d items of %d", len(all.items), len(results))
	}
}

// evidenceLogs are the logs of the world's collectors.
func (w *World) evidenceLogs() (paths []string) {
	for _, name := range w.Collectors {
		paths = append(paths, w.Path("roles", name, ".codex", "evidence", evidence.FileName))
	}
	if paths == nil {
		paths = []string{app.EvidencePath(w.Config)}
	}
	return paths
}

// lines are what a log says of a batch.
type lines struct {
	phases  map[string]bool
	items   map[int64]schemas.Record
	retries map[int64]map[int]bool // the numbers of failed attempts
	twice   []string
}

func newLines() *lines {
	return &lines{phases: map[string]bool{}, items: map[int64]schemas.Record{}, retries: map[int64]map[int]bool{}}
}

// readLines reads what a log says of a batch.
func readLines(path, batch string) (*lines, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	l := newLines()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r schemas.Record
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%w in %s", err, in.Text())
		}
		if r.Batch == batch {
			l.take(r)
		}
	}
	return l, in.Err()
}

func (l *lines) take(r schemas.Record) {
	var twice bool
	switch {
	case r.Action == schemas.ActionBatchRestore:
		twice = l.phases[r.Phase]
		l.phases[r.Phase] = true
	case r.Index == nil:
		return
	case r.Action == schemas.ActionRestoreRetry:
		of := l.retries[*r.Index]
		if of == nil {
			of = map[int]bool{}
			l.retries[*r.Index] = of
		}
		twice = of[r.Attempt]
		of[r.Attempt] = true
	default:
		_, twice = l.items[*r.Index]
		l.items[*r.Index] = r
	}
	if twice {
		l.twice = append(l.twice, fmt.Sprintf("%s %s %d (attempt %d)", r.Action, r.Phase, index(r), r.Attempt))
	}
}

// index is the index of a line's item, -1 for that of a batch.
func index(r schemas.Record) int64 {
	if r.Index == nil {
		return -1
	}
	return *r.Index
}

// add takes over what another log says.
func (l *lines) add(other *lines) {
	maps.Copy(l.phases, other.phases)
	maps.Copy(l.items, other.items)
	for index, of := range other.retries {
		if l.retries[index] == nil {
			l.retries[index] = map[int]bool{}
		}
		maps.Copy(l.retries[index], of)
	}
}

// checkArchive checks that the archive has exactly one RESTORE event of the
// batch for each restored item.
func (w *World) checkArchive(tb testing.TB, s schemas.Summary, results []schemas.Result) {
	tb.Helper()
	db := w.OpenArchive(tb)
	defer db.Close() //nolint:errcheck // or its side files would count as left behind
	want := map[string]int{}
	for _, r := range results {
		if r.Outcome == schemas.OutcomeRestored {
			want[r.Item]++
		}
	}
	got := map[string]int{}
	// However the database formats JSON.
	rows, err := db.QueryContext(tb.Context(), `SELECT e.item_id, i.restored_at FROM event e JOIN item i ON i.id = e.item_id
		WHERE e.action = 'RESTORE' AND `+w.contextText()+` LIKE '%"`+s.ID+`"%'`)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // read to its end
	for rows.Next() {
		var item string
		var at sql.NullString
		if err := rows.Scan(&item, &at); err != nil {
			tb.Fatal(err)
		}
		if !at.Valid {
			tb.Errorf("item %s has a RESTORE event and no restored_at", item)
		}
		got[item]++
	}
	if diff := cmp.Diff(want, got); diff != "" || rows.Err() != nil {
		tb.Errorf("RESTORE events by item (-want +got): %v\n%s", rows.Err(), diff)
	}
}

// CheckNothingLeft checks I8: no temporary files, no messages, no lock. It also
// checks the parts of I7 that lie in the world: nothing but exhume's own
// directories appeared outside the root.
func (w *World) CheckNothingLeft(tb testing.TB) {
	tb.Helper()
	if temp := w.TempFiles(); len(temp) > 0 {
		tb.Errorf("I8: left behind: %v", temp)
	}
	for _, side := range []string{"archive.sqlite-wal", "archive.sqlite-shm"} {
		if _, err := os.Stat(w.Path(side)); !errors.Is(err, fs.ErrNotExist) {
			tb.Errorf("I8: %s was left behind (%v)", side, err)
		}
	}
	if left := Left(tb, w.openBroker(tb)); len(left) > 0 {
		tb.Errorf("I8: left in the broker: %v", left)
	}
}

// TempFiles are the temporary files and directories in the world.
func (w *World) TempFiles() (found []string) {
	_ = filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasPrefix(d.Name(), ".exhume-") || strings.HasPrefix(d.Name(), ".results-")) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// contextText is the context of an event as text.
func (w *World) contextText() string {
	if w.Config.Backend.Backend == archive.Postgres {
		return "e.context::text"
	}
	return "e.context"
}

// OpenArchive opens the world's archive as the database that it is.
func (w *World) OpenArchive(tb testing.TB) *sql.DB {
	tb.Helper()
	url := w.Config.Backend.URL
	driver := "pgx"
	switch w.Config.Backend.Backend {
	case archive.SQLite:
		return OpenSQL(tb, w.Path("archive.sqlite"))
	case archive.MariaDB:
		rest := strings.TrimPrefix(url, "mariadb://")
		user, rest, _ := strings.Cut(rest, "@")
		address, database, _ := strings.Cut(rest, "/")
		driver, url = "mysql", fmt.Sprintf("%s@tcp(%s)/%s", user, address, database)
	}
	db, err := sql.Open(driver, url)
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

// CheckSums checks a fixture's own list of digests.
func (w *World) CheckSums(tb testing.TB, want int64) {
	tb.Helper()
	sums, err := os.ReadFile(w.Path("SHA256SUMS"))
	if err != nil {
		tb.Fatal(err)
	}
	n := int64(0)
	for line := range Lines(string(sums)) {
		n++
		if got := FileSHA256(w.Path(filepath.FromSlash(line[66:]))); got != line[:64] {
			tb.Errorf("%s: SHA-256 %s, want %s", line[66:], got, line[:64])
		}
	}
	if n != want {
		tb.Errorf("%d digests checked, want %d", n, want)
	}
}

// CheckVisible checks I3 of whatever is below a root at this moment; sums are the
// digests by output.
func CheckVisible(tb testing.TB, root string, sums map[string]string) {
	tb.Helper()
	for _, path := range FilesBelow(tb, filepath.Join(root, "out")) {
		rel, _ := filepath.Rel(root, path)
		if got := FileSHA256(path); got != sums[filepath.ToSlash(rel)] {
			tb.Errorf("I3: %s has SHA-256 %s, want %q", path, got, sums[filepath.ToSlash(rel)])
		}
	}
}
