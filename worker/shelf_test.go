package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// shelf is a queue in memory, for tests in which the clock must be a false one.
// The tests of package worker_test are those with a real broker.
type shelf struct {
	mu       sync.Mutex
	changed  chan struct{} // closed when anything has
	batches  map[string]schemas.Batch
	steering schemas.Steering
	msgs     map[string][]*shelved // by batch
	retries  map[string]schemas.Retry
	results  map[string]schemas.Result
	repeated int // results of items that had one
	failures []schemas.Failure
	full     bool           // no room for requests that are published again
	asked    map[string]int // how often messages of a batch were asked for
	steps    []string       // what workers have done, in order
	lost     chan struct{}  // closed when watches are lost
}

func newShelf() *shelf {
	return &shelf{
		changed: make(chan struct{}), batches: map[string]schemas.Batch{}, msgs: map[string][]*shelved{},
		retries: map[string]schemas.Retry{}, results: map[string]schemas.Result{}, asked: map[string]int{}, lost: make(chan struct{}),
	}
}

// change does something to the shelf, and wakes who waits for that.
func (s *shelf) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	close(s.changed)
	s.changed = make(chan struct{})
}

// put submits n items of a batch.
func (s *shelf) put(b schemas.Batch, n, perMessage int) {
	s.change(func() {
		s.batches[b.ID] = b
		for from := 0; from < n; from += perMessage {
			var rs []schemas.Request
			for i := from; i < min(n, from+perMessage); i++ {
				rs = append(rs, schemas.Request{Batch: b.ID, Index: int64(i), Tombstone: "t", Output: fmt.Sprint(i)})
			}
			s.append(schemas.NewRequestGroup(rs))
		}
	})
}

func (s *shelf) append(g schemas.RequestGroup) {
	data, err := json.Marshal(g)
	if err != nil {
		panic(err)
	}
	s.msgs[g.Batch] = append(s.msgs[g.Batch], &shelved{
		on: s, data: data, first: g.First, last: g.First + int64(len(g.Items)) - 1, at: time.Now(), ready: time.Now(),
	})
}

func (s *shelf) steer(st schemas.Steering) { s.change(func() { s.steering = st }) }

// done is how many items of a batch have a result.
func (s *shelf) done(batch string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.results {
		if r.Batch == batch {
			n++
		}
	}
	return n
}

// shelved is a message.
type shelved struct {
	on          *shelf
	data        []byte
	first, last int64
	at, ready   time.Time
	holder      *hold // nil for nobody
	settled     bool
	deliveries  int
}

// hold is a worker's connection to the shelf.
type hold struct {
	*shelf
	dead bool
}

// delivered is a message as one worker has it.
type delivered struct {
	*shelved
	by         *hold
	deliveries int
}

func (d *delivered) Data() []byte                  { return d.data }
func (d *delivered) Indexes() (_, _ int64, _ bool) { return d.first, d.last, true }
func (d *delivered) Single() (string, int64)       { panic("not of a batch") }
func (d *delivered) PublishedAt() time.Time        { return d.at }
func (d *delivered) Redelivered() bool             { return d.deliveries > 1 }
func (d *delivered) Deliveries() int               { return d.deliveries }
func (d *delivered) Alive() error                  { return nil }
func (d *delivered) Ack() error                    { return d.settle("ack", func() { d.settled = true }) }

func (d *delivered) Nak(delay time.Duration) error {
	return d.settle("nak", func() { d.holder, d.ready = nil, time.Now().Add(delay) })
}

func (d *delivered) settle(step string, do func()) error {
	d.on.change(func() {
		if d.holder == d.by && !d.by.dead {
			d.on.steps = append(d.on.steps, step)
			do()
		}
	})
	return nil
}

var errDead = errors.New("the process is gone")

// die ends a worker's process: nothing that it does reaches the shelf any more, and
// what it had in hand is delivered again.
func (h *hold) die() {
	h.change(func() {
		h.dead = true
		for m := range h.all() {
			if m.holder == h {
				m.holder, m.ready = nil, time.Now()
			}
		}
	})
}

func (s *shelf) all() map[*shelved]bool {
	all := map[*shelved]bool{}
	for _, msgs := range s.msgs {
		for _, m := range msgs {
			all[m] = true
		}
	}
	return all
}

