package control

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

var commands int

func by(note string) schemas.Command {
	commands++
	return schemas.Command{ID: fmt.Sprint("c", commands), Actor: "ops", Note: note}
}

func ref(id string) schemas.BatchRef { return schemas.BatchRef{Ref: id} }

func working(total, done int64) schemas.Summary {
	s := summary("b", schemas.StateRunning, total, done)
	s.Reason = schemas.ReasonWorking
	return s
}

func TestPauseAndResume(t *testing.T) {
	w := newWorld(working(10, 3))
	c := mustControl(t, w)
	pause := schemas.BatchChange{BatchRef: ref("b"), Command: by("backup"), Change: schemas.ChangePause}
	for range 2 { // the second is the same command again
		s, err := c.Change(t.Context(), pause)
		if err != nil || s.State != schemas.StatePaused || s.Reason != schemas.ReasonPaused || s.By != "ops" || s.Note != "backup" {
			t.Fatalf("%+v, %v", s.Batch, err)
		}
	}
	if w.as["b"].Workable() || len(w.events) != 1 {
		t.Errorf("workers see %+v, %d events", w.as["b"], len(w.events))
	}
	pause.Command = by("backup") // another one that wants nothing new
	if _, err := c.Change(t.Context(), pause); err != nil || len(w.events) != 1 {
		t.Errorf("%v, %d events", err, len(w.events))
	}
	resume := schemas.BatchChange{BatchRef: ref("b"), Command: by(""), Change: schemas.ChangeResume}
	if s, err := c.Change(t.Context(), resume); err != nil || s.State != schemas.StateRunning || !w.as["b"].Workable() {
		t.Errorf("%+v, %v", s.Batch, err)
	}
}

