package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// queue is a real broker as a collector sees it.
type queue struct{ *broker.Broker }

func (q queue) Results(ctx context.Context, n int, wait time.Duration) ([]Message, error) {
	got, err := q.Broker.Results(ctx, n, wait)
	msgs := make([]Message, len(got))
	for i, d := range got {
		msgs[i] = d
	}
	return msgs, err
}

func newBroker(t testing.TB) *broker.Broker {
	t.Helper()
	b, err := broker.Embed(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	must(t, b.Setup(t.Context()))
	return b
}

func (s *store) sealed(b *Book, id string, total int64) {
	s.t.Helper()
	_, err := b.Begin(s.ctx(), batch(id))
	must(s.t, err)
	_, err = b.Seal(s.ctx(), id, total, "")
	must(s.t, err)
}

// until runs a collector until changed says that it is done.
func until(t testing.TB, c *Collector, changed func(schemas.Summary) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	c.Changed = func(s schemas.Summary) {
		if changed(s) {
			once.Do(cancel)
		}
	}
	must(t, c.Run(ctx))
	must(t, c.Drain(t.Context()))
}

func TestCollect(t *testing.T) {
	t.Parallel()
	s, br := newStore(t), newBroker(t)
	b := s.book()
	s.sealed(b, "b", 40)
	must(t, br.Activate(t.Context(), schemas.Batch{ID: "b"}))
	noted := map[string]int{}
	failures := 2
	archive := func(_ context.Context, events []Event) error {
		if failures--; failures >= 0 {
			return errors.New("the archive is away")
		}
		for _, e := range events {
			noted[e.ID]++
		}
		return nil
	}
	for _, part := range [][]int64{{0, 1, 2, 3, 4}, {3, 4, 5}, {5, 6, 7, 8, 9}} {
		for id := range 4 {
			var shifted []int64
			for _, i := range part {
				shifted = append(shifted, int64(id)*10+i)
			}
			must(t, br.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: "w", Results: results("b", shifted...)}))
		}
	}
	must(t, br.PublishResults(t.Context(), schemas.ResultGroup{Batch: "gone", Worker: "w", Results: results("gone", 1)}))
	until(t, New(b, queue{br}, archive, zerolog.Nop()), func(s schemas.Summary) bool { return s.State.Final() })

	sum, _, err := s.l.Find(t.Context(), "b")
	must(t, err)
	if sum.State != schemas.StateSucceeded || sum.Counts.Restored != 40 {
		t.Errorf("%+v", sum)
	}
	if len(noted) != 40 {
		t.Errorf("%d restorations noted, want 40", len(noted))
	}
	if n := len(s.lines()); n != 42 {
		t.Errorf("%d lines, want 42", n)
	}
	if ids, others, err := br.Activated(t.Context()); err != nil || len(ids)+len(others) != 0 {
		t.Errorf("active %v, %v", ids, err)
	}
	if left, err := br.Results(t.Context(), 100, 0); err != nil || len(left) != 0 {
		t.Errorf("%d messages are left, %v", len(left), err)
	}

	// All results again, from the first.
	before := s.lines()
	for i := range 4 {
		must(t, br.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: "w", Results: results("b", 0, 1, 2, 3, int64(10*i+9))}))
	}
	seen := 0
	until(t, New(s.book(), queue{br}, archive, zerolog.Nop()), func(schemas.Summary) bool { seen++; return true })
	if diff := cmp.Diff(before, s.lines()); diff != "" {
		t.Error(diff)
	}
	again, _, err := s.l.Find(t.Context(), "b")
	must(t, err)
	if diff := cmp.Diff(sum, again); diff != "" {
		t.Error(diff)
	}
	if len(noted) != 40 {
		t.Errorf("%d events, want 40", len(noted))
	}
}

// Whoever notices that a batch is complete ends it; others find it ended.
func TestFinishTwice(t *testing.T) {
	t.Parallel()
	s, br := newStore(t), newBroker(t)
	b := s.book()
	s.sealed(b, "b", 2)
	touched, err := b.Record(t.Context(), results("b", 0, 1), nil)
	must(t, err)
	c := New(b, queue{br}, nil, zerolog.Nop())
	var mu sync.Mutex
	ends := 0
	c.Changed = func(schemas.Summary) { mu.Lock(); defer mu.Unlock(); ends++ }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { must(t, c.FinishIfDone(s.ctx(), touched[0])) })
	}
	wg.Wait()
	s.want("b start", "b:0", "b:1", "b end")
	if ends != 1 {
		t.Errorf("the end was told %d times", ends)
	}
}

// stubborn is a broker that removes a batch at the third try.
type stubborn struct {
	queue
	tries atomic.Int64
}

func (s *stubborn) Retire(ctx context.Context, id string) error {
	if s.tries.Add(1) < 3 {
		return errors.New("the broker is away")
	}
	return s.queue.Retire(ctx, id)
}

