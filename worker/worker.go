// Package worker takes restore requests from the queue, has them restored and
// settles them: results first, acknowledgements last.
//
// A worker keeps no state of its own. Whatever it holds when it dies is
// delivered again, and running a request twice is harmless.
package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Message is one message of requests in hand.
type Message interface {
	Data() []byte
	// Indexes are the indexes of the first and the last item that it asks for,
	// as they stand beside the payload, if they do.
	Indexes() (first, last int64, ok bool)
	// Single tells of a message that somebody published alone, on the subject of
	// schemas.Single, the request's id and the item's index.
	Single() (requestID string, index int64)
	// PublishedAt is when the broker stored the message.
	PublishedAt() time.Time
	// Redelivered says whether the message may have been delivered before, and
	// Deliveries how often it was, this time included, as far as is known.
	Redelivered() bool
	Deliveries() int
	// Ack settles the message for good.
	Ack() error
	// Nak gives the message back, to be delivered again after the delay.
	Nak(delay time.Duration) error
	// Alive renews the lease on the message.
	Alive() error
}

// Queue is the broker as a worker sees it.
type Queue interface {
	// WatchBatches reports the active batches until the context ends. An error means
	// that it does not know them any more; the next call reports all anew.
	WatchBatches(ctx context.Context, show func(schemas.Batch), hide func(id string)) error
	// WatchFleet reports what holds for the fleet, at first and whenever it
	// changes, until the context ends. An error means what it does there.
	WatchFleet(ctx context.Context, show func(schemas.Steering)) error
	// AnswerStatus has questions to the worker answered until stop is called.
	AnswerStatus(answer func(schemas.WorkerQuestion) schemas.WorkerStatus) (stop func(), err error)
	// Requests takes up to n messages of a batch, waiting up to wait for the
	// first. None in time is an empty result. It may return messages although
	// the context has ended, or beside an error.
	Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]Message, error)
	// PublishResults returns when all results and failures are stored. It may be
	// repeated.
	PublishResults(ctx context.Context, g schemas.ResultGroup) error
	// Requeue publishes requests of items that are to be tried again, and
	// returns when all are stored.
	Requeue(ctx context.Context, groups []schemas.RequestGroup) error
}

// Retries keeps the failed attempts of items that will be tried again.
type Retries interface {
	Retry(ctx context.Context, batch string, index int64) (schemas.Retry, error)
	SetRetry(ctx context.Context, batch string, index int64, r schemas.Retry) error
}

// Restorer restores a group of items; see restore.Restorer. It must return soon
// when the context ends. What does not is left behind, and may run beside the same
// items' next try.
type Restorer interface {
	Restore(ctx context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error)
}

// Observer is told what a worker does. Its methods are called by several
// goroutines and must return at once.
type Observer interface {
	// InHand: so many items were taken, or, below zero, have left.
	InHand(delta int)
	// Settled: these results are final, and storing them took so long.
	Settled(results []schemas.Result, took time.Duration)
	// Retried: an attempt failed with the code and will be repeated.
	Retried(code schemas.Code)
	// Breaker: a breaker stands otherwise than before, or is there for the first
	// time.
	Breaker(schemas.BreakerStatus)
}

// unobserved is an Observer that does not look.
type unobserved struct{}

func (unobserved) InHand(int)                              {}
func (unobserved) Settled([]schemas.Result, time.Duration) {}
func (unobserved) Retried(schemas.Code)                    {}
func (unobserved) Breaker(schemas.BreakerStatus)           {}

// Config says how a worker works. The zero value of each field but Name works.
type Config struct {
	// Name is the worker's name in subjects and results; see schemas.CheckName.
	Name string
	// Version and Backend, the kind of the archive, are what the worker's status
	// says. The limits on that backend are the worker's.
	Version, Backend string
	// Cancels makes the worker one that does nothing but give their results to the
	// items of batches that are being cancelled or aborted. It needs no restorer,
	// heeds neither pauses nor limits, and answers no questions.
	Cancels bool
	// Limiter shares the fleet's limits; nil for a worker that has none.
	Limiter Limiter
	// GroupSize is about how many items are restored together (default 512); a
	// message is never divided. Their files are synced by one call.
	GroupSize int
	// Groups is how many whole groups are restored at a time (default 2): while
	// one waits for the disk, the next is read and decoded. Of groups that are
	// not whole, because their batch has no more, as many are restored as make up
	// that many items. 1 means that no two groups are restored at a time. As many
	// again may be waiting for the broker to store their results.
	Groups int
	// Heartbeat is how often leases are renewed (default 10 s).
	Heartbeat time.Duration
	// DrainTimeout bounds how long work in hand may go on once Run's context
	// has ended; 0 lets it finish.
	DrainTimeout time.Duration
	// Retry says when failed items are tried again.
	Retry RetryPolicy
	// EndWhenSick has Run return a SickError when the worker cannot write to a
	// destination. Otherwise it takes nothing more for that one, goes on with others
	// and looks every now and then whether it can write there again.
	EndWhenSick bool
	// Prober looks whether archive and destinations are there; nil means that they
	// are tried instead.
	Prober Prober
	// Observer is told what the worker does; nil tells nobody.
	Observer Observer
	// Tell is told when a breaker opens or closes, one event at a time; nil tells
	// nobody. While it does not return, events are dropped that there is no room for.
	Tell func(schemas.WorkerEvent)
}

