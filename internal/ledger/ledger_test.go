package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// kind is one of the two databases that ledgers are kept in.
type kind struct {
	name string
	// where makes the place of a new ledger.
	where func(t testing.TB) string
}

var kinds = []kind{
	{"SQLite", func(t testing.TB) string { return filepath.Join(t.TempDir(), "ledger.db") }},
	{"PostgreSQL", dbtest.PostgresURL},
}

// onBoth runs a test with each kind of ledger, all at the same time.
func onBoth(t *testing.T, test func(t *testing.T, k kind)) {
	t.Helper()
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

func (k kind) open(t testing.TB) *Ledger {
	t.Helper()
	return openLedger(t, k.where(t))
}

func openLedger(t testing.TB, where string) *Ledger {
	t.Helper()
	l, err := OpenWith(context.Background(), where, Options{Migrate: true})
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
		if _, created, err := l.Create(context.Background(), sampleBatch(id), nil); err != nil || !created {
			t.Fatalf("create %s: %v, %v", id, created, err)
		}
	}
}

// end ends one batch, and gives it as it is then.
func end(ctx context.Context, l *Ledger, id string, at time.Time, note Note) (s schemas.Summary, ended bool, err error) {
	var notes func([]schemas.Summary) (schemas.EvidencePosition, error)
	if note != nil {
		notes = func(ended []schemas.Summary) (schemas.EvidencePosition, error) { return note(ended[0]) }
	}
	all, err := l.End(ctx, []string{id}, func(schemas.Summary) bool { return true }, at, notes)
	if err != nil {
		return s, false, err
	}
	s, _, err = l.Find(ctx, id)
	return s, len(all) == 1, err
}

// mustSeal seals batches with a number of items.
func mustSeal(t testing.TB, l *Ledger, total int64, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := l.Seal(context.Background(), id, total, "", at(2)); err != nil {
			t.Fatal(err)
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
	kept, counted, err := r.Audit(context.Background(), id)
	if err != nil || kept != counted {
		t.Fatalf("batch %s has results %+v, but counts %+v (%v)", id, counted, kept, err)
	}
	return counted
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
	db := l.db.(*sqlite)
	if err := db.w.QueryRow(`SELECT (SELECT journal_mode FROM pragma_journal_mode), (SELECT synchronous FROM pragma_synchronous)`).Scan(&journal, &synchronous); err != nil {
		t.Fatal(err)
	}
	if journal != "wal" || synchronous != "2" {
		t.Errorf("journal %s, synchronous %s; want wal and 2 (full)", journal, synchronous)
	}
	if _, err := db.r.Exec(`DELETE FROM batch`); err == nil {
		t.Error("a connection for reading can write")
	}
}

func TestReader(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		l := openLedger(t, where)
		mustCreate(t, l, "b1")
		ask := func(when string) {
			t.Helper()
			r, err := OpenReader(t.Context(), where)
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
	})
}

func TestReaderOfAMissingFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	if _, err := OpenReader(t.Context(), path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that says the file is missing", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file was made (%v)", err)
	}
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

// SQLite goes on with a file that has no name any more. What is recorded in it nobody
// will find, so nothing is.
func TestAFileThatIsLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(path string) error{
		"removed":  os.Remove,
		"replaced": func(p string) error { return errors.Join(os.Rename(p, p+".1"), os.WriteFile(p, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ledger.db")
			l := openLedger(t, path)
			if _, _, err := l.Create(t.Context(), schemas.Batch{ID: "a"}, nil); err != nil {
				t.Fatal(err)
			}
			if err := lose(path); err != nil {
				t.Fatal(err)
			}
			_, _, err := l.Create(t.Context(), schemas.Batch{ID: "b"}, nil)
			if !fault.Is(err, schemas.CodeLedgerLost) || !strings.Contains(err.Error(), path) {
				t.Errorf("got error %v", err)
			}
		})
	}
}
