package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/console"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// watching notes what is said of a full queue.
type watching struct {
	silent
	mu      sync.Mutex
	reasons []error
	full    func()
}

func (*watching) Waiting(string)            {}
func (*watching) Submitting(_, _ int64)     {}
func (*watching) Restoring(schemas.Summary) {}
func (*watching) Where(schemas.Whereabouts) {}

func (w *watching) Full(reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reasons = append(w.reasons, reason)
	if w.full != nil {
		w.full()
	}
}

// doing restores nothing and says what it did, when it may.
type doing struct {
	may chan struct{}
	// code, if set, is how all fails.
	code schemas.Code
}

func (d doing) Restore(ctx context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	select {
	case <-d.may:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	done := make([]schemas.Result, len(items))
	for i, r := range items {
		done[i] = schemas.Result{Request: r, Outcome: schemas.OutcomeUnchanged}
		if d.code != "" {
			done[i].Outcome, done[i].Code = schemas.OutcomeFailed, d.code
		}
	}
	return done, nil
}

// largeBatch is a batch more than ten times as large as the queue, and more than
// twice as the stream of results.
func largeBatch(t *testing.T, w *watching, d doing) (*planned, BatchOptions) {
	t.Helper()
	p := newPlanned(t)
	p.cfg.Exhume.QueueBytes, p.cfg.Exhume.ResultsBytes, p.cfg.Exhume.ArchiveEvents = 1<<20, 4<<20, false
	var rows strings.Builder
	note := strings.Repeat("x", 3000)
	for i := range 4000 {
		_, _ = fmt.Fprintf(&rows, `{"tombstone": "00000000-0000-4000-8000-%012x", "output": "out/%d", "note": "%s"}`+"\n", i, i, note)
	}
	p.write(t, "large.jsonl", rows.String())
	return p, BatchOptions{
		Manifest: p.path("large.jsonl"), Actor: "tester", Root: p.path("out"), Progress: w, Rejected: func(producer.Reject) {},
		Trial: Trial{Restorer: d},
	}
}

// A batch that is larger than the queue and the stream of results ends all the same.
func TestBatchLargerThanTheBroker(t *testing.T) {
	t.Parallel()
	d := doing{may: make(chan struct{})}
	gauges := map[string]float64{}
	m := console.NewMetrics()
	w := &watching{full: sync.OnceFunc(func() {
		all, err := m.Gather()
		must(t, err)
		for _, f := range all {
			gauges[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
		}
		close(d.may)
	})}
	p, o := largeBatch(t, w, d)
	o.Trial.Metrics = m
	got, err := BatchRestore(t.Context(), p.cfg, o, zerolog.Nop())
	if err != nil || got.State != schemas.StateSucceeded || got.Counts.Unchanged != 4000 {
		t.Fatalf("%s %+v, %v", got.State, got.Counts, err)
	}
	if full := gauges["exhume_queue_bytes"] / gauges["exhume_queue_bound_bytes"]; gauges["exhume_queue_bound_bytes"] != 1<<20 ||
		full < 0.8 || full > 1 || gauges["exhume_results_bound_bytes"] != 4<<20 {
		t.Errorf("metrics: %v", gauges)
	}
	if n := len(w.reasons); n < 2 || !fault.Is(w.reasons[0], schemas.CodeBrokerFull) || !strings.HasPrefix(w.reasons[0].Error(), "the queue is full (") || w.reasons[n-1] != nil {
		t.Errorf("told %v", w.reasons)
	}
}

// Who interrupts a submission that waits is told so at once, and the same call goes
// on where it stopped.
func TestInterruptWhileTheQueueIsFull(t *testing.T) {
	t.Parallel()
	d := doing{may: make(chan struct{})}
	ctx, interrupt := context.WithCancel(t.Context())
	w := &watching{full: sync.OnceFunc(func() {
		interrupt()
		close(d.may) // what is in hand is finished
	})}
	p, o := largeBatch(t, w, d)
	got, err := BatchRestore(ctx, p.cfg, o, zerolog.Nop())
	if !errors.Is(err, ErrInterrupted) || got.State != schemas.StateOpen {
		t.Fatalf("%s, %v", got.State, err)
	}
	got, err = BatchRestore(t.Context(), p.cfg, o, zerolog.Nop())
	if err != nil || got.State != schemas.StateSucceeded || got.Counts.Unchanged != 4000 {
		t.Fatalf("%s %+v, %v", got.State, got.Counts, err)
	}
}

// A batch that stops by itself, with the queue full of it, is not waited for: nobody
// may be there to let it go on.
func TestBatchThatStopsWhileTheQueueIsFull(t *testing.T) {
	t.Parallel()
	d := doing{may: make(chan struct{}), code: schemas.CodeTombstoneNotFound}
	w := &watching{full: sync.OnceFunc(func() { close(d.may) })}
	p, o := largeBatch(t, w, d)
	o.Terms = func(int64) (schemas.Terms, error) {
		return schemas.Terms{MaxFailures: &schemas.Threshold{Count: new(int64(1))}}, nil
	}
	got, err := BatchRestore(t.Context(), p.cfg, o, zerolog.Nop())
	if _, paused := errors.AsType[*PausedError](err); !paused || got.Counts.Failed == 0 || got.Counts.Failed == 4000 {
		t.Errorf("%s %+v, %v", got.State, got.Counts, err)
	}
}