func TestChangesThatAreRefused(t *testing.T) {
	w := newWorld(working(10, 3), summary("e", schemas.StateSucceeded, 2, 2), summary(schemas.Single, schemas.StateOpen, 0, 0))
	c := mustControl(t, w)
	now := time.Now()
	for name, q := range map[string]struct {
		q    schemas.BatchChange
		want schemas.Code
	}{
		"unknown batch":   {schemas.BatchChange{BatchRef: ref("x"), Command: by(""), Change: schemas.ChangePause}, schemas.CodeBatchNotFound},
		"ended":           {schemas.BatchChange{BatchRef: ref("e"), Command: by(""), Change: schemas.ChangePause}, schemas.CodeBatchState},
		"cancel of ended": {schemas.BatchChange{BatchRef: ref("e"), Command: by(""), Change: schemas.ChangeCancel}, schemas.CodeBatchState},
		"cancel single":   {schemas.BatchChange{BatchRef: ref(schemas.Single), Command: by(""), Change: schemas.ChangeCancel}, schemas.CodeBatchState},
		"no actor":        {schemas.BatchChange{BatchRef: ref("b"), Command: schemas.Command{ID: "1"}, Change: schemas.ChangePause}, schemas.CodeBadRequest},
		"no id":           {schemas.BatchChange{BatchRef: ref("b"), Command: schemas.Command{Actor: "a"}, Change: schemas.ChangePause}, schemas.CodeBadRequest},
		"unknown change":  {schemas.BatchChange{BatchRef: ref("b"), Command: by(""), Change: schemas.ChangeSeal}, schemas.CodeBadRequest},
		"until passed":    {schemas.BatchChange{BatchRef: ref("b"), Command: by(""), Change: schemas.ChangePause, Until: now}, schemas.CodeBadRequest},
		"until of resume": {schemas.BatchChange{BatchRef: ref("b"), Command: by(""), Change: schemas.ChangeResume, Until: now.Add(time.Hour)}, schemas.CodeBadRequest},
	} {
		if _, err := c.Change(t.Context(), q.q); !fault.Is(err, q.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(w.events) > 0 {
		t.Errorf("%+v", w.events)
	}
}

func TestCancelAndAbort(t *testing.T) {
	w := newWorld(working(10, 3))
	c := mustControl(t, w)
	for on, want := range map[schemas.Change]schemas.Reason{schemas.ChangeCancel: schemas.ReasonCancelling} {
		if s, err := c.Change(t.Context(), schemas.BatchChange{BatchRef: ref("b"), Command: by("wrong"), Change: on}); err != nil || s.Reason != want {
			t.Errorf("%+v, %v", s.Batch, err)
		}
	}
	s, err := c.Change(t.Context(), schemas.BatchChange{BatchRef: ref("b"), Command: by("wrong"), Change: schemas.ChangeAbort})
	if err != nil || s.Reason != schemas.ReasonAborting || w.as["b"].Workable() {
		t.Errorf("%+v, %v", s.Batch, err)
	}
	if _, err := c.Change(t.Context(), schemas.BatchChange{BatchRef: ref("b"), Command: by(""), Change: schemas.ChangePause}); !fault.Is(err, schemas.CodeBatchState) {
		t.Errorf("paused while it is aborted: %v", err)
	}
}

// A batch that was cancelled before it was sealed ends with what was submitted.
func TestCancelledWhileItIsSubmitted(t *testing.T) {
	s := summary("b", schemas.StateOpen, 0, 0)
	s.Counts = schemas.Counts{Restored: 3, Cancelled: 4}
	w := newWorld(s)
	c := mustControl(t, w)
	if _, err := c.Change(t.Context(), schemas.BatchChange{BatchRef: ref("b"), Command: by(""), Change: schemas.ChangeCancel}); err != nil {
		t.Fatal(err)
	}
	if err := c.look(t.Context(), time.Now()); err != nil || w.batches["b"].State.Final() {
		t.Fatalf("it does not wait for what is in hand: %v", err)
	}
	w.settled = true
	if err := c.look(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := w.batches["b"]; got.State != schemas.StateCancelled || got.Total != 7 {
		t.Errorf("%+v", got)
	}
	// Its producer comes late.
	w.shown["b"] = true
	if got, err := c.Seal(t.Context(), "b", 100, ""); err != nil || got.State != schemas.StateCancelled || w.shown["b"] {
		t.Errorf("%+v, %v, shown %v", got, err, w.shown)
	}
}

func TestPauseUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(working(10, 3))
		c, err := w.control(t)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- c.Run(ctx) }()
		until := time.Now().Add(time.Hour)
		if _, err := c.Change(ctx, schemas.BatchChange{BatchRef: ref("b"), Command: by(""), Change: schemas.ChangePause, Until: until}); err != nil {
			t.Fatal(err)
		}
		all := true
		if _, err := c.ChangeFleet(ctx, schemas.FleetChange{Command: by(""), Pause: &all, Until: until}); err != nil || w.seen.Pause == nil {
			t.Fatalf("%v, %+v", err, w.seen)
		}
		time.Sleep(time.Hour - time.Minute)
		synctest.Wait()
		if s, _, _ := w.Find(ctx, "b"); s.State != schemas.StatePaused {
			t.Errorf("a minute too early: %+v", s.Batch)
		}
		time.Sleep(time.Minute + 2*time.Second)
		synctest.Wait()
		if s, _, _ := w.Find(ctx, "b"); s.State != schemas.StateRunning || !s.Until.IsZero() {
			t.Errorf("after its time: %+v", s.Batch)
		}
		if s, _ := w.Steering(ctx); s.Pause != nil {
			t.Errorf("after its time everything is still paused: %+v", s)
		}
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

func TestCanary(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts schemas.Counts
		errors int64
		state  schemas.State
		reason schemas.Reason
		passed bool
	}{
		{"not complete", schemas.Counts{Restored: 3}, 0, schemas.StateRunning, schemas.ReasonCanary, false},
		{"all restored", schemas.Counts{Restored: 5}, 0, schemas.StateRunning, schemas.ReasonWorking, true},
		{"one failed", schemas.Counts{Restored: 4, Failed: 1}, 0, schemas.StatePaused, schemas.ReasonCanaryFailed, false},
		{"as many failed as may", schemas.Counts{Restored: 3, Failed: 2}, 2, schemas.StateRunning, schemas.ReasonWorking, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := working(100, 0)
			s.Reason, s.Counts = schemas.ReasonCanary, c.counts
			s.Terms.Canary = &schemas.Canary{Size: 5, MaxErrors: c.errors}
			w := newWorld()
			control := mustControl(t, w)
			w.batches["b"] = s
			if err := control.Judge(t.Context(), []schemas.Summary{s}); err != nil {
				t.Fatal(err)
			}
			got := w.batches["b"]
			if got.State != c.state || got.Reason != c.reason || got.Terms.Canary.Passed != c.passed {
				t.Errorf("%s (%s), %+v", got.State, got.Reason, got.Terms.Canary)
			}
			if got.State != schemas.StatePaused {
				return
			}
			// An operator lets it go on in spite of that.
			again, err := control.Change(t.Context(), schemas.BatchChange{BatchRef: ref("b"), Command: by("I know"), Change: schemas.ChangeResume})
			if err != nil || again.State != schemas.StateRunning || !again.Terms.Canary.Passed {
				t.Errorf("%+v, %v", again.Batch, err)
			}
		})
	}
}

