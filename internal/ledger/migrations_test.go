package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// pending are the versions that are not applied.
func pending(t *testing.T, where string) (versions []int) {
	t.Helper()
	all, err := Migrations(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Up == "" || m.Down == "" || m.Name == "" || m.Loses == "" {
			t.Errorf("migration %+v is incomplete", m)
		}
		if m.Applied.IsZero() {
			versions = append(versions, m.Version)
		}
	}
	return versions
}

func TestMigrationsUpAndDown(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		all := pending(t, where)
		if len(all) == 0 {
			t.Fatal("a new ledger has nothing pending")
		}
		if m, err := MigrateDown(t.Context(), where, true); err != nil || m.Version != 0 {
			t.Errorf("took back %+v of nothing, %v", m, err)
		}
		for range 2 {
			done, err := MigrateUp(t.Context(), where)
			if err != nil {
				t.Fatal(err)
			}
			var versions []int
			for _, m := range done {
				versions = append(versions, m.Version)
			}
			if diff := cmp.Diff(all, versions); diff != "" {
				t.Errorf("applied: %s", diff)
			}
			if left := pending(t, where); left != nil {
				t.Errorf("left pending: %v", left)
			}
			if done, err := MigrateUp(t.Context(), where); err != nil || len(done) != 0 {
				t.Errorf("applied again: %v, %v", done, err)
			}
			for i := len(all) - 1; i >= 0; i-- {
				if m, err := MigrateDown(t.Context(), where, false); err != nil || m.Version != all[i] {
					t.Fatalf("took back %d, %v; want %d", m.Version, err, all[i])
				}
				if diff := cmp.Diff(all[i:], pending(t, where)); diff != "" {
					t.Errorf("pending: %s", diff)
				}
			}
		}
		mustCreate(t, openLedger(t, where), "b1")
	})
}

func TestResultsAreNotLostUnasked(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		l := openLedger(t, where)
		mustCreate(t, l, "b1")
		mustRecord(t, l, &notebook{}, sampleResults("b1", 0, 1))
		_, err := MigrateDown(t.Context(), where, false)
		if loss, ok := errors.AsType[*LossError](err); !ok || loss.Migration.Version != schemaVersion || !strings.Contains(err.Error(), loss.Migration.Loses) {
			t.Errorf("got %v, want what would be lost", err)
		}
		mustAudit(t, l.Reader, "b1")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if m, err := MigrateDown(t.Context(), where, true); err != nil || m.Version != schemaVersion {
			t.Errorf("took back %d, %v", m.Version, err)
		}
	})
}

func TestLookingAtMigrationsMakesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if got := pending(t, filepath.Join(dir, "ledger.db")); len(got) == 0 {
		t.Error("nothing is pending")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it made the directory")
	}
}

// version2 makes a ledger as the second version of exhume left it: with a batch
// for each state that it knew, and a result.
func version2(t *testing.T, k kind) (where string) {
	t.Helper()
	where = k.where(t)
	db, err := openAny(t.Context(), where, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.close() }()
	for version := range 2 {
		if k.name == "PostgreSQL" && version == 0 {
			continue // it begins with the second
		}
		if applied, err := take(t.Context(), db, step{version + 1, true}); err != nil || !applied {
			t.Fatal(applied, err)
		}
	}
	for _, stmt := range []string{
		`INSERT INTO batch (id, state, root, overwrite, mode, actor, manifest, manifest_sha256, archive, total, created_at, sealed_at, restored, bytes) VALUES
			('open', 'open', '/r', 'never', 420, 'ops', 'm', '', 'a', 0, 1, NULL, 1, 5),
			('running', 'running', '/r', 'never', 420, 'ops', 'm', 'ab', 'a', 2, 1, 2, 0, 0),
			('partial', 'partial', '/r', 'never', 420, 'ops', 'm', 'ab', 'a', 2, 1, 2, 0, 0)`,
		`INSERT INTO result (batch_no, idx, tombstone, output, actor, labels, outcome, code, detail, attempts, item, repo, path, sha256, size, target,
			worker, finished_at, queue_ms, read_ms, decode_ms, write_ms, total_ms)
			SELECT no, 0, 't', 'o', 'ops', '', 'restored', '', '', 1, 'i', 'r', 'p', 'aa', 5, '/r/o', 'w', 3, 0, 0, 0, 0, 0 FROM batch WHERE id = 'open'`,
	} {
		err := db.write(t.Context(), func(tx tx) error {
			_, err := tx.exec(t.Context(), stmt)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return where
}

func TestALedgerOfTheSecondVersionGoesOn(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := openLedger(t, version2(t, k))
		for id, want := range map[string]schemas.State{"open": schemas.StateOpen, "running": schemas.StateRunning, "partial": schemas.StatePartial} {
			s, _, err := l.Find(t.Context(), id)
			if err != nil || s.State != want || s.Standing != (schemas.Standing{}) {
				t.Errorf("%s: %+v, %v", id, s, err)
			}
			wantEvents(t, l.Reader, id)
		}
		if got := collect(t, l.Reader, "open", Filter{}); len(got) != 1 || got[0].History != nil {
			t.Errorf("results %+v", got)
		}
		mustSeal(t, l, 2, "open")
		for id, results := range map[string][]schemas.Result{"open": sampleResults("open", 1, 1), "running": sampleResults("running", 0, 2)} {
			mustRecord(t, l, &notebook{}, results)
			if s, ended, err := end(t.Context(), l, id, at(9), nil); err != nil || !ended || s.State != schemas.StateSucceeded {
				t.Errorf("%s: %+v, %v, %v", id, s, ended, err)
			}
		}
		wantEvents(t, l.Reader, "open", "seal running", "complete succeeded")
		wantEvents(t, l.Reader, "running", "complete succeeded")
	})
}

// What goes back to the second version is in states that it knows, and not one
// that it would end at once.
func TestBackToTheSecondVersion(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		l := openLedger(t, where)
		mustCreate(t, l, "open", "paused-open", "cancelling-open", "sealed", "running", "paused", "cancelling", "succeeded")
		mustSeal(t, l, 2, "sealed", "running", "paused", "cancelling")
		mustSeal(t, l, 0, "succeeded")
		result := sampleResult("running", 0)
		result.History = []schemas.Attempt{{Worker: "w"}}
		mustRecord(t, l, &notebook{}, []schemas.Result{result})
		for id, on := range map[string]schemas.Change{
			"paused": schemas.ChangePause, "paused-open": schemas.ChangePause, "cancelling": schemas.ChangeCancel, "cancelling-open": schemas.ChangeCancel,
		} {
			mustChange(t, l, id, "", on)
		}
		if _, _, err := end(t.Context(), l, "succeeded", at(3), nil); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for version := schemaVersion; version > 2; version-- {
			if m, err := MigrateDown(t.Context(), where, true); err != nil || m.Version != version {
				t.Fatal(m.Version, err)
			}
		}
		db, err := openAny(t.Context(), where, true)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.close() }()
		got := string(dump(t, db, `SELECT id || ' ' || state FROM batch ORDER BY no`))
		want := "open open\npaused-open open\ncancelling-open open\nsealed running\nrunning running\npaused running\ncancelling running\nsucceeded succeeded\n"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if state, err := db.schema(t.Context()); err != nil || state != (schemaState{2, 2}) {
			t.Errorf("schema %+v, %v", state, err)
		}
		// And forth again, with its results.
		again := openLedger(t, where)
		mustAudit(t, again.Reader, "running")
		if got := collect(t, again.Reader, "running", Filter{}); len(got) != 1 || got[0].History != nil {
			t.Errorf("results %+v", got)
		}
	})
}
