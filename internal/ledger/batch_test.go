package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

func TestABatchComesBackAsItWasCreated(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		want := schemas.Summary{Batch: sampleBatch("b1")}
		got, created, err := l.Create(t.Context(), want.Batch, nil)
		if err != nil || !created {
			t.Fatalf("created %v, %v", created, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		other := sampleBatch("b1")
		other.Actor, other.Settings.Root, other.State = "eve", "/elsewhere", schemas.StateRunning
		got, created, err = l.Create(t.Context(), other, nil)
		if err != nil || created {
			t.Errorf("created again: %v, %v", created, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the batch that exists: %s", diff)
		}
		held := sampleBatch("held")
		most := int64(3)
		held.State, held.Standing = schemas.StatePaused, schemas.Standing{Reason: schemas.ReasonHeld, By: "ops", Note: "<later>\x00", Since: at(1), Until: at(2)}
		held.Terms = schemas.Terms{Priority: schemas.PriorityBulk, MaxInFlight: 7, Canary: &schemas.Canary{Size: 5}, MaxFailures: &schemas.Threshold{Count: &most}}
		held.Source = &schemas.Source{Batch: "b1", ResultFilter: schemas.ResultFilter{Code: schemas.CodeArchiveBusy, Since: at(3)}, Total: 9}
		held.PerMessage, held.Skips = 100, []schemas.Skip{{Index: 2, By: "ops"}}
		if _, _, err := l.Create(t.Context(), held, nil); err != nil {
			t.Fatal(err)
		}
		got, _, err = l.Find(t.Context(), "held")
		if diff := cmp.Diff(schemas.Summary{Batch: held}, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		opening := schemas.BatchEvent{ID: "held:open", No: 1, Batch: "held", Change: schemas.ChangeOpen, To: schemas.StatePaused,
			Reason: schemas.ReasonHeld, By: "ops", Note: "<later>\x00", At: at(1)}
		if diff := cmp.Diff([]schemas.BatchEvent{opening}, mustEvents(t, l.Reader, "held")); diff != "" {
			t.Error(diff)
		}
		bare, _, err := l.Create(t.Context(), schemas.Batch{ID: "b2"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(schemas.Summary{Batch: schemas.Batch{ID: "b2", State: schemas.StateOpen}}, bare); diff != "" {
			t.Error(diff)
		}
		if _, _, err := l.Create(t.Context(), schemas.Batch{ID: "b 3"}, nil); err == nil || !strings.Contains(err.Error(), `"b 3"`) {
			t.Errorf("got %v, want an error that names the id", err)
		}
	})
}

func TestSeal(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "ended")
		want := schemas.Summary{Batch: sampleBatch("b1")}
		want.State, want.Total, want.ManifestSHA256, want.SealedAt = schemas.StateSealed, 7, "abcd", at(9)
		want.Standing = schemas.Standing{Reason: schemas.ReasonQueued, Since: at(9)}
		for _, when := range []int64{9, 10} {
			got, err := l.Seal(t.Context(), "b1", 7, "abcd", at(when))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		mustSeal(t, l, 0, "ended")
		if _, _, err := end(t.Context(), l, "ended", at(3), nil); err != nil {
			t.Fatal(err)
		}
		mustCreate(t, l, "begun")
		mustRecord(t, l, &notebook{}, sampleResults("begun", 5, 1))
		for name, tc := range map[string]struct {
			id     string
			total  int64
			sha256 string
			why    string
		}{
			"other total":    {"b1", 8, "abcd", "is sealed with 7 items"},
			"other manifest": {"b1", 7, "abce", "is sealed with 7 items"},
			"ended":          {"ended", 7, "abcd", "is sealed with 0 items"},
			"negative":       {"begun", -1, "abcd", "-1 items"},
			"too few":        {"begun", 5, "abcd", "result of item 5"},
			"unknown":        {"nowhere", 5, "abcd", "no such batch"},
		} {
			if _, err := l.Seal(t.Context(), tc.id, tc.total, tc.sha256, at(11)); err == nil || !strings.Contains(err.Error(), tc.why) {
				t.Errorf("%s: got %v, want %q", name, err, tc.why)
			}
		}
		if s, err := l.Seal(t.Context(), "begun", 6, "", at(11)); err != nil || s.Open() != 5 || s.State != schemas.StateRunning {
			t.Errorf("got %+v, %v", s, err)
		}
		wantEvents(t, l.Reader, "b1", "open open", "seal sealed")
		wantEvents(t, l.Reader, "begun", "open open", "seal running")
	})
}

func TestAnEmptyBatchCanBeSealedTwice(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		for range 2 {
			if s, err := l.Seal(t.Context(), "b1", 0, "", at(2)); err != nil || s.State != schemas.StateSealed {
				t.Errorf("got %+v, %v", s, err)
			}
		}
		if _, err := l.Seal(t.Context(), "b1", 1, "", at(2)); err == nil {
			t.Error("sealed again with another total")
		}
	})
}