// A batch that could not be removed from the broker when it ended is removed later.
func TestRetireLater(t *testing.T) {
	t.Parallel()
	s, br := newStore(t), newBroker(t)
	b := s.book()
	s.sealed(b, "b", 2)
	must(t, br.Activate(t.Context(), schemas.Batch{ID: "b"}))
	must(t, br.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: "w", Results: results("b", 0, 1)}))
	q := &stubborn{queue: queue{br}}
	c := New(b, q, nil, zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	left := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.left)
	}
	for end := time.Now().Add(time.Minute); q.tries.Load() < 3 || left() > 0; pause(t.Context()) {
		if time.Now().After(end) {
			t.Fatalf("still there after %d tries", q.tries.Load())
		}
	}
	cancel()
	must(t, <-ran)
	shown, others, err := br.Activated(t.Context())
	if n := q.tries.Load(); err != nil || len(shown)+len(others) > 0 || n != 3 {
		t.Errorf("%d tries, %v and %v are there, %v", n, shown, others, err)
	}
}

func TestDecodeResults(t *testing.T) {
	t.Parallel()
	const good = `{"batch":"b","index":1,"outcome":"restored"}`
	const try = `{"batch":"b","index":1,"number":2,"code":"internal","next_try":"2026-01-02T03:04:05Z"}`
	for _, c := range []struct {
		name, data string
		want       []string
		bad        bool
	}{
		{"good", `{"batch":"b","results":[` + good + `]}`, []string{"b:1 restored"}, false},
		{"none", `{"batch":"b"}`, nil, false},
		{"wrong type", `{"results":[{"batch":"b","index":0,"outcome":"failed","size":"x"},` + good + `]}`,
			[]string{"b:0 failed internal", "b:1 restored"}, true},
		{"new outcome", `{"results":[{"batch":"b","index":0,"outcome":"vaporised"}]}`, []string{"b:0 failed internal"}, true},
		{"no outcome", `{"results":[{"batch":"b","index":2}]}`, []string{"b:2 failed internal"}, true},
		{"no batch", `{"results":[{"index":0,"outcome":"failed"},` + good + `]}`, []string{"b:1 restored"}, true},
		{"index of another type", `{"results":[{"batch":"b","index":"0","outcome":"failed"}]}`, nil, true},
		{"a failed attempt", `{"results":null,"failures":[` + try + `]}`, []string{"b:1 try 2"}, false},
		{"attempt without number", `{"results":[` + good + `],"failures":[{"batch":"b","index":3},` + try + `]}`,
			[]string{"b:1 restored", "b:1 try 2"}, true},
		{"attempt of a wrong type", `{"results":[` + good + `],"failures":[{"batch":"b","index":"3"},` + try + `]}`,
			[]string{"b:1 restored", "b:1 try 2"}, true},
		{"attempts of a wrong type", `{"results":[` + good + `],"failures":7}`, []string{"b:1 restored"}, true},
		{"bad result beside attempts", `{"results":[{"batch":"b","index":2}],"failures":[` + try + `]}`,
			[]string{"b:2 failed internal", "b:1 try 2"}, true},
		{"no JSON", `{"results":[`, nil, true},
		{"no group", `[]`, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, tries, err := decode([]byte(c.data))
			var short []string
			for i := range got {
				short = append(short, strings.TrimSpace(fmt.Sprintf("%s %s %s", got[i].ID(), got[i].Outcome, got[i].Code)))
			}
			for _, f := range tries {
				short = append(short, fmt.Sprintf("%s:%d try %d", f.Batch, f.Index, f.Number))
			}
			if diff := cmp.Diff(c.want, short); diff != "" || (err != nil) != c.bad {
				t.Errorf("%s error %v", diff, err)
			}
		})
	}
}

