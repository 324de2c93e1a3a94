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
	"time"

	"github.com/rs/zerolog"

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
	// Redelivered says whether the message may have been delivered before.
	Redelivered() bool
	// Ack settles the message for good.
	Ack() error
	// Nak gives the message back, to be delivered again after the delay.
	Nak(delay time.Duration) error
	// Alive renews the lease on the message.
	Alive() error
}

// Queue is the broker as a worker sees it.
type Queue interface {
	// WatchBatches reports the active batches until the context ends.
	WatchBatches(ctx context.Context, show func(schemas.Batch), hide func(id string)) error
	// Requests takes up to n messages of a batch, waiting up to wait for the
	// first. None in time is an empty result. It may return messages although
	// the context has ended, or beside an error.
	Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]Message, error)
	// PublishResults returns when all results are stored.
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
// when the context ends.
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
	// Breaker: the breaker in front of archive and destinations is closed, half-open or open.
	Breaker(state string)
}

// unobserved is an Observer that does not look.
type unobserved struct{}

func (unobserved) InHand(int)                              {}
func (unobserved) Settled([]schemas.Result, time.Duration) {}
func (unobserved) Retried(schemas.Code)                    {}
func (unobserved) Breaker(string)                          {}

// Config says how a worker works. The zero value of each field but Name works.
type Config struct {
	// Name is the worker's name in subjects and results; see schemas.CheckName.
	Name string
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
	// Timeout bounds one try at a group (default 10 min). What is not done then
	// is tried in smaller groups, and at last counts as a failed attempt of the
	// one item that does not end.
	Timeout time.Duration
	// DrainTimeout bounds how long work in hand may go on once Run's context
	// has ended; 0 lets it finish.
	DrainTimeout time.Duration
	// Retry says when failed items are tried again.
	Retry RetryPolicy
	// Ping probes the archive; nil means that it is never probed but tried.
	Ping func(context.Context) error
	// Observer is told what the worker does; nil tells nobody.
	Observer Observer
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
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Minute
	}
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	if c.Ping == nil {
		c.Ping = func(context.Context) error { return nil }
	}
	return c
}

// idleWait is how long one request for messages waits at the broker.
const idleWait = 5 * time.Second

// Worker works on all active batches at the same time.
type Worker struct {
	cfg     Config
	queue   Queue
	retries Retries
	guard   *guard
	log     zerolog.Logger
	slots   *slots // of groups being restored
	settles *slots // of groups being settled

	inHand sync.WaitGroup
	stop   context.CancelCauseFunc // stops taking, with a cause
}

// New makes a worker.
func New(cfg Config, q Queue, retries Retries, r Restorer, log zerolog.Logger) (*Worker, error) {
	if err := schemas.CheckName(cfg.Name); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	cfg = cfg.withDefaults()
	cfg.Retry = cfg.Retry.withDefaults()
	return &Worker{
		cfg: cfg, queue: q, retries: retries, log: log,
		guard:   newGuard(r, cfg, log),
		slots:   newSlots(cfg.Groups, cfg.GroupSize),
		settles: newSlots(cfg.Groups, cfg.GroupSize),
	}, nil
}

// Run works until the context ends, then finishes what is in hand. It returns
// early, with an error, when the worker cannot write any more (SickError) or
// has lost the broker.
func (w *Worker) Run(ctx context.Context) error {
	ctx, w.stop = context.WithCancelCause(ctx)
	defer w.stop(nil)
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()

	p := &pullers{run: func(pulling context.Context, b schemas.Batch) { w.pull(pulling, work, ctx, b) }, active: map[string]puller{}}
	err := w.queue.WatchBatches(ctx, func(b schemas.Batch) { p.show(ctx, b) }, p.hide)
	if ctx.Err() != nil {
		err = nil // it ended because it was told to
	}
	w.stop(nil)
	p.wait()

	if w.cfg.DrainTimeout > 0 {
		defer time.AfterFunc(w.cfg.DrainTimeout, abort).Stop()
	}
	w.inHand.Wait()
	if sick, ok := errors.AsType[*SickError](context.Cause(ctx)); ok {
		return sick
	}
	return err
}

// pull takes groups of one batch and hands them on while there are free slots.
func (w *Worker) pull(ctx, work, stop context.Context, b schemas.Batch) {
	for failures := 0; ctx.Err() == nil; {
		msgs, slot, err := w.take(ctx, b.ID)
		if len(msgs) > 0 {
			w.inHand.Go(func() { w.work(work, stop, b, msgs, slot) })
		}
		if err == nil || ctx.Err() != nil {
			failures = 0
			continue
		}
		// Once is how a batch ends: its consumer goes, and then the news comes.
		if failures++; failures > 1 {
			w.log.Warn().Err(err).Str("batch", b.ID).Msg("cannot take requests; trying again")
		}
		pause(ctx, time.Second)
	}
}

// take waits for a free slot and for messages. When it returns any, the slot is
// the caller's.
func (w *Worker) take(ctx context.Context, batch string) ([]Message, *slot, error) {
	free := w.slots.acquire(ctx, w.cfg.GroupSize)
	if free == nil {
		return nil, nil, nil
	}
	msgs, err := w.fill(ctx, batch, nil)
	if len(msgs) > 0 {
		return msgs, free.fit(itemsIn(msgs)), err
	}
	free.release()
	if err != nil {
		return nil, nil, err
	}
	// Nothing there: wait for the first message without keeping a slot from
	// other batches.
	msgs, err = w.queue.Requests(ctx, batch, 1, idleWait)
	if len(msgs) == 0 {
		return nil, nil, err
	}
	stopAlive := w.keepAlive(msgs)
	defer stopAlive()
	if free = w.slots.acquire(ctx, w.cfg.GroupSize); free == nil {
		w.handBack(msgs)
		return nil, nil, nil
	}
	msgs, err = w.fill(ctx, batch, msgs)
	return msgs, free.fit(itemsIn(msgs)), err
}

// fill takes as many of the messages that are there as make a group. How many
// items are in a message shows only when it comes, so it is careful first.
func (w *Worker) fill(ctx context.Context, batch string, msgs []Message) ([]Message, error) {
	items := itemsIn(msgs)
	for items < w.cfg.GroupSize {
		inMessage := schemas.MaxRequests
		if len(msgs) > 0 {
			inMessage = items / len(msgs)
		}
		n := max(1, (w.cfg.GroupSize-items)/inMessage)
		more, err := w.queue.Requests(ctx, batch, n, 0)
		msgs = append(msgs, more...)
		if err != nil || len(more) < n {
			return msgs, err
		}
		items += itemsIn(more)
	}
	return msgs, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