func TestTooManyFailures(t *testing.T) {
	two := int64(2)
	for action, want := range map[schemas.StopAction]schemas.Reason{
		"": schemas.ReasonTooManyFailures, schemas.StopPause: schemas.ReasonTooManyFailures, schemas.StopAbort: schemas.ReasonAborting,
	} {
		s := working(100, 10)
		s.Counts.Failed = 2
		s.Terms.MaxFailures = &schemas.Threshold{Count: &two, Action: action}
		w := newWorld(s)
		c := mustControl(t, w)
		if w.batches["b"].State != schemas.StateRunning {
			t.Fatal("two may fail")
		}
		s.Counts.Failed = 3
		w.batches["b"] = s
		for range 2 {
			if err := c.Judge(t.Context(), []schemas.Summary{s}); err != nil {
				t.Fatal(err)
			}
		}
		got := w.batches["b"]
		if got.Reason != want || len(w.events) != 1 || got.By != "" {
			t.Fatalf("%s: %+v, %d events", action, got.Batch, len(w.events))
		}
		if got.Stopping() {
			continue
		}
		if again, err := c.Change(t.Context(), schemas.BatchChange{BatchRef: ref("b"), Command: by("go on"), Change: schemas.ChangeResume}); err != nil || !again.Workable() {
			t.Errorf("%+v, %v", again.Batch, err)
		}
		if err := c.Judge(t.Context(), []schemas.Summary{w.batches["b"]}); err != nil || !w.batches["b"].State.Final() && w.batches["b"].State != schemas.StateRunning {
			t.Errorf("stopped again for the same failures: %v, %+v", err, w.batches["b"].Batch)
		}
	}
}

