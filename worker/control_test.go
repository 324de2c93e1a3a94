package worker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// show shows the workers how a batch stands now.
func (w *world) show(b schemas.Batch) {
	w.Helper()
	w.must(w.broker.Activate(w.Context(), b))
}

// takeAll takes n items of a batch, which are nobody else's, in two seconds.
func (w *world) takeAll(id string, n int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*time.Second)
	defer cancel()
	for got := 0; got < n; {
		msgs, err := w.broker.Requests(ctx, id, n, time.Second)
		w.must(err)
		if ctx.Err() != nil {
			w.Fatalf("%d items of %d can be had", got, n)
		}
		for _, m := range msgs {
			first, last, _ := m.Indexes()
			got += int(last-first) + 1
		}
	}
}

// wait waits for c, or for the test's end.
func wait(t *testing.T, c <-chan struct{}) {
	select {
	case <-c:
	case <-t.Context().Done():
	}
}

// status waits until the one worker's status is as it should be.
func (w *world) status(q schemas.WorkerQuestion, ok func(schemas.WorkerStatus) bool) schemas.WorkerStatus {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
	defer cancel()
	for {
		all, err := w.broker.Workers(ctx, q, time.Second)
		if err != nil {
			w.Fatalf("%v; the last answer was %+v", err, all)
		}
		if len(all) == 1 && ok(all[0]) {
			return all[0]
		}
	}
}

func TestPausedWorkerTakesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		pause func(w *world)
	}{
		{"fleet", func(w *world) {
			w.must(w.broker.SetSteering(w.Context(), schemas.Steering{Pause: &schemas.Standing{By: "ops"}}))
		}},
		{"batch", func(w *world) { w.show(schemas.Batch{ID: "b", State: schemas.StatePaused}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.submit("b", 512, 8)
			begun, goOn := make(chan struct{}, 512), make(chan struct{})
			stop := w.start(worker.Config{GroupSize: 256}, &restorer{each: func(context.Context, schemas.Request, int) (schemas.Code, error) {
				begun <- struct{}{}
				wait(t, goOn)
				return "", nil
			}})
			<-begun
			w.status(schemas.WorkerQuestion{}, func(s schemas.WorkerStatus) bool { return s.Items == 512 })
			c.pause(w)
			w.must(w.broker.Publish(t.Context(), requests("b", 512, 100), 1))
			close(goOn)
			w.results(512) // what was in hand
			w.takeAll("b", 100)
			w.must(stop())
		})
	}
}

// A worker that waits at the broker for the first message of a batch stops that,
// too, and goes on at once when it may.
func TestPauseOfAnIdleWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 10, 1)
	stop := w.start(worker.Config{}, &restorer{each: works})
	w.results(10)
	w.must(w.broker.SetSteering(t.Context(), schemas.Steering{Pause: &schemas.Standing{By: "ops"}}))
	w.must(w.broker.Publish(t.Context(), requests("b", 10, 1), 1))
	w.takeAll("b", 1)
	w.must(w.broker.SetSteering(t.Context(), schemas.Steering{}))
	w.must(w.broker.Publish(t.Context(), requests("b", 11, 20), 1))
	w.results(20)
	w.must(stop())
}

func requests(batch string, first, n int64) (rs []schemas.Request) {
	for i := range n {
		rs = append(rs, schemas.Request{Batch: batch, Index: first + i, Tombstone: fmt.Sprint(batch, first+i), Output: fmt.Sprint("o", first+i)})
	}
	return rs
}

// Other changes of a batch disturb nobody.
func TestChangesOfABatchDoNotDisturb(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 3000, 1)
	r := &restorer{each: works}
	stop := w.start(worker.Config{GroupSize: 10}, r)
	for i := range 30 {
		w.show(schemas.Batch{ID: "b", State: schemas.StateRunning, Skips: []schemas.Skip{{Index: 5000 + int64(i)}}, Terms: schemas.Terms{Priority: schemas.PriorityBulk}})
	}
	w.results(3000)
	w.must(stop())
	for id, n := range r.tries {
		if n != 1 {
			t.Errorf("%s was tried %d times", id, n)
		}
	}
}

func TestAbortGivesBackWhatIsInHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 30, 5)
	w.submit("other", 5, 5)
	goOn := make(chan struct{})
	stop := w.start(worker.Config{GroupSize: 10, Groups: 4}, &restorer{each: func(ctx context.Context, r schemas.Request, _ int) (schemas.Code, error) {
		if r.Batch == "other" {
			wait(t, goOn)
			return "", nil
		}
		wait(t, ctx.Done())
		return "", ctx.Err()
	}})
	w.status(schemas.WorkerQuestion{Batch: "other"}, func(s schemas.WorkerStatus) bool { return len(s.InHand) == 1 && s.Items == 35 })
	w.show(schemas.Batch{ID: "b", State: schemas.StateRunning, Standing: schemas.Standing{Reason: schemas.ReasonAborting}})
	w.takeAll("b", 30)
	close(goOn)
	w.results(5) // other's, who is not concerned
	w.must(stop())
	if got, err := w.broker.Results(t.Context(), 1, 0); err != nil || len(got) > 0 {
		t.Errorf("%d more results, %v", len(got), err)
	}
}

// What was ready when the batch was aborted is not thrown away.
func TestAbortKeepsWhatIsDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 10, 10)
	begun := make(chan struct{}, 10)
	stop := w.start(worker.Config{}, &restorer{each: func(ctx context.Context, r schemas.Request, _ int) (schemas.Code, error) {
		if r.Index == 9 {
			begun <- struct{}{}
			wait(t, ctx.Done())
		}
		return "", nil
	}})
	<-begun
	w.show(schemas.Batch{ID: "b", State: schemas.StateRunning, Standing: schemas.Standing{Reason: schemas.ReasonAborting}})
	for _, r := range w.results(10) {
		if r.Outcome != schemas.OutcomeRestored {
			t.Errorf("item %d: %s", r.Index, r.Outcome)
		}
	}
	w.must(stop())
}

// While a batch is cancelled, what is in hand is finished, and what waits, for its
// first try or another one, gets its result without one.
func TestCancel(t *testing.T) {
	t.Parallel()
	for _, perMessage := range []int{1, 10} {
		t.Run(fmt.Sprint(perMessage, " per message"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.submit("b", 400, perMessage)
			w.submit("other", 50, 5)
			cancels := w.start(worker.Config{Name: "collector", Cancels: true}, nil)
			begun, goOn := make(chan struct{}, 1000), make(chan struct{})
			const inHand = 100
			cfg := worker.Config{GroupSize: inHand, Groups: 1, Retry: worker.RetryPolicy{Initial: time.Second, MaxDelay: time.Second, Jitter: func() float64 { return 1 }}}
			failed := map[int64]bool{}
			stop := w.start(cfg, &restorer{each: func(_ context.Context, r schemas.Request, try int) (schemas.Code, error) {
				if r.Batch == "other" {
					return "", nil
				}
				begun <- struct{}{}
				wait(t, goOn)
				if r.Index%10 == 3 {
					failed[r.Index] = true
					return schemas.CodeArchiveBusy, nil
				}
				return "", nil
			}})
			<-begun
			w.show(schemas.Batch{ID: "b", State: schemas.StateRunning, Standing: schemas.Standing{Reason: schemas.ReasonCancelling, By: "ops", Note: "wrong manifest"}})
			close(goOn)
			all := w.results(450)
			w.must(stop())
			w.must(cancels())
			cancelled := 0
			for _, r := range all {
				switch {
				case r.Batch == "other" && r.Outcome == schemas.OutcomeRestored:
				case r.Batch == "b" && r.Outcome == schemas.OutcomeCancelled:
					cancelled++
					attempts := 0
					if failed[r.Index] {
						attempts = 1
					}
					want := schemas.Result{Request: r.Request, Outcome: schemas.OutcomeCancelled, Code: schemas.CodeItemCancelled, Detail: "cancelled by ops: wrong manifest", Attempts: attempts, Worker: "collector"}
					if diff := cmp.Diff(want, r, cmpopts.IgnoreFields(r, "FinishedAt", "Durations", "History"), cmpopts.IgnoreFields(r.Request, "Published")); diff != "" {
						t.Error(diff)
					}
				case r.Outcome != schemas.OutcomeRestored || r.Worker != "w":
					t.Errorf("%+v", r)
				}
			}
			if n := 400 - cancelled; n == 0 || n > inHand {
				t.Errorf("%d items were restored, of at most %d in hand", n, inHand)
			}
			if len(failed) == 0 {
				t.Error("nothing waited for a retry")
			}
			w.nothingLeft("b")
		})
	}
}

