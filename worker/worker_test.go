package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queue is a real broker as a worker sees it.
type queue struct{ *broker.Broker }

func (q queue) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]worker.Message, error) {
	got, err := q.Broker.Requests(ctx, batch, n, wait)
	msgs := make([]worker.Message, len(got))
	for i, d := range got {
		msgs[i] = d
	}
	return msgs, err
}

// world is a broker, and what came out of it.
type world struct {
	*testing.T
	broker *broker.Broker
}

func newWorld(t *testing.T) *world {
	t.Helper()
	b, err := broker.Embed(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, b}
	t.Cleanup(func() { w.must(b.Close()) })
	w.must(b.Setup(t.Context()))
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) submit(id string, n int64, perMessage int) {
	w.Helper()
	w.must(w.broker.Activate(w.Context(), schemas.Batch{ID: id, State: schemas.StateOpen}))
	var rs []schemas.Request
	for i := range n {
		rs = append(rs, schemas.Request{Batch: id, Index: i, Tombstone: fmt.Sprint(id, i), Output: fmt.Sprint("o", i)})
	}
	w.must(w.broker.Publish(w.Context(), rs, perMessage))
}

// start runs a worker and returns what stops it and gives its error.
func (w *world) start(cfg worker.Config, r worker.Restorer) (stop func() error) {
	w.Helper()
	return w.startAt(queue{w.broker}, cfg, r)
}

func (w *world) startAt(q worker.Queue, cfg worker.Config, r worker.Restorer) (stop func() error) {
	w.Helper()
	if cfg.Name == "" {
		cfg.Name = "w"
	}
	if cfg.Retry.Initial == 0 {
		cfg.Retry.Initial = time.Millisecond
	}
	wk, err := worker.New(cfg, q, w.broker, r, zerolog.Nop())
	w.must(err)
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- wk.Run(ctx) }()
	stopped := sync.OnceValue(func() error { cancel(); return <-done })
	w.Cleanup(func() { _ = stopped() })
	return stopped
}

// results waits for n results, and fails when an item has two.
func (w *world) results(n int) []schemas.Result {
	w.Helper()
	var out []schemas.Result
	seen := map[string]bool{}
	for len(out) < n {
		got, err := w.broker.Results(w.Context(), 8, 10*time.Second)
		w.must(err)
		if len(got) == 0 {
			w.Fatalf("%d results instead of %d", len(out), n)
		}
		for _, d := range got {
			var g schemas.ResultGroup
			w.must(json.Unmarshal(d.Data(), &g))
			for _, r := range g.Results {
				if seen[r.ID()] {
					w.Errorf("%s has two results", r.ID())
				}
				seen[r.ID()] = true
				out = append(out, r)
			}
			w.must(d.Ack())
		}
	}
	return out
}

// nothingLeft makes sure that all messages of a batch are settled, or soon will be:
// acknowledgements are under way.
func (w *world) nothingLeft(id string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
	defer cancel()
	for settled := false; !settled; {
		var err error
		if settled, err = w.broker.Settled(ctx, id); err != nil {
			w.Fatalf("requests are left: %v", err)
		}
	}
}

// left is how many messages of a batch are not settled.
func (w *world) left(id string) int {
	w.Helper()
	w.must(w.broker.Reclaim(w.Context()))
	got, err := w.broker.Requests(w.Context(), id, 1000, 0)
	w.must(err)
	return len(got)
}

// restorer restores each item by a function, which may be called by several
// goroutines and is told how often the item was tried.
type restorer struct {
	each func(ctx context.Context, r schemas.Request, try int) (schemas.Code, error)

	mu    sync.Mutex
	tries map[string]int
}

func (f *restorer) Restore(ctx context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	out := make([]schemas.Result, len(items))
	for i, r := range items {
		f.mu.Lock()
		if f.tries == nil {
			f.tries = map[string]int{}
		}
		f.tries[r.ID()]++
		try := f.tries[r.ID()]
		f.mu.Unlock()
		code, err := f.each(ctx, r, try)
		if err != nil {
			return nil, err
		}
		out[i] = schemas.Result{Request: r, Outcome: schemas.OutcomeRestored}
		if code != "" {
			out[i].Outcome, out[i].Code, out[i].Detail = schemas.OutcomeFailed, code, "because"
		}
	}
	return out, nil
}

func works(context.Context, schemas.Request, int) (schemas.Code, error) { return "", nil }

