package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/golden"
	"github.com/exhume/exhume/schemas"
)

func openLedger(t testing.TB, path string) *Ledger {
	t.Helper()
	l, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func newLedger(t testing.TB) *Ledger {
	t.Helper()
	return openLedger(t, filepath.Join(t.TempDir(), "ledger.db"))
}

// at is a moment some nanoseconds into 2026.
func at(n int64) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(n))
}

func sampleBatch(id string) schemas.Batch {
	return schemas.Batch{ID: id, State: schemas.StateOpen, Actor: "ops", Manifest: "m.json", Archive: "sqlite:///a.sqlite",
		Settings: schemas.Settings{Root: "/data/restore", Overwrite: schemas.OverwriteNever, Mode: 0o640}, CreatedAt: at(1)}
}

func mustCreate(t testing.TB, l *Ledger, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, created, err := l.Create(context.Background(), sampleBatch(id)); err != nil || !created {
			t.Fatalf("create %s: %v, %v", id, created, err)
		}
	}
}

func sampleResult(batch string, index int64) schemas.Result {
	tombstone := fmt.Sprintf("2841586a-97ab-428d-bb47-%012x", index)
	return schemas.Result{
		Request: schemas.Request{Batch: batch, Index: index, Tombstone: tombstone, Output: fmt.Sprintf("src/pkg/file_%d.go", index), Actor: "ops"},
		Outcome: schemas.OutcomeRestored, Attempts: 1, Item: tombstone, Repo: "golang/go", Path: fmt.Sprintf("src/pkg/file_%d.go", index),
		SHA256: strings.Repeat("0123456789abcdef", 4), Size: 8000 + index, Target: fmt.Sprintf("/data/restore/src/pkg/file_%d.go", index),
		Worker: "worker-1", FinishedAt: at(index),
		Durations: schemas.Durations{Queue: 1.25, Read: 0.123456, Decode: 0.034, Write: 4.5, Total: 5.678901},
	}
}

func sampleResults(batch string, from, n int64) []schemas.Result {
	results := make([]schemas.Result, 0, n)
	for i := range n {
		results = append(results, sampleResult(batch, from+i))
	}
	return results
}

func indexes(results []schemas.Result) []int64 {
	var found []int64
	for _, r := range results {
		found = append(found, r.Index)
	}
	return found
}

// mustAudit checks that the batch's counts are those of its results and gives them.
func mustAudit(t testing.TB, r *Reader, id string) schemas.Counts {
	t.Helper()
	counted, err := r.Audit(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return counted
}

func TestSchemaIsTheOneThatWasReviewed(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	rows, err := l.db.Query(`SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var dump strings.Builder
	for rows.Next() {
		var ddl string
		if err := rows.Scan(&ddl); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&dump, ddl)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/schema.sql", []byte(dump.String())) // a change needs a migration
}

func TestSchemaVersionIsTheLastMigrations(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("migrations/%05d_", schemaVersion); len(files) != schemaVersion || !strings.HasPrefix(files[len(files)-1], want) {
		t.Errorf("migrations %v, want the last to be %s…", files, want)
	}
	var user, goose int
	l := newLedger(t)
	err = l.db.QueryRow(`SELECT user_version, (SELECT max(version_id) FROM goose_db_version) FROM pragma_user_version`).Scan(&user, &goose)
	if err != nil || user != schemaVersion || goose != schemaVersion {
		t.Errorf("the file says %d and goose %d (%v), want %d", user, goose, err, schemaVersion)
	}
}

func TestOpenSetsTheFileUp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new dir", "a?b#c%41 d.db")
	l := openLedger(t, path)
	mustCreate(t, l, "b1")
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", p, info.Mode().Perm())
		}
	}
	var journal, synchronous string
	if err := l.w.QueryRow(`SELECT (SELECT journal_mode FROM pragma_journal_mode), (SELECT synchronous FROM pragma_synchronous)`).Scan(&journal, &synchronous); err != nil {
		t.Fatal(err)
	}
	if journal != "wal" || synchronous != "2" {
		t.Errorf("journal %s, synchronous %s; want wal and 2 (full)", journal, synchronous)
	}
	if _, err := l.db.Exec(`DELETE FROM batch`); err == nil {
		t.Error("a connection for reading can write")
	}
}

func TestManyOpenANewLedgerAtOnce(t *testing.T) {
	t.Parallel()
	for range 3 {
		path := filepath.Join(t.TempDir(), "ledger.db")
		start := make(chan struct{})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				<-start
				l, err := Open(context.Background(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
	}
}

func TestOpenRefusesWhatItMustNotTouch(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ sql, why string }{
		"a newer ledger":   {`PRAGMA application_id = 0x6578686d; PRAGMA user_version = 2`, "up to 1; use the newer exhume"},
		"another database": {`CREATE TABLE item (id TEXT)`, "no ledger"},
		"another program":  {`PRAGMA application_id = 77; PRAGMA user_version = 1`, "no ledger"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ledger.db")
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(tc.sql); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			_, err = Open(t.Context(), path)
			_, errRead := OpenReader(t.Context(), path)
			for _, err := range []error{err, errRead} {
				if err == nil || !strings.Contains(err.Error(), tc.why) || !strings.Contains(err.Error(), path) {
					t.Errorf("got %v, want %q", err, tc.why)
				}
			}
		})
	}
	text := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), text); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want an error that names %s", err, text)
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	if _, err := OpenReader(t.Context(), path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that says the file is missing", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReader(t.Context(), path); err == nil || !strings.Contains(err.Error(), "older") {
		t.Errorf("got %v, want an error that says the schema is older", err)
	}
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, l, "b1")
	ask := func(when string) {
		t.Helper()
		r, err := OpenReader(t.Context(), path)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if b, err := r.Batch(t.Context(), "b1"); err != nil || b.ID != "b1" {
			t.Errorf("%s: got %+v, %v", when, b, err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	ask("beside the writer")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ask("after the writer")
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "ledger.db")
	open := func() {
		l, err := Open(context.Background(), path)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
	open()
	for b.Loop() {
		open()
	}
}
