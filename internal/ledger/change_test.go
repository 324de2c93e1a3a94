package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// decide applies a change by somebody, and refuses what the batch does not allow.
func decide(on schemas.Change, by string) func(*schemas.Summary) (*schemas.BatchEvent, error) {
	return func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		e, ok := s.Apply(on, schemas.Standing{By: by, Note: "because"}, at(10))
		if !ok {
			return nil, errRefused
		}
		return &e, nil
	}
}

var errRefused = errors.New("refused")

func mustChange(t testing.TB, l *Ledger, id, eventID string, on schemas.Change) schemas.Summary {
	t.Helper()
	s, changed, err := l.Change(context.Background(), id, eventID, decide(on, "eve"), nil)
	if err != nil || !changed {
		t.Fatalf("%s %s: %v, %v", on, id, changed, err)
	}
	return s
}

func TestChange(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		pos := schemas.EvidencePosition{Offset: 7, Seq: 1, Prev: "ab"}
		var noted []schemas.BatchEvent
		note := func(s schemas.Summary, e schemas.BatchEvent) (schemas.EvidencePosition, error) {
			if s.State != schemas.StatePaused {
				t.Errorf("noted in the state %s", s.State)
			}
			noted = append(noted, e)
			return pos, nil
		}
		want := schemas.Summary{Batch: sampleBatch("b1")}
		want.State, want.Total, want.SealedAt, want.EndedAt = schemas.StatePaused, 5, at(11), at(12)
		want.Standing = schemas.Standing{Reason: schemas.ReasonPaused, By: "eve", Note: "because", Since: at(10)}
		want.Terms = schemas.Terms{Priority: schemas.PriorityUrgent, Canary: &schemas.Canary{Size: 1}}
		want.Skips = []schemas.Skip{{Index: 1, By: "eve"}}
		s, changed, err := l.Change(t.Context(), "b1", "c1", func(s *schemas.Summary) (*schemas.BatchEvent, error) {
			e, err := decide(schemas.ChangePause, "eve")(s)
			s.Terms, s.Skips, s.Total, s.SealedAt, s.EndedAt = want.Terms, want.Skips, want.Total, want.SealedAt, want.EndedAt
			s.Actor, s.Settings.Root, s.Counts.Failed, s.CreatedAt = "eve", "/", 3, at(99) // none of this is kept
			return e, err
		}, note)
		if err != nil || !changed {
			t.Fatal(changed, err)
		}
		found, _, err := l.Find(t.Context(), "b1")
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []schemas.Summary{s, found} {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		event := schemas.BatchEvent{ID: "c1", No: 2, Batch: "b1", Change: schemas.ChangePause, From: schemas.StateOpen, To: schemas.StatePaused,
			Reason: schemas.ReasonPaused, By: "eve", Note: "because", At: at(10)}
		for _, got := range [][]schemas.BatchEvent{noted, mustEvents(t, l.Reader, "b1")[1:]} {
			if diff := cmp.Diff([]schemas.BatchEvent{event}, got); diff != "" {
				t.Error(diff)
			}
		}
		if got, ok, err := l.Position(t.Context()); got != pos || !ok || err != nil {
			t.Errorf("position %+v, %v, %v", got, ok, err)
		}

		// The same command again changes nothing, whatever it would decide.
		s, changed, err = l.Change(t.Context(), "b1", "c1", decide(schemas.ChangeResume, "eve"), note)
		if err != nil || changed || s.State != schemas.StatePaused || len(noted) != 1 {
			t.Errorf("again: %+v, %v, %v, noted %d times", s, changed, err, len(noted))
		}
		// No event, no change.
		s, changed, err = l.Change(t.Context(), "b1", "c2", func(*schemas.Summary) (*schemas.BatchEvent, error) { return nil, nil }, note)
		if diff := cmp.Diff(want, s); diff != "" || err != nil || changed {
			t.Errorf("no event: %v, %v, %s", changed, err, diff)
		}
		// An id is made for who has none.
		mustChange(t, l, "b1", "", schemas.ChangeResume)
		if e := mustEvents(t, l.Reader, "b1"); len(e) != 3 || e[2].ID != "b1:3" || e[2].Change != schemas.ChangeResume {
			t.Errorf("events %+v", e)
		}
	})
}