// Requests that cannot be read fail, cancelled or not. A pause stops no cancelling.
func TestCancelOfBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.broker.SetSteering(t.Context(), schemas.Steering{Pause: &schemas.Standing{By: "ops"}}))
	w.submit("b", 4, 1)
	w.show(schemas.Batch{ID: "b", State: schemas.StateRunning, Standing: schemas.Standing{Reason: schemas.ReasonAborting}})
	stop := w.startAt(garbling{queue{w.broker}}, worker.Config{Cancels: true}, nil)
	got := map[int64]string{}
	for _, r := range w.results(3) {
		got[r.Index] = fmt.Sprint(r.Outcome, " ", r.Code, " ", r.Attempts)
		if r.Index != 1 && r.Detail != "cancelled by exhume" {
			t.Errorf("detail %q", r.Detail)
		}
	}
	want := map[int64]string{0: "cancelled item_cancelled 0", 1: "failed bad_request 1", 3: "cancelled item_cancelled 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	w.must(stop())
}

func TestSkips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.broker.SetSteering(t.Context(), schemas.Steering{Pause: &schemas.Standing{}}))
	w.submit("b", 100, 8)
	var mu sync.Mutex
	tried := map[int64]bool{}
	stop := w.start(worker.Config{}, &restorer{each: func(_ context.Context, r schemas.Request, _ int) (schemas.Code, error) {
		mu.Lock()
		defer mu.Unlock()
		tried[r.Index] = true
		return "", nil
	}})
	w.show(schemas.Batch{ID: "b", State: schemas.StateRunning, Skips: []schemas.Skip{
		{Index: 0, By: "ops"}, {Index: 17, By: "ann", Note: "too large"}, {Index: 99, By: "ops"}, {Index: 1000, By: "ops"},
	}})
	w.must(w.broker.SetSteering(t.Context(), schemas.Steering{}))
	want := map[int64]string{0: "skipped by ops", 17: "skipped by ann: too large", 99: "skipped by ops"}
	got := map[int64]string{}
	for _, r := range w.results(100) {
		if r.Outcome == schemas.OutcomeRestored {
			continue
		}
		got[r.Index] = r.Detail
		if r.Outcome != schemas.OutcomeSkipped || r.Code != schemas.CodeItemSkipped || r.Attempts != 0 || tried[r.Index] {
			t.Errorf("%+v", r)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	w.must(stop())
	w.nothingLeft("b")
}

// A result tells of the attempts that failed before it.
func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 20, 10)
	stop := w.start(worker.Config{Retry: worker.RetryPolicy{MaxAttempts: 3, Initial: time.Millisecond}},
		&restorer{each: func(_ context.Context, r schemas.Request, try int) (schemas.Code, error) {
			switch {
			case r.Index == 4:
				return schemas.CodeArchiveBusy, nil
			case r.Index == 5 && try == 1:
				return schemas.CodeDestinationBusy, nil
			}
			return "", nil
		}})
	failedWith := func(c schemas.Code) schemas.Attempt { return schemas.Attempt{Worker: "w", Code: c, Detail: "because"} }
	want := map[int64][]schemas.Attempt{
		4: {failedWith(schemas.CodeArchiveBusy), failedWith(schemas.CodeArchiveBusy)}, // the last one is the result
		5: {failedWith(schemas.CodeDestinationBusy)},
	}
	for _, r := range w.results(20) {
		if diff := cmp.Diff(want[r.Index], r.History, cmpopts.IgnoreFields(schemas.Attempt{}, "At")); diff != "" {
			t.Errorf("item %d: %s", r.Index, diff)
		}
		for _, a := range r.History {
			if a.At.IsZero() || a.At.After(r.FinishedAt) {
				t.Errorf("item %d: attempt at %s, result at %s", r.Index, a.At, r.FinishedAt)
			}
		}
	}
	w.must(stop())
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 1, 1)
	stop := w.start(worker.Config{Retry: worker.RetryPolicy{MaxAttempts: schemas.MaxHistory + 6, Initial: time.Microsecond, MaxDelay: time.Microsecond}},
		&restorer{each: func(context.Context, schemas.Request, int) (schemas.Code, error) { return schemas.CodeArchiveBusy, nil }})
	if r := w.results(1)[0]; r.Attempts != schemas.MaxHistory+6 || len(r.History) != schemas.MaxHistory {
		t.Errorf("%d attempts, %d of them remembered", r.Attempts, len(r.History))
	}
	w.must(stop())
}