// The producer of a batch that was cancelled does not know it, and seals it late.
func TestSealingABatchThatWasCancelled(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		for name, tc := range map[string]struct {
			change schemas.Change
			prior  func(l *Ledger) // after it was cancelled
			want   schemas.State
			total  int64
		}{
			"not sealed": {schemas.ChangeCancel, func(*Ledger) {}, schemas.StateRunning, 7},
			"sealed with what there was": {schemas.ChangeCancel, func(l *Ledger) { mustSeal(t, l, 3, "b1") },
				schemas.StateRunning, 3},
			"cancelled": {schemas.ChangeCancel, func(l *Ledger) { cancelAll(t, l, "b1", 3) }, schemas.StateCancelled, 3},
			"aborted":   {schemas.ChangeAbort, func(l *Ledger) { cancelAll(t, l, "b1", 3) }, schemas.StateAborted, 3},
		} {
			l := k.open(t)
			mustCreate(t, l, "b1")
			mustChange(t, l, "b1", "c1", tc.change)
			tc.prior(l)
			events := len(mustEvents(t, l.Reader, "b1"))
			s, err := l.Seal(t.Context(), "b1", 7, "abcd", at(30))
			if err != nil || s.State != tc.want || s.Total != tc.total {
				t.Errorf("%s: got %s with %d items, %v; want %s with %d", name, s.State, s.Total, err, tc.want, tc.total)
			}
			if name == "not sealed" {
				events++
			}
			if got := len(mustEvents(t, l.Reader, "b1")); got != events {
				t.Errorf("%s: %d events, want %d", name, got, events)
			}
		}
	})
}

// cancelAll ends a batch that is being stopped: none of its items had a result.
func cancelAll(t testing.TB, l *Ledger, id string, total int64) {
	t.Helper()
	mustSeal(t, l, total, id)
	results := sampleResults(id, 0, total)
	for i := range results {
		results[i].Outcome = schemas.OutcomeCancelled
	}
	mustRecord(t, l, &notebook{}, results)
	if _, ended, err := end(context.Background(), l, id, at(20), nil); err != nil || !ended {
		t.Fatal(ended, err)
	}
}

func TestEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "b2", "b3")
		mustSeal(t, l, 2, "b1", "b3")
		results := sampleResults("b1", 0, 2)
		results[1].Outcome = schemas.OutcomeFailed
		mustRecord(t, l, &notebook{}, results)
		pos := schemas.EvidencePosition{Offset: 500, Seq: 3, Prev: "ab"}
		for i, when := range []int64{20, 21} {
			noted := false
			s, ended, err := end(t.Context(), l, "b1", at(when), func(s schemas.Summary) (schemas.EvidencePosition, error) {
				noted = s.ID == "b1" && s.State == schemas.StatePartial
				return pos, nil
			})
			if err != nil || s.State != schemas.StatePartial || !s.EndedAt.Equal(at(20)) || ended != (i == 0) || noted != ended {
				t.Errorf("got %+v, ended %v, noted %v, %v", s, ended, noted, err)
			}
		}
		wantEvents(t, l.Reader, "b1", "open open", "seal sealed", "begin running", "complete partial")
		if got, ok, err := l.Position(t.Context()); got != pos || !ok || err != nil {
			t.Errorf("position %+v, %v, %v", got, ok, err)
		}
		for id, why := range map[string]string{"b2": "is open does not allow", "nowhere": ErrNotFound.Error()} {
			if _, ended, err := end(t.Context(), l, id, at(22), nil); err == nil || ended || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: ended %v, %v; want %q", id, ended, err, why)
			}
		}
		mustSeal(t, l, 0, "b2")
		ended, err := l.End(t.Context(), []string{"b3", "b2", "b1"}, func(s schemas.Summary) bool { return s.Complete() }, at(22), nil)
		if err != nil || len(ended) != 1 || ended[0].ID != "b2" || ended[0].State != schemas.StateSucceeded {
			t.Errorf("ended %+v, %v; want the one that is complete", ended, err)
		}
		if got, _, _ := l.Position(t.Context()); got != pos {
			t.Errorf("position %+v, want it unchanged", got)
		}
	})
}

// A note that fails undoes what it was to note.
func TestANoteThatFails(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		mustSeal(t, l, 0, "b1")
		full := errors.New("disk full")
		fail := func(schemas.Summary) (schemas.EvidencePosition, error) { return schemas.EvidencePosition{Seq: 1}, full }
		if _, created, err := l.Create(t.Context(), sampleBatch("b2"), fail); !errors.Is(err, full) || created {
			t.Errorf("created %v, %v", created, err)
		}
		if _, found, err := l.Find(t.Context(), "b2"); found || err != nil {
			t.Errorf("found %v, %v", found, err)
		}
		if _, ended, err := end(t.Context(), l, "b1", at(1), fail); !errors.Is(err, full) || ended {
			t.Errorf("ended %v, %v", ended, err)
		}
		if s, _, err := l.Find(t.Context(), "b1"); s.State != schemas.StateSealed || err != nil {
			t.Errorf("%s, %v", s.State, err)
		}
		wantEvents(t, l.Reader, "b1", "open open", "seal sealed")
		if _, ok, err := l.Position(t.Context()); ok || err != nil {
			t.Errorf("position noted: %v, %v", ok, err)
		}
	})
}