func (c Config) withDefaults() Config {
	if c.GroupSize == 0 {
		c.GroupSize = 512
	}
	if c.Groups == 0 {
		c.Groups = 2
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	if c.Prober == nil {
		c.Prober = unprobed{}
	}
	return c
}

// Worker works on all active batches at the same time.
type Worker struct {
	cfg      Config
	queue    Queue
	retries  Retries
	guard    *guard
	log      zerolog.Logger
	restorer Restorer
	// turns are taken by those that restore: one by most, everything by who must be
	// alone.
	turns    *semaphore.Weighted
	slots    *slots // of groups being restored
	settles  *slots // of groups being settled, all with the same share
	settling *share
	hands    *hands

	started  time.Time
	draining atomic.Bool
	inHand   sync.WaitGroup
	stop     context.CancelCauseFunc // stops taking, with a cause
}

// New makes a worker.
func New(cfg Config, q Queue, retries Retries, r Restorer, log zerolog.Logger) (*Worker, error) {
	if err := schemas.CheckName(cfg.Name); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	cfg = cfg.withDefaults()
	cfg.Retry = cfg.Retry.withDefaults()
	w := &Worker{
		cfg: cfg, queue: q, retries: retries, restorer: r, log: log,
		guard:   newGuard(cfg, log),
		turns:   semaphore.NewWeighted(everything),
		slots:   newSlots(cfg.Groups, cfg.GroupSize),
		settles: newSlots(cfg.Groups, cfg.GroupSize),
		hands:   &hands{all: map[*hand]bool{}},
		started: time.Now(),
	}
	w.settling = w.settles.join("")
	return w, nil
}

// Run works until the context ends, then finishes what is in hand. It returns
// early, with an error, when the worker cannot write any more (SickError, if that is
// to end it) or when the broker does not let it work. It may be called once.
func (w *Worker) Run(ctx context.Context) error {
	ctx, w.stop = context.WithCancelCause(ctx)
	defer w.stop(nil)
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()

	p := &pullers{
		run:    func(pulling context.Context, a *assignment) { w.pull(pulling, work, ctx, a) },
		mine:   w.mine,
		abort:  w.abort,
		slots:  w.slots,
		limits: &limits{of: w.slots, backend: w.cfg.Backend},
		active: map[string]*assignment{},
		paused: !w.cfg.Cancels, // until the fleet's steering is known
	}
	if !w.cfg.Cancels {
		silence, err := w.queue.AnswerStatus(w.Status)
		if err != nil {
			return fmt.Errorf("worker: %w", err)
		}
		defer silence()
	}
	w.guard.start(w.cfg.Tell)
	err := w.watch(ctx, p)
	if ctx.Err() != nil {
		err = nil // it ended because it was told to
	}
	w.draining.Store(true)
	w.stop(nil)
	p.wait()

	if w.cfg.DrainTimeout > 0 {
		defer time.AfterFunc(w.cfg.DrainTimeout, abort).Stop()
	}
	w.inHand.Wait()
	w.guard.close()
	if sick, ok := errors.AsType[*SickError](context.Cause(ctx)); ok {
		return sick
	}
	return err
}

// watch keeps the pullers informed until the context ends, or until it may not.
func (w *Worker) watch(ctx context.Context, p *pullers) error {
	g, watching := errgroup.WithContext(ctx)
	g.Go(func() error {
		return w.again(watching, "the active batches", p.forget, func() error {
			return w.queue.WatchBatches(watching, func(b schemas.Batch) { p.show(ctx, b) }, p.hide)
		})
	})
	if !w.cfg.Cancels {
		// What was known last holds until something else is: a pause ends by nobody's
		// not knowing of it.
		g.Go(func() error {
			return w.again(watching, "the fleet's steering", func() {}, func() error {
				return w.queue.WatchFleet(watching, func(s schemas.Steering) {
					if w.cfg.Limiter == nil {
						s.Limits = nil
					}
					p.steer(ctx, s)
				})
			})
		})
	}
	return g.Wait()
}

// again watches anew whenever a watch is lost, as when the broker has lost its
// buckets, until the context ends or the broker refuses it.
func (w *Worker) again(ctx context.Context, what string, lost func(), watch func() error) error {
	for {
		err := watch()
		if ctx.Err() != nil || fault.Is(err, schemas.CodeBrokerDenied) {
			return err
		}
		lost()
		w.log.Warn().Err(err).Msg("cannot watch " + what + "; trying again")
		pause(ctx, time.Second)
	}
}

// mine says whether the worker takes items of a batch.
func (w *Worker) mine(b *schemas.Batch) bool {
	if w.cfg.Cancels {
		return b.Stopping() && !b.State.Final()
	}
	return b.Workable()
}

// abort gives up what is in hand of a batch. Who cancels goes on: that is how the
// batch ends.
func (w *Worker) abort(batch string) {
	if !w.cfg.Cancels {
		w.hands.abort(batch)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