func (h *hold) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]Message, error) {
	until := time.Now().Add(wait)
	h.mu.Lock()
	h.asked[batch]++
	h.mu.Unlock()
	for {
		h.mu.Lock()
		if h.dead {
			h.mu.Unlock()
			return nil, errDead
		}
		var out []Message
		next := until
		for len(h.msgs[batch]) > 0 && h.msgs[batch][0].settled {
			h.msgs[batch] = h.msgs[batch][1:]
		}
		for _, m := range h.msgs[batch] {
			if len(out) == n {
				break
			}
			if m.holder != nil || m.settled {
				continue
			}
			if m.ready.After(time.Now()) {
				if m.ready.Before(next) {
					next = m.ready
				}
				continue
			}
			m.holder = h
			m.deliveries++
			out = append(out, &delivered{m, h, m.deliveries})
		}
		changed := h.changed
		h.mu.Unlock()
		ended := ctx.Err() != nil || !time.Now().Before(until)
		if len(out) > 0 || ended {
			return out, nil
		}
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

func (h *hold) watch(ctx context.Context, look func()) error {
	for ctx.Err() == nil {
		h.mu.Lock()
		changed, lost := h.changed, h.lost
		h.mu.Unlock()
		look()
		select {
		case <-ctx.Done():
		case <-lost:
			return errors.New("the bucket is gone")
		case <-changed:
		}
	}
	return nil
}

func (h *hold) WatchBatches(ctx context.Context, show func(schemas.Batch), _ func(string)) error {
	seen := map[string]string{}
	return h.watch(ctx, func() {
		h.mu.Lock()
		all := maps.Clone(h.batches)
		h.mu.Unlock()
		for id, b := range all {
			if now := fmt.Sprint(b); seen[id] != now {
				seen[id] = now
				show(b)
			}
		}
	})
}

func (h *hold) WatchFleet(ctx context.Context, show func(schemas.Steering)) error {
	seen := ""
	return h.watch(ctx, func() {
		h.mu.Lock()
		s := h.steering
		h.mu.Unlock()
		if now := fmt.Sprint(s); seen != now {
			seen = now
			show(s)
		}
	})
}

func (h *hold) AnswerStatus(func(schemas.WorkerQuestion) schemas.WorkerStatus) (func(), error) {
	return func() {}, nil
}

func (h *hold) do(do func()) (err error) {
	h.change(func() {
		if h.dead {
			err = errDead
			return
		}
		do()
	})
	return err
}

func (h *hold) PublishResults(_ context.Context, g schemas.ResultGroup) error {
	return h.do(func() {
		h.steps = append(h.steps, "publish")
		h.failures = append(h.failures, g.Failures...)
		for _, r := range g.Results {
			if _, ok := h.results[r.ID()]; ok {
				h.repeated++
			}
			h.results[r.ID()] = r
		}
	})
}

func (h *hold) Requeue(_ context.Context, groups []schemas.RequestGroup) error {
	full := false
	err := h.do(func() {
		if full = h.full; full {
			return
		}
		h.steps = append(h.steps, "requeue")
		for _, g := range groups {
			h.append(g)
		}
	})
	if full {
		err = fault.New(schemas.CodeBrokerFull, "the queue is full")
	}
	return err
}

func (h *hold) Retry(_ context.Context, batch string, index int64) (r schemas.Retry, err error) {
	err = h.do(func() { r = h.retries[fmt.Sprint(batch, ":", index)] })
	return r, err
}

func (h *hold) SetRetry(_ context.Context, batch string, index int64, r schemas.Retry) error {
	return h.do(func() {
		h.steps = append(h.steps, "count")
		h.retries[fmt.Sprint(batch, ":", index)] = r
	})
}

// process is a worker that runs.
type process struct {
	*Worker
	hold *hold
	stop func()
}

// run starts a worker at the shelf. Stop lets it finish what it has in hand.
func (s *shelf) run(t *testing.T, cfg Config, r Restorer) *process {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "w"
	}
	p := &process{hold: &hold{shelf: s}}
	var err error
	if p.Worker, err = New(cfg, p.hold, p.hold, r, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// kill ends a worker as a kill of its process would.
func (p *process) kill() {
	p.hold.die()
	p.hands.mu.Lock()
	for h := range p.hands.all {
		h.giveUp()
	}
	p.hands.mu.Unlock()
	p.stop()
}

// slow restores groups that take so long each, and counts the items by batch.
type slow struct {
	took  time.Duration
	size  func(index int64) int64 // nil: nothing
	mu    sync.Mutex
	items map[string]int
	bytes int64
}

func (r *slow) Restore(ctx context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	// Never quite the same, so that groups don't end in step.
	if err := lasts(ctx, r.took*3/4+rand.N(r.took/2+1)); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.items == nil {
		r.items = map[string]int{}
	}
	r.items[items[0].Batch] += len(items)
	out := make([]schemas.Result, len(items))
	for i := range items {
		out[i] = schemas.Result{Request: items[i], Outcome: schemas.OutcomeRestored}
		if r.size != nil {
			out[i].Size = r.size(items[i].Index)
			r.bytes += out[i].Size
		}
	}
	return out, nil
}

func (r *slow) count(batch string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.items[batch]
}

// lasts takes so long.
func lasts(ctx context.Context, d time.Duration) error {
	pause(ctx, d)
	return ctx.Err()
}

// bubble runs a test with a false clock.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

// late is a queue that has a message on its way when a request for it ends.
type late struct{ *hold }

func (l late) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]Message, error) {
	msgs, err := l.hold.Requests(ctx, batch, n, wait)
	if ctx.Err() != nil && len(msgs) == 0 && err == nil {
		l.put(schemas.Batch{ID: batch}, 1, 1)
		return l.hold.Requests(context.WithoutCancel(ctx), batch, 1, 0)
	}
	return msgs, err
}

// What comes after the pause began is given back.
func TestLateMessagesAreGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(schemas.Batch{ID: "b"}, 0, 1)
		r := &slow{}
		h := &hold{shelf: s}
		w, err := New(Config{Name: "w"}, late{h}, h, r, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(time.Second)
		s.steer(schemas.Steering{Pause: &schemas.Standing{}})
		time.Sleep(time.Minute)
		s.mu.Lock()
		msgs := s.msgs["b"]
		s.mu.Unlock()
		if len(msgs) != 1 || msgs[0].deliveries != 1 || msgs[0].holder != nil || msgs[0].settled {
			t.Errorf("%d messages, the first is %+v", len(msgs), msgs[0])
		}
		if st := w.Status(schemas.WorkerQuestion{}); st.Items != 0 || r.count("b") != 0 {
			t.Errorf("%d items in hand, %d done", st.Items, r.count("b"))
		}
		s.steer(schemas.Steering{})
		time.Sleep(time.Second)
		if r.count("b") != 1 {
			t.Error("it was not done in the end")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