func FuzzDecodeResults(f *testing.F) {
	f.Add([]byte(`{"batch":"b","worker":"w","results":[{"batch":"b","index":1,"outcome":"restored"},{"batch":"b","index":2}]}`))
	f.Add([]byte(`{"results":[{"batch":"b","index":0,"outcome":"failed","labels":[]}]}`))
	f.Add([]byte(`{"failures":[{"batch":"b","index":0,"number":1},{"batch":"b","number":"1"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, tries, err := decode(data)
		var parts struct{ Results, Failures []json.RawMessage }
		if json.Unmarshal(data, &parts) == nil && err == nil && (len(got) != len(parts.Results) || len(tries) != len(parts.Failures)) {
			t.Errorf("%d of %d results and %d of %d failures are left, without an error", len(got), len(parts.Results), len(tries), len(parts.Failures))
		}
		for i := range tries {
			if !validFailure(&tries[i]) {
				t.Errorf("got %+v", tries[i])
			}
		}
		for i := range got {
			if !valid(&got[i]) {
				t.Errorf("got %+v", got[i])
			}
			if _, err := json.Marshal(got[i]); err != nil {
				t.Error(err)
			}
		}
	})
}

// workerQueue is a real broker as a worker sees it.
type workerQueue struct{ *broker.Broker }

func (q workerQueue) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]worker.Message, error) {
	got, err := q.Broker.Requests(ctx, batch, n, wait)
	msgs := make([]worker.Message, len(got))
	for i, d := range got {
		msgs[i] = d
	}
	return msgs, err
}

// noop restores nothing and says that it did.
type noop struct{}

func (noop) Restore(_ context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	out := make([]schemas.Result, len(items))
	for i, r := range items {
		out[i] = schemas.Result{
			Request: r, Outcome: schemas.OutcomeRestored, Item: r.Tombstone, Repo: "repo", Path: r.Output, Size: 1000,
			SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", Target: "/root/" + r.Output,
		}
	}
	return out, nil
}

// BenchmarkPipeline publishes a batch and lets a worker whose restorer does
// nothing, and a collector with real ledger and evidence, bring it to its end.
func BenchmarkPipeline(b *testing.B) {
	const n = 50_000
	var items int64
	for b.Loop() {
		b.StopTimer()
		s, br := newStore(b), newBroker(b)
		book := s.book()
		s.sealed(book, "b", n)
		must(b, br.Activate(b.Context(), schemas.Batch{ID: "b"}))
		for from := int64(0); from < n; from += 1000 {
			group := make([]schemas.Request, 1000)
			for i := range group {
				index := from + int64(i)
				group[i] = schemas.Request{
					Batch: "b", Index: index, Tombstone: fmt.Sprintf("00000000-0000-4000-8000-%012d", index),
					Output: fmt.Sprintf("some/directory/file-%d.txt", index), Actor: "bench",
				}
			}
			must(b, br.Publish(b.Context(), group, 64))
		}
		w, err := worker.New(worker.Config{Name: "w"}, workerQueue{br}, br, noop{}, zerolog.Nop())
		must(b, err)
		b.StartTimer()
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		until(b, New(book, queue{br}, nil, zerolog.Nop()), func(s schemas.Summary) bool { return s.State.Final() })
		cancel()
		must(b, <-done)
		items += n
	}
	b.ReportMetric(float64(items)/b.Elapsed().Seconds(), "items/s")
}

// sick is a log whose device fails until it is mended.
type sick struct {
	Evidence
	err error
}

func (s *sick) Append(ctx context.Context, r []schemas.Record) (schemas.EvidencePosition, error) {
	if s.err != nil && len(r) > 0 {
		return schemas.EvidencePosition{}, s.err
	}
	return s.Evidence.Append(ctx, r)
}

// Evidence that cannot be written stops the collector, whoever wanted to write it,
// and the device is not asked again. What was not recorded is not acknowledged.
func TestEvidenceThatFailsStopsTheCollector(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left on device")
	for _, of := range []string{"results", "a command"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			s, br := newStore(t), newBroker(t)
			b := s.book()
			s.sealed(b, "b", 3)
			device := &sick{b.evidence, full}
			b.evidence = device
			if of == "results" {
				must(t, br.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: "w", Results: results("b", 0, 1, 2)}))
			} else if _, err := b.Begin(t.Context(), batch("c")); !errors.Is(err, full) {
				t.Errorf("begun: %v", err)
			}
			if err := New(b, queue{br}, nil, zerolog.Nop()).Run(t.Context()); !errors.Is(err, full) {
				t.Errorf("the collector ended with %v", err)
			}
			device.err = nil // but what it holds is in doubt
			if _, err := b.Begin(t.Context(), batch("d")); !errors.Is(err, full) {
				t.Errorf("went on with %v", err)
			}
			s.want("b start")
			if of == "results" {
				if sum, _, err := s.l.Find(t.Context(), "b"); err != nil || sum.Counts.Done() != 0 {
					t.Errorf("%+v, %v", sum, err)
				}
				if n, err := br.Unrecorded(t.Context()); err != nil || n != 1 {
					t.Errorf("%d messages are not acknowledged, %v", n, err)
				}
			}
		})
	}
}

// A wait for evidence that its caller gives up says nothing about the device.
func TestEvidenceThatIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	b := s.book()
	s.sealed(b, "b", 1)
	ctx, cancel := context.WithCancel(t.Context())
	whole := b.evidence
	b.evidence = &waiting{Evidence: whole, cancel: cancel}
	if _, err := b.Begin(ctx, batch("c")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.evidence = whole
	if _, err := b.Begin(t.Context(), batch("c")); err != nil || b.Failed() != nil {
		t.Errorf("got %v, %v", err, b.Failed())
	}
}

// waiting is a log whose lock another process holds until the caller gives up.
type waiting struct {
	Evidence
	cancel func()
}

func (w *waiting) Append(ctx context.Context, _ []schemas.Record) (schemas.EvidencePosition, error) {
	w.cancel()
	return schemas.EvidencePosition{}, ctx.Err()
}