// Of several collectors that open and end the same batches at once, one notes it.
func TestOneOfSeveralNotes(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		const writers, batches = 4, 20
		var opened, ended [batches]atomic.Int64
		count := func(n *atomic.Int64) Note {
			return func(schemas.Summary) (schemas.EvidencePosition, error) {
				n.Add(1)
				return schemas.EvidencePosition{Seq: 1}, nil
			}
		}
		first := openLedger(t, where)
		var all sync.WaitGroup
		for w := range writers {
			l, err := OpenWith(t.Context(), where, Options{Writer: fmt.Sprint("w", w)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			all.Go(func() {
				for i := range batches {
					id := fmt.Sprint("b", i)
					_, created, err := l.Create(t.Context(), sampleBatch(id), count(&opened[i]))
					if err != nil {
						t.Error(created, err)
					}
					if _, err := l.Seal(t.Context(), id, 0, "", at(2)); err != nil {
						t.Error(err)
					}
					if _, _, err := end(t.Context(), l, id, at(3), count(&ended[i])); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		for i := range batches {
			if o, e := opened[i].Load(), ended[i].Load(); o != 1 || e != 1 {
				t.Errorf("b%d: opening was noted %d times, its end %d times", i, o, e)
			}
			wantEvents(t, first.Reader, fmt.Sprint("b", i), "open open", "seal sealed", "complete succeeded")
		}
	})
}

func TestPosition(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		if pos, ok, err := l.Position(t.Context()); ok || err != nil || pos != (schemas.EvidencePosition{}) {
			t.Errorf("got %+v, %v, %v", pos, ok, err)
		}
		for _, want := range []schemas.EvidencePosition{{Offset: 9, Seq: 2, Prev: "ab"}, {Offset: 3, Seq: 1, Prev: "cd"}} {
			if err := l.SetPosition(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			if pos, ok, err := l.Position(t.Context()); !ok || err != nil || pos != want {
				t.Errorf("got %+v, %v, %v", pos, ok, err)
			}
		}
	})
}

func TestBatchByReference(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		if _, err := l.Batch(t.Context(), Latest); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		mustCreate(t, l, "abc", "abcd-1", "abcd_2", "abZ", "zzz", "m-9", "m_", "mz")
		for ref, want := range map[string]string{
			"abc": "abc", "abcd-1": "abcd-1", "abcd_": "abcd_2", "abZ": "abZ", "z": "zzz", "m-": "m-9", Latest: "mz",
			// Several, none, and what is no name.
			"a": "", "abcd": "", "m": "", "q": "", "ABC": "", "abcde": "", "": "", "%": "", "*": "", "a b": "",
		} {
			got, err := l.Batch(t.Context(), ref)
			if got.ID != want || (err == nil) != (want != "") {
				t.Errorf("%q: got %q, %v; want %q", ref, got.ID, err, want)
			}
		}
		_, err := l.Batch(t.Context(), "abc~")
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `"abc~"`) {
			t.Errorf("got %v, want ErrNotFound with the reference", err)
		}
		_, err = l.Batch(t.Context(), "abcd")
		if err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "abcd_2, abcd-1") {
			t.Errorf("got %v, want both candidates", err)
		}
		for i := range 20 {
			mustCreate(t, l, fmt.Sprintf("many-%02d", i))
		}
		if _, err = l.Batch(t.Context(), "many"); err == nil || !strings.HasSuffix(err.Error(), "many-10, …") {
			t.Errorf("got %v, want ten candidates and a sign that there are more", err)
		}
		mustCreate(t, l, "newer", schemas.Single)
		if got, err := l.Batch(t.Context(), Latest); err != nil || got.ID != "newer" {
			t.Errorf("got %q, %v, want the newest", got.ID, err)
		}
	})
}

func TestListsOfBatches(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "b2", "b3", "b4", "b5")
		mustSeal(t, l, 0, "b2")
		mustSeal(t, l, 1, "b3", "b5")
		mustRecord(t, l, &notebook{}, sampleResults("b5", 0, 1))
		mustChange(t, l, "b4", "p", schemas.ChangePause)
		if _, _, err := end(t.Context(), l, "b2", at(1), nil); err != nil {
			t.Fatal(err)
		}
		ids := func(batches []schemas.Summary, err error) string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			var s []string
			for _, b := range batches {
				s = append(s, b.ID)
			}
			return strings.Join(s, " ")
		}
		for _, tc := range []struct{ got, want string }{
			{ids(l.Batches(t.Context(), 0)), "b5 b4 b3 b2 b1"},
			{ids(l.Batches(t.Context(), 2)), "b5 b4"},
			{ids(l.Active(t.Context())), "b1 b3 b4 b5"},
		} {
			if tc.got != tc.want {
				t.Errorf("got %s, want %s", tc.got, tc.want)
			}
		}
	})
}

// Find knows whole ids only.
func TestFind(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "abc")
		for id, want := range map[string]bool{"abc": true, "ab": false, Latest: false, "": false} {
			s, found, err := l.Find(t.Context(), id)
			if err != nil || found != want || found && s.ID != id {
				t.Errorf("Find(%q) = %q, %v, %v; want found %v", id, s.ID, found, err, want)
			}
		}
	})
}