func TestChangesThatFail(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "b2")
		mustChange(t, l, "b2", "taken", schemas.ChangePause)
		full := errors.New("disk full")
		fail := func(schemas.Summary, schemas.BatchEvent) (schemas.EvidencePosition, error) {
			return schemas.EvidencePosition{Seq: 1}, full
		}
		for name, tc := range map[string]struct {
			id, eventID string
			on          schemas.Change
			want        string
		}{
			"note":            {"b1", "n", schemas.ChangePause, full.Error()},
			"refused":         {"b1", "r", schemas.ChangeResume, errRefused.Error()},
			"another batch's": {"b1", "taken", schemas.ChangePause, "change of batch b2"},
			"unknown":         {"nowhere", "u", schemas.ChangePause, ErrNotFound.Error()},
			// With these ids nobody could end the batch, or change it, any more.
			"the end's":  {"b1", "b2:complete", schemas.ChangePause, "the ledger itself"},
			"a number's": {"b1", "b2:7", schemas.ChangePause, "the ledger itself"},
		} {
			s, changed, err := l.Change(t.Context(), tc.id, tc.eventID, decide(tc.on, "eve"), fail)
			if err == nil || changed || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %+v, %v, %v; want %q", name, s, changed, err, tc.want)
			}
		}
		if s, _, err := l.Find(t.Context(), "b1"); s.State != schemas.StateOpen || err != nil {
			t.Errorf("%s, %v", s.State, err)
		}
		wantEvents(t, l.Reader, "b1", "open open")
		if _, ok, err := l.Position(t.Context()); ok || err != nil {
			t.Errorf("position noted: %v, %v", ok, err)
		}
	})
}

// The first results of a sealed batch set it running, in their transaction.
func TestTheFirstResultsBegin(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "sealed", "open", "paused")
		mustSeal(t, l, 9, "sealed", "paused")
		mustChange(t, l, "paused", "p", schemas.ChangePause)
		n := notebook{err: errors.New("disk full")}
		if _, err := l.Record(t.Context(), sampleResults("sealed", 0, 1), nil, n.note); !errors.Is(err, n.err) {
			t.Error(err)
		}
		wantEvents(t, l.Reader, "sealed", "open open", "seal sealed")
		n.err = nil
		for id, want := range map[string]schemas.State{"sealed": schemas.StateRunning, "open": schemas.StateOpen, "paused": schemas.StatePaused} {
			for from := range int64(2) {
				for range 2 {
					rec := mustRecord(t, l, &n, sampleResults(id, from, 1))
					s, _, err := l.Find(t.Context(), id)
					if diff := cmp.Diff([]schemas.Summary{s}, rec.Batches); diff != "" || err != nil || s.State != want || s.Counts.Restored != from+1 {
						t.Errorf("%s: %v %s", id, err, diff)
					}
				}
			}
		}
		wantEvents(t, l.Reader, "sealed", "open open", "seal sealed", "begin running")
		wantEvents(t, l.Reader, "open", "open open")
		wantEvents(t, l.Reader, "paused", "open open", "seal sealed", "pause paused")
	})
}

// Collectors that cancel and end the same batches at once do each once, and the
// events are numbered as they came.
func TestManyChangeOneBatch(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		const collectors, batches = 4, 10
		where := k.where(t)
		first := openLedger(t, where)
		var ids []string
		for i := range batches {
			ids = append(ids, fmt.Sprint("b", i))
		}
		mustCreate(t, first, ids...)
		mustSeal(t, first, 1, ids...)
		var all sync.WaitGroup
		for c := range collectors {
			l, err := OpenWith(t.Context(), where, Options{Writer: fmt.Sprint("c", c)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			all.Go(func() {
				for i := range ids {
					id := ids[(i+c)%batches]
					// One command that comes to all, and one of each.
					if _, _, err := l.Change(t.Context(), id, "pause-"+id, decide(schemas.ChangePause, "ops"), nil); err != nil && !errors.Is(err, errRefused) {
						t.Error(err)
					}
					if _, _, err := l.Change(t.Context(), id, "", decide(schemas.ChangeCancel, fmt.Sprint("c", c)), nil); err != nil && !errors.Is(err, errRefused) {
						t.Error(err)
					}
					results := sampleResults(id, 0, 1)
					results[0].Outcome = schemas.OutcomeCancelled
					if _, err := l.Record(t.Context(), results, nil, nil); err != nil {
						t.Error(err)
					}
					if _, err := l.End(t.Context(), ids, func(s schemas.Summary) bool { return s.Complete() }, at(20), nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		for _, id := range ids {
			wantEvents(t, first.Reader, id, "open open", "seal sealed", "pause paused", "cancel running", "complete cancelled")
			if s, _, err := first.Find(t.Context(), id); err != nil || s.State != schemas.StateCancelled || s.Counts.Cancelled != 1 {
				t.Errorf("%+v, %v", s, err)
			}
		}
	})
}