func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 30, 10)
	w.submit("c", 1, 1)
	before := time.Now()
	begun, goOn := make(chan struct{}, 100), make(chan struct{})
	stop := w.start(worker.Config{Version: "1.2", Backend: "sqlite"}, &restorer{each: func(_ context.Context, r schemas.Request, try int) (schemas.Code, error) {
		if r.Batch == "c" && try < 3 {
			return schemas.CodeArchiveBusy, nil
		}
		begun <- struct{}{}
		wait(t, goOn)
		return "", nil
	}})
	<-begun
	<-begun
	got := w.status(schemas.WorkerQuestion{}, func(s schemas.WorkerStatus) bool { return s.Items == 31 })
	for _, h := range got.InHand {
		if h.Since.Before(before) || h.Since.After(time.Now()) {
			t.Errorf("in hand since %s", h.Since)
		}
	}
	if got.StartedAt.Before(before.Add(-time.Second)) || got.StartedAt.After(time.Now()) {
		t.Errorf("started at %s", got.StartedAt)
	}
	want := schemas.WorkerStatus{
		Worker: "w", Version: "1.2", Backend: "sqlite", Items: 31,
		InHand: []schemas.InHand{
			{Batch: "b", First: 0, Last: 9, Attempt: 1}, {Batch: "b", First: 10, Last: 19, Attempt: 1}, {Batch: "b", First: 20, Last: 29, Attempt: 1},
			{Batch: "c", First: 0, Last: 0, Attempt: 3},
		},
		Breakers: []schemas.BreakerStatus{{Of: schemas.BreakerArchive, State: schemas.BreakerClosed}, {State: schemas.BreakerClosed}},
	}
	ignore := []cmp.Option{
		cmpopts.IgnoreFields(schemas.WorkerStatus{}, "StartedAt"), cmpopts.IgnoreFields(schemas.InHand{}, "Since"),
		cmpopts.IgnoreFields(schemas.BreakerStatus{}, "Since"), cmpopts.SortSlices(func(a, b schemas.InHand) bool { return fmt.Sprint(a.Batch, a.First) < fmt.Sprint(b.Batch, b.First) }),
	}
	if diff := cmp.Diff(want, got, ignore...); diff != "" {
		t.Error(diff)
	}
	want.InHand = want.InHand[3:]
	got = w.status(schemas.WorkerQuestion{Batch: "c"}, func(schemas.WorkerStatus) bool { return true })
	if diff := cmp.Diff(want, got, ignore...); diff != "" {
		t.Error(diff)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	w.status(schemas.WorkerQuestion{}, func(s schemas.WorkerStatus) bool { return s.Draining })
	close(goOn)
	w.must(<-stopped)
	w.results(31)
}
