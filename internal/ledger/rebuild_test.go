package ledger

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/exhume/exhume/schemas"
)

func TestReinstate(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "other")
		mustChange(t, l, "other", "theirs", schemas.ChangePause)
		b := sampleBatch("b1")
		b.State, b.Reason, b.Total, b.SealedAt = schemas.StatePaused, schemas.ReasonPaused, 7, at(5)
		event := func(id string, on schemas.Change) schemas.BatchEvent {
			return schemas.BatchEvent{ID: id, Batch: "b1", Change: on, To: schemas.StatePaused, At: at(3)}
		}
		lost := []schemas.BatchEvent{
			event("", schemas.ChangeOpen), event("by-ops", schemas.ChangePause), event("b1:5", schemas.ChangeSet),
			event("by-ops-2", schemas.ChangeSet), event("theirs", schemas.ChangeSet),
		}
		for i := range 2 {
			s, created, err := l.Reinstate(t.Context(), b, lost)
			if diff := cmp.Diff(b, s.Batch); diff != "" || created != (i == 0) || err != nil {
				t.Errorf("%s, %v, %v", diff, created, err)
			}
		}
		want := []schemas.BatchEvent{lost[0], lost[1], lost[2], lost[3]}
		for i, no := range []int64{1, 2, 5, 6} {
			want[i].No = no
		}
		want[0].ID = "b1:open"
		got, err := l.Events(t.Context(), "b1", 0)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
		// What happens from now on has other ids.
		for range 3 {
			mustChange(t, l, "b1", "", schemas.ChangeResume)
			mustChange(t, l, "b1", "", schemas.ChangePause)
		}
	})
}

func TestConclude(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		for state, reason := range map[schemas.State]schemas.Reason{
			schemas.StateSucceeded: schemas.ReasonAllRestored, schemas.StatePartial: schemas.ReasonSomeLeft, schemas.StateFailed: schemas.ReasonNoneRestored,
			schemas.StateCancelled: schemas.ReasonCancelled, schemas.StateAborted: schemas.ReasonTooManyFailures,
		} {
			id := string(state)
			mustCreate(t, l, id)
			for range 2 { // the second time it has ended
				s, err := l.Conclude(t.Context(), id, state, 3, "sha", at(9))
				if err != nil || s.State != state || s.Reason != reason || s.Total != 3 || s.ManifestSHA256 != "sha" || !s.EndedAt.Equal(at(9)) {
					t.Errorf("%+v, %v", s, err)
				}
			}
			wantEvents(t, l.Reader, id, "open open", "complete "+id)
			if _, err := l.Seal(t.Context(), id, 3, "sha", at(10)); err != nil {
				t.Error(err)
			}
		}
		mustCreate(t, l, "stopped")
		mustSeal(t, l, 8, "stopped")
		mustChange(t, l, "stopped", "by-ops", schemas.ChangeAbort)
		s, err := l.Conclude(t.Context(), "stopped", schemas.StateAborted, 3, "sha", at(9))
		if err != nil || s.Reason != schemas.ReasonAborted || s.By != "eve" || s.Total != 8 || s.ManifestSHA256 != "" {
			t.Errorf("%+v, %v", s, err)
		}
		if n, err := l.Highest(t.Context(), "stopped"); n != -1 || err != nil {
			t.Errorf("highest %d, %v", n, err)
		}
		mustCreate(t, l, "b1")
		mustRecord(t, l, &notebook{}, sampleResults("b1", 3, 5))
		if n, err := l.Highest(t.Context(), "b1"); n != 7 || err != nil {
			t.Errorf("highest %d, %v", n, err)
		}
	})
}

func TestTrial(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		try := func(where string) *Ledger {
			t.Helper()
			l, err := OpenTrial(t.Context(), where, Options{Writer: "w"})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		where := k.where(t)
		l := try(where)
		mustCreate(t, l, "b1")
		mustRecord(t, l, &notebook{}, sampleResults("b1", 0, 600))
		if got := collect(t, l.Reader, "b1", Filter{}); len(got) != 600 {
			t.Errorf("%d results", len(got))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if left := pending(t, where); len(left) != schemaVersion && k.name == "SQLite" {
			t.Errorf("pending %v", left)
		}
		if _, err := os.Stat(where); err == nil {
			t.Error("there is a file")
		}

		kept := openLedger(t, where)
		mustCreate(t, kept, "there")
		mustRecord(t, kept, &notebook{}, sampleResults("there", 0, 3))
		before := mustFind(t, kept, "there")
		l = try(where)
		mustCreate(t, l, "b1")
		mustRecord(t, l, &notebook{}, sampleResults("there", 0, 5))
		if s := mustFind(t, l, "there"); s.Counts.Restored != 5 {
			t.Errorf("%+v", s)
		}
		if _, ok, err := l.Position(t.Context()); !ok || err != nil {
			t.Errorf("no position: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, mustFind(t, kept, "there"), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		if _, found, err := kept.Find(t.Context(), "b1"); found || err != nil {
			t.Errorf("b1 was kept, %v", err)
		}
		mustRecord(t, kept, &notebook{}, sampleResults("there", 3, 1)) // nothing holds it up

		setSchema(t, kept, schemaState{schemaVersion - 1, 3})
		if l, err := OpenTrial(t.Context(), where, Options{}); err == nil {
			t.Error("a ledger that is not up to date was opened", l.Close())
		}
	})
}

func mustFind(t *testing.T, l *Ledger, id string) schemas.Summary {
	t.Helper()
	s, found, err := l.Find(t.Context(), id)
	if err != nil || !found {
		t.Fatal(found, err)
	}
	return s
}

// A ledger on a full disk says so and keeps what it had.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.sqlite")
	l := openLedger(t, path)
	mustCreate(t, l, "b1")
	mustRecord(t, l, &notebook{}, sampleResults("b1", 0, 10))
	limit := func(pages string) {
		t.Helper()
		if _, err := l.db.(*sqlite).w.ExecContext(t.Context(), "PRAGMA max_page_count = "+pages); err != nil {
			t.Fatal(err)
		}
	}
	limit("10")
	_, err := l.Record(t.Context(), sampleResults("b1", 10, 4000), nil, (&notebook{}).note)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "free space") {
		t.Errorf("got %v", err)
	}
	limit("100000")
	if n := mustAudit(t, l.Reader, "b1").Restored; n != 10 {
		t.Errorf("%d results, want 10", n)
	}
	if rec := mustRecord(t, l, &notebook{}, sampleResults("b1", 0, 4000)); rec.Fresh != 3990 {
		t.Errorf("%+v", rec)
	}
}