func TestEveryItemGetsItsOutcomeAndAttempts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 300, 20)
	stop := w.start(worker.Config{GroupSize: 64, Retry: worker.RetryPolicy{MaxAttempts: 3, Initial: time.Millisecond}},
		&restorer{each: func(_ context.Context, r schemas.Request, try int) (schemas.Code, error) {
			switch r.Index % 50 {
			case 1: // fails twice
				if try <= 2 {
					return schemas.CodeArchiveBusy, nil
				}
			case 2: // never works
				return schemas.CodeDestinationBusy, nil
			case 3:
				return schemas.CodeTombstoneNotFound, nil
			}
			return "", nil
		}})
	for _, r := range w.results(300) {
		outcome, attempts, code := schemas.OutcomeRestored, 1, schemas.Code("")
		switch r.Index % 50 {
		case 1:
			attempts = 3
		case 2:
			outcome, attempts, code = schemas.OutcomeFailed, 3, schemas.CodeDestinationBusy
		case 3:
			outcome, code = schemas.OutcomeFailed, schemas.CodeTombstoneNotFound
		}
		if r.Outcome != outcome || r.Attempts != attempts || r.Code != code || r.Worker != "w" || r.FinishedAt.IsZero() {
			t.Errorf("item %d: %+v", r.Index, r)
		}
	}
	w.must(stop())
	w.nothingLeft("b")
}

// Attempts outlive the worker and the server's own count of deliveries.
func TestAttemptsSurviveARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 1, 1)
	failed := make(chan struct{}, 10)
	stop := w.start(worker.Config{Retry: worker.RetryPolicy{Initial: time.Hour, MaxDelay: time.Hour, Jitter: func() float64 { return 1 }}},
		&restorer{each: func(context.Context, schemas.Request, int) (schemas.Code, error) {
			failed <- struct{}{}
			return schemas.CodeArchiveBusy, nil
		}})
	<-failed
	w.must(stop())
	w.must(w.broker.Reclaim(w.Context()))
	stop = w.start(worker.Config{}, &restorer{each: works})
	if r := w.results(1)[0]; r.Attempts != 2 || r.Outcome != schemas.OutcomeRestored {
		t.Errorf("attempts %d, outcome %s", r.Attempts, r.Outcome)
	}
	w.must(stop())
}

// archiveProbe is a prober that finds all destinations well.
type archiveProbe func() error

func (p archiveProbe) Archive(context.Context) error           { return p() }
func (archiveProbe) Destination(context.Context, string) error { return nil }

func TestAnOutageCostsNoAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 100, 7)
	var mu sync.Mutex
	away := true
	state := func() error {
		mu.Lock()
		defer mu.Unlock()
		if away {
			return fault.New(schemas.CodeArchiveDown, "refused")
		}
		return nil
	}
	pinged := make(chan struct{}, 1000)
	stop := w.start(worker.Config{GroupSize: 30, Prober: archiveProbe(func() error { pinged <- struct{}{}; return state() })},
		&restorer{each: func(context.Context, schemas.Request, int) (schemas.Code, error) { return "", state() }})
	<-pinged
	mu.Lock()
	away = false
	mu.Unlock()
	for _, r := range w.results(100) {
		if r.Attempts != 1 {
			t.Errorf("item %d: attempts %d", r.Index, r.Attempts)
		}
	}
	w.must(stop())
}

// Whoever is told to stop in an outage gives everything back at once.
func TestStopDuringAnOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 100, 7)
	down := fault.New(schemas.CodeArchiveDown, "refused")
	tried := make(chan struct{}, 1000)
	stop := w.start(worker.Config{Prober: archiveProbe(func() error { return down })},
		&restorer{each: func(context.Context, schemas.Request, int) (schemas.Code, error) {
			tried <- struct{}{}
			return "", down
		}})
	<-tried
	w.must(stop())
	stop = w.start(worker.Config{}, &restorer{each: works}) // without Reclaim
	for _, r := range w.results(100) {
		if r.Attempts != 1 {
			t.Errorf("item %d: attempts %d", r.Index, r.Attempts)
		}
	}
	w.must(stop())
}

func TestSickWorkerGivesItsItemsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 200, 10)
	sick := &restorer{each: func(_ context.Context, r schemas.Request, _ int) (schemas.Code, error) {
		if r.Index >= 100 {
			return schemas.CodeDestinationFull, nil
		}
		return "", nil
	}}
	wk, err := worker.New(worker.Config{Name: "sick", GroupSize: 50, EndWhenSick: true}, queue{w.broker}, w.broker, sick, zerolog.Nop())
	w.must(err)
	err = wk.Run(t.Context())
	if s, ok := errors.AsType[*worker.SickError](err); !ok || s.Code != schemas.CodeDestinationFull || s.Detail != "because" {
		t.Fatalf("got error %v", err)
	}
	for id, n := range sick.tries {
		if n > 10 {
			t.Errorf("%s was tried %d times", id, n)
		}
	}
	w.start(worker.Config{Name: "well"}, &restorer{each: works})
	for _, r := range w.results(200) {
		if r.Attempts != 1 {
			t.Errorf("item %d: attempts %d", r.Index, r.Attempts)
		}
		if r.Index >= 100 && r.Worker != "well" {
			t.Errorf("item %d: worker %s", r.Index, r.Worker)
		}
	}
}

