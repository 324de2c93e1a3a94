package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