func TestTermsAndSkips(t *testing.T) {
	w := newWorld(working(10, 3))
	c := mustControl(t, w)
	urgent, flight, wrong := schemas.PriorityUrgent, int64(50), schemas.Priority("high")
	s, err := c.SetTerms(t.Context(), schemas.BatchTerms{BatchRef: ref("b"), Command: by(""), Priority: &urgent, MaxInFlight: &flight})
	if err != nil || s.Terms.Priority != urgent || w.as["b"].Terms.MaxInFlight != 50 {
		t.Errorf("%+v, %v", s.Terms, err)
	}
	if _, err := c.SetTerms(t.Context(), schemas.BatchTerms{BatchRef: ref("b"), Command: by(""), Priority: &wrong}); !fault.Is(err, schemas.CodeBadRequest) {
		t.Errorf("priority high: %v", err)
	}
	for _, before := range []schemas.Threshold{{FailedBefore: -1}, {DoneBefore: -1}} {
		before.Count = new(int64)
		if _, err := c.SetTerms(t.Context(), schemas.BatchTerms{BatchRef: ref("b"), Command: by(""), MaxFailures: &before}); !fault.Is(err, schemas.CodeBadRequest) {
			t.Errorf("%+v: %v", before, err)
		}
	}
	for range 2 {
		if _, err = c.Skip(t.Context(), schemas.ItemSkip{BatchRef: ref("b"), Command: by("damaged"), Indexes: []int64{7, 2}}); err != nil {
			t.Fatal(err)
		}
	}
	want := []schemas.Skip{{Index: 2, By: "ops", Note: "damaged"}, {Index: 7, By: "ops", Note: "damaged"}}
	if diff := cmp.Diff(want, w.as["b"].Skips); diff != "" || len(w.events) != 2 {
		t.Errorf("%d events\n%s", len(w.events), diff)
	}
	for _, wrong := range [][]int64{nil, {-1}, {10}} {
		if _, err := c.Skip(t.Context(), schemas.ItemSkip{BatchRef: ref("b"), Command: by(""), Indexes: wrong}); !fault.Is(err, schemas.CodeBadRequest) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

func TestHeldBatch(t *testing.T) {
	w := newWorld()
	c := mustControl(t, w)
	s, err := c.Open(t.Context(), schemas.Batch{ID: "b", State: schemas.StatePaused, Actor: "ops"})
	if err != nil || s.State != schemas.StatePaused || s.Reason != schemas.ReasonHeld {
		t.Fatalf("%+v, %v", s.Batch, err)
	}
	if s, err = c.Seal(t.Context(), "b", 5, ""); err != nil || s.State != schemas.StatePaused || s.Reason != schemas.ReasonHeld {
		t.Errorf("sealed: %+v, %v", s.Batch, err)
	}
	if s, err = c.Change(t.Context(), schemas.BatchChange{BatchRef: ref("b"), Command: by(""), Change: schemas.ChangeResume}); err != nil || s.State != schemas.StateSealed {
		t.Errorf("started: %+v, %v", s.Batch, err)
	}
}

func TestCopy(t *testing.T) {
	of := summary("a", schemas.StatePartial, 6, 3)
	of.Settings = schemas.Settings{Root: "/srv", Overwrite: schemas.OverwriteNever}
	w := newWorld(of)
	for i := range int64(6) {
		r := schemas.Result{Request: schemas.Request{Batch: "a", Index: i, Tombstone: fmt.Sprint("t", i), Labels: map[string]string{"k": "v"}}, Outcome: schemas.OutcomeRestored}
		if i%2 == 1 {
			r.Outcome = schemas.OutcomeFailed
		}
		w.results = append(w.results, r)
	}
	c := mustControl(t, w)
	q := schemas.BatchCopy{
		BatchRef: ref("a"), Command: by("again"), As: "b", Root: "/other", Limit: 2, DryRun: true,
		ResultFilter: schemas.ResultFilter{Outcomes: []schemas.Outcome{schemas.OutcomeFailed}},
	}
	if n, err := c.Copy(t.Context(), q); err != nil || n.Items != 2 || n.Batch != nil {
		t.Fatalf("%+v, %v", n, err)
	}
	q.DryRun = false
	for range 2 { // asked for twice, because the first answer was lost
		n, err := c.Copy(t.Context(), q)
		if err != nil || n.Items != 2 || n.Batch == nil || n.Batch.Settings.Root != "/other" || n.Batch.Source.Batch != "a" {
			t.Fatalf("%+v, %v", n, err)
		}
	}
	c.copies.wait()
	want := []schemas.Request{
		{Batch: "b", Index: 0, Tombstone: "t1", Labels: map[string]string{"k": "v"}}, {Batch: "b", Index: 1, Tombstone: "t3", Labels: map[string]string{"k": "v"}},
	}
	if diff := cmp.Diff(want, w.copied["b"]); diff != "" || w.batches["b"].Total != 2 {
		t.Errorf("%+v\n%s", w.batches["b"], diff)
	}
	q.Limit = 1
	if _, err := c.Copy(t.Context(), q); !fault.Is(err, schemas.CodeBatchState) {
		t.Errorf("another copy of the same name: %v", err)
	}
	q.Ref = "b"
	if _, err := c.Copy(t.Context(), q); !fault.Is(err, schemas.CodeBatchState) {
		t.Errorf("of a batch that goes on: %v", err)
	}
}

func TestLimits(t *testing.T) {
	w := newWorld()
	c := mustControl(t, w)
	set := func(l ...schemas.Limit) error {
		_, err := c.ChangeFleet(t.Context(), schemas.FleetChange{Command: by("office hours"), Limits: l})
		return err
	}
	if err := set(schemas.Limit{Scope: schemas.ScopeFleet, Items: 500}, schemas.Limit{Scope: schemas.ScopeBatch("b"), Bytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := set(schemas.Limit{Scope: schemas.ScopeBatch("b")}, schemas.Limit{Scope: schemas.ScopeFleet, Items: 100}); err != nil {
		t.Fatal(err)
	}
	if l := w.seen.Limits; len(l) != 1 || l[0].Items != 100 || l[0].By != "ops" || l[0].Note != "office hours" {
		t.Errorf("%+v", l)
	}
	for _, wrong := range []schemas.Limit{
		{Scope: "x"}, {Scope: schemas.ScopeBackend("oracle")}, {Scope: schemas.ScopeFleet, Items: -1}, {Scope: schemas.ScopeFleet, Items: 0.001}, {Scope: schemas.ScopeBatch("a b")},
	} {
		if err := set(wrong); !fault.Is(err, schemas.CodeBadRequest) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}

func TestWhyTellsWhereItemsAre(t *testing.T) {
	l := newLibrary(0)
	since := time.Now().Add(-time.Minute)
	l.workers = []schemas.WorkerStatus{{Worker: "w", InHand: []schemas.InHand{{Batch: "c", First: 2, Last: 2, Since: since, Attempt: 1}}}}
	l.steering.Pause = &schemas.Standing{Reason: schemas.ReasonFleetPaused, By: "ops"}
	got, err := NewAnswers(l, l, nil).Why(t.Context(), schemas.WhyQuery{BatchRef: ref("c"), Items: 10})
	if err != nil || got.State != schemas.StatePaused || got.Reason != schemas.ReasonFleetPaused {
		t.Fatalf("%+v, %v", got, err)
	}
	places := map[int64]schemas.Place{}
	for _, i := range got.Items {
		places[i.Index] = i.Place
	}
	want := map[int64]schemas.Place{
		0: schemas.PlaceQueued, 1: schemas.PlaceRetry, 2: schemas.PlaceInHand, 3: schemas.PlaceQueued, 9: schemas.PlaceQueued,
	}
	if diff := cmp.Diff(want, places); diff != "" {
		t.Error(diff)
	}
	// Of a batch that is still submitted, not all requests are there yet.
	l.batches[0].SealedAt = time.Time{}
	if got, err = NewAnswers(l, l, nil).Why(t.Context(), schemas.WhyQuery{BatchRef: ref("c"), Items: 10}); err != nil || got.Items[3].Place != schemas.PlaceUnpublished {
		t.Errorf("%+v, %v", got.Items, err)
	}
	if got.Items[2].Attempt != 2 || got.Items[2].Worker != "w" {
		t.Errorf("%+v", got.Items[2])
	}
}

func TestAuditNamesWhatDoesNotAgree(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*library)
		lines  int64
		id     string
		want   int
	}{
		"all well": {func(l *library) { l.left = 3 }, 4, "c", 0},
		"counts": {func(l *library) {
			l.left, l.counted = 3, func(schemas.Counts) schemas.Counts { return schemas.Counts{Restored: 4, Failed: 1} }
		}, 5, "c", 1},
		"evidence":           {func(l *library) { l.left = 3 }, 3, "c", 1},
		"queue of an ended":  {func(l *library) { l.left = 3; l.batches[1].Counts.Restored = 5 }, 5, "b", 1},
		"nothing in queue":   {func(*library) {}, 4, "c", 1},
		"ended with an open": {func(*library) {}, 4, "b", 1},
	} {
		l := newLibrary(0)
		c.change(l)
		a, err := NewAnswers(l, l, func(context.Context, string) (int64, error) { return c.lines, nil }).Audit(t.Context(), c.id)
		if err != nil || len(a.Problems) != c.want {
			t.Errorf("%s: %v, %q", name, err, a.Problems)
		}
	}
}