// The first stage lets work in hand finish, the second ends it.
func TestStopInTwoStages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		drain time.Duration
		done  int
	}{{"finish", 0, 5}, {"abort", time.Millisecond, 0}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.submit("b", 5, 1)
			begun, goOn := make(chan struct{}, 5), make(chan struct{})
			stop := w.start(worker.Config{GroupSize: 5, DrainTimeout: c.drain},
				&restorer{each: func(ctx context.Context, _ schemas.Request, _ int) (schemas.Code, error) {
					begun <- struct{}{}
					select {
					case <-goOn:
						return "", nil
					case <-ctx.Done():
						return "", ctx.Err()
					}
				}})
			<-begun
			stopped := make(chan error, 1)
			go func() { stopped <- stop() }()
			if c.drain == 0 {
				close(goOn)
			}
			w.must(<-stopped)
			w.results(c.done)
			if c.done == 5 {
				w.nothingLeft("b")
			} else if n := w.left("b"); n != 5 {
				t.Errorf("%d requests are left, want 5", n)
			}
		})
	}
}

// garbling is a queue whose second message cannot be read, and whose third one
// is none of ours.
type garbling struct{ queue }

type garbled struct {
	worker.Message
	data  string
	index bool
}

func (g garbled) Data() []byte { return []byte(g.data) }

func (g garbled) Indexes() (first, last int64, ok bool) {
	if !g.index {
		return 0, 0, false
	}
	return g.Message.Indexes()
}

func (q garbling) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]worker.Message, error) {
	msgs, err := q.queue.Requests(ctx, batch, n, wait)
	for i, m := range msgs {
		switch index, _, _ := m.Indexes(); index {
		case 1:
			msgs[i] = garbled{m, "\x00 rubbish", true}
		case 2:
			msgs[i] = garbled{m, "something else", false}
		}
	}
	return msgs, err
}

func TestBadRequestsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 4, 1)
	wk, err := worker.New(worker.Config{Name: "w"}, garbling{queue{w.broker}}, w.broker, &restorer{each: works}, zerolog.Nop())
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- wk.Run(ctx) }()
	got := map[int64]schemas.Code{}
	for _, r := range w.results(3) {
		got[r.Index] = r.Code
	}
	if diff := cmp.Diff(map[int64]schemas.Code{0: "", 1: schemas.CodeBadRequest, 3: ""}, got); diff != "" {
		t.Error(diff)
	}
	cancel()
	w.must(<-done)
	w.nothingLeft("b")
}

func TestManyBatchesAreAllServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const batches = 200
	for i := range batches {
		w.submit(fmt.Sprint("b", i), 5, 2)
	}
	stop := w.start(worker.Config{}, &restorer{each: works})
	w.results(5 * batches)
	w.must(stop())
}

func TestSmallBatchIsNotStarved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("large", 20_000, 10)
	var mu sync.Mutex
	large, whenSmall := 0, -1
	small := 0
	stop := w.start(worker.Config{GroupSize: 100}, &restorer{each: func(_ context.Context, r schemas.Request, _ int) (schemas.Code, error) {
		mu.Lock()
		defer mu.Unlock()
		if r.Batch == "large" {
			large++
		} else if small++; small == 10 {
			whenSmall = large
		}
		return "", nil
	}})
	w.submit("small", 10, 1)
	at := func() int { mu.Lock(); defer mu.Unlock(); return large }()
	w.results(20_010)
	w.must(stop())
	if late := whenSmall - at; late > 5_000 {
		t.Errorf("the small batch waited for %d items of the large one", late)
	}
}

// Ended batches and idle ones cost next to nothing.
func TestBatchEndsWhileAWorkerWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	counting := &counting{queue: queue{w.broker}}
	wk, err := worker.New(worker.Config{Name: "w"}, counting, w.broker, &restorer{each: works}, zerolog.Nop())
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- wk.Run(ctx) }()
	for i := range 20 {
		id := fmt.Sprint("b", i)
		w.submit(id, 1, 1)
		w.results(1)
		w.must(w.broker.Retire(t.Context(), id))
	}
	cancel()
	w.must(<-done)
	if n := counting.calls(); n > 20*8 {
		t.Errorf("%d requests for messages", n)
	}
}

type counting struct {
	queue
	mu sync.Mutex
	n  int
}

func (c *counting) calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *counting) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]worker.Message, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.queue.Requests(ctx, batch, n, wait)
}

// flaky fails at each of its calls now and then.
type flaky struct {
	queue
	mu sync.Mutex
	n  int
}

func (f *flaky) fail() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; f.n%3 == 1 {
		return errors.New("the broker is away")
	}
	return nil
}

func (f *flaky) PublishResults(ctx context.Context, g schemas.ResultGroup) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.queue.PublishResults(ctx, g)
}

func (f *flaky) Retry(ctx context.Context, batch string, index int64) (schemas.Retry, error) {
	if err := f.fail(); err != nil {
		return schemas.Retry{}, err
	}
	return f.queue.Retry(ctx, batch, index)
}

func (f *flaky) SetRetry(ctx context.Context, batch string, index int64, r schemas.Retry) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.queue.SetRetry(ctx, batch, index, r)
}

func (f *flaky) Requeue(ctx context.Context, groups []schemas.RequestGroup) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.queue.Requeue(ctx, groups)
}

func TestSettlingInsists(t *testing.T) {
	t.Parallel()
	for _, perMessage := range []int{1, 3} {
		t.Run(fmt.Sprint(perMessage, " per message"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.submit("b", 3, perMessage)
			f := &flaky{queue: queue{w.broker}}
			wk, err := worker.New(worker.Config{Name: "w", Retry: worker.RetryPolicy{Initial: time.Millisecond}}, f, f,
				&restorer{each: func(_ context.Context, r schemas.Request, try int) (schemas.Code, error) {
					if r.Index == 1 && try == 1 {
						return schemas.CodeArchiveBusy, nil
					}
					return "", nil
				}}, zerolog.Nop())
			w.must(err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- wk.Run(ctx) }()
			for _, r := range w.results(3) {
				if want := 1 + int(r.Index%2); r.Attempts != want {
					t.Errorf("item %d: attempts %d, want %d", r.Index, r.Attempts, want)
				}
			}
			cancel()
			w.must(<-done)
		})
	}
}

// An item that fails goes back to the queue alone: the others of its message are
// not done again, and what is known of the first request stays known.
func TestOneOfManyIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("b", 40, 40)
	var mu sync.Mutex
	tries := map[int64][]time.Time{}
	published := map[int64]bool{}
	const delay = 200 * time.Millisecond
	stop := w.start(worker.Config{Retry: worker.RetryPolicy{MaxAttempts: 3, Initial: delay, MaxDelay: delay, Jitter: func() float64 { return 1 }}},
		&restorer{each: func(_ context.Context, r schemas.Request, try int) (schemas.Code, error) {
			mu.Lock()
			defer mu.Unlock()
			tries[r.Index] = append(tries[r.Index], time.Now())
			published[r.Published.UnixNano()] = true
			if r.Index == 7 && try <= 2 || r.Index == 9 {
				return schemas.CodeArchiveBusy, nil
			}
			return "", nil
		}})
	for _, r := range w.results(40) {
		want := 1
		if r.Index == 7 || r.Index == 9 {
			want = 3
		}
		if r.Attempts != want || len(tries[r.Index]) != want || (r.Outcome == schemas.OutcomeFailed) != (r.Index == 9) {
			t.Errorf("item %d: %d attempts of %d, %d tries, %s", r.Index, r.Attempts, want, len(tries[r.Index]), r.Outcome)
		}
	}
	w.must(stop())
	for i, at := range tries[7][1:] {
		if waited := at.Sub(tries[7][i]); waited < delay {
			t.Errorf("attempt %d came after %s, too early", i+2, waited)
		}
	}
	if len(published) != 1 {
		t.Errorf("the requests pass for published at %d times", len(published))
	}
	w.nothingLeft("b")
}

func TestGroupsAreAboutAsLargeAsWanted(t *testing.T) {
	t.Parallel()
	for _, perMessage := range []int{1, 7, 100} {
		t.Run(fmt.Sprint(perMessage), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.submit("b", 1000, perMessage)
			sizes := make(chan int, 1000)
			stop := w.start(worker.Config{GroupSize: 200, Groups: 1}, sized{&restorer{each: works}, sizes})
			w.results(1000)
			w.must(stop())
			close(sizes)
			n := 0
			for size := range sizes {
				n++
				if size >= 200+perMessage {
					t.Errorf("a group of %d", size)
				}
			}
			if n > 7 {
				t.Errorf("%d groups", n)
			}
		})
	}
}

// sized tells how large groups are.
type sized struct {
	*restorer
	sizes chan<- int
}

func (s sized) Restore(ctx context.Context, set schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	s.sizes <- len(items)
	return s.restorer.Restore(ctx, set, items)
}
