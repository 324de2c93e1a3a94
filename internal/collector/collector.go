// Package collector turns results into ledger rows, evidence and archive
// events, and ends batches whose results are complete.
package collector

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Message is one message of results in hand.
type Message interface {
	Data() []byte
	Ack() error
	Nak(delay time.Duration) error
}

// Queue is the broker as the collector sees it.
type Queue interface {
	// Results takes up to n messages of results, waiting up to wait for the
	// first. None in time is an empty result.
	Results(ctx context.Context, n int, wait time.Duration) ([]Message, error)
	// Retire removes a batch that has ended from the broker.
	Retire(ctx context.Context, id string) error
	// Announce tells whoever listens that a batch has ended, AnnounceItem the
	// result of a single request.
	Announce(s schemas.Summary) error
	AnnounceItem(r schemas.Result) error
}

// Observer is told what a collector does. Its methods must return at once.
type Observer interface {
	// Recorded: these results are in ledger and evidence, which took so long.
	Recorded(results []schemas.Result, took time.Duration)
	// Ended: a batch ended in this state.
	Ended(s schemas.State)
}

// Event is one restoration to be noted in the archive.
type Event struct {
	// ID is the same whenever the same restoration is noted.
	ID, Item, Actor string
	At              time.Time
	Batch           string
	Index           int64
}

// Archive takes notes of restorations; nil leaves them out.
type Archive func(ctx context.Context, events []Event) error

// idleWait is how long one request for results waits at the broker.
const idleWait = 5 * time.Second

// Collector is the only writer of ledger and evidence of batches.
type Collector struct {
	book    *Book
	queue   Queue
	archive Archive
	log     zerolog.Logger
	// Changed, if set before Run, is told of each batch that changed.
	Changed func(schemas.Summary)
	// Judge, if set before Run, looks at batches of which results were recorded.
	Judge func(context.Context, []schemas.Summary) error
	// Observer, if set before Run, is told what the collector does.
	Observer Observer
	// expected is how many results are still to come, by active batch.
	expected map[string]int64

	mu   sync.Mutex
	left map[string]bool // batches that have ended and could not be retired
}

// New makes a collector.
func New(b *Book, q Queue, a Archive, log zerolog.Logger) *Collector {
	return &Collector{
		book: b, queue: q, archive: a, log: log, Changed: func(schemas.Summary) {},
		Judge: func(context.Context, []schemas.Summary) error { return nil }, expected: map[string]int64{}, left: map[string]bool{},
	}
}

// Run records results until the context ends. An error means that ledger,
// evidence or archive cannot be written: nothing is lost then, the results stay
// in their stream. Evidence of what is done to batches counts, too.
func (c *Collector) Run(ctx context.Context) error {
	var others sync.WaitGroup
	defer others.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	others.Go(func() { c.retireLeft(ctx) })
	for ctx.Err() == nil {
		if err := c.book.Failed(); err != nil {
			return err
		}
		g, err := c.gather(ctx, idleWait)
		if err != nil && ctx.Err() == nil {
			c.log.Warn().Err(err).Msg("cannot take results; trying again")
			pause(ctx)
		}
		if len(g.msgs) > 0 {
			if err := c.collect(ctx, g); err != nil {
				return err
			}
		}
	}
	return nil
}

// Drain records the results that are there already, and is for after Run, when
// nobody makes any more. Its error is as Run's.
func (c *Collector) Drain(ctx context.Context) error {
	for {
		g, err := c.gather(ctx, 0)
		if len(g.msgs) == 0 {
			return err
		}
		if err := c.collect(ctx, g); err != nil {
			return err
		}
	}
}

// collect records results. The order is what makes it safe: ledger and
// evidence, then the archive, then the end of batches, then the
// acknowledgement; each step can be repeated. While the archive cannot be
// written it tries again until the context ends.
func (c *Collector) collect(ctx context.Context, g gathered) error {
	work, start := context.WithoutCancel(ctx), time.Now()
	var touched []schemas.Summary
	if g.size() > 0 {
		err := c.whileAway(ctx, func() (err error) {
			touched, err = c.book.Record(work, g.results, g.failures)
			return err
		})
		if err != nil {
			return err
		}
	}
	failpoint.Here("collector.committed")
	for _, s := range touched {
		c.expect(s)
		c.Changed(s)
	}
	if err := c.judge(ctx, touched); err != nil {
		return err
	}
	if c.Observer != nil {
		c.Observer.Recorded(g.results, time.Since(start))
	}
	if err := c.note(ctx, touched, g.results); err != nil {
		return err
	}
	failpoint.Here("collector.archived")
	c.answer(g.results)
	if err := c.whileAway(ctx, func() error { return c.finish(work, touched) }); err != nil {
		return err
	}
	failpoint.Here("collector.finished")
	for _, m := range g.msgs {
		if err := m.Ack(); err != nil {
			c.log.Warn().Err(err).Msg("cannot acknowledge results; they will come again")
		}
	}
	return nil
}

// whileAway repeats what the ledger does not answer to, until it is back or the
// context ends. The results in hand go to others meanwhile, and come again.
func (c *Collector) whileAway(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || ctx.Err() != nil || fault.CodeOf(err).Class() != schemas.ClassBackendDown {
			return err
		}
		c.log.Warn().Err(err).Msg("cannot record results; trying again")
		pause(ctx)
	}
}

// judge has batches judged. Where the broker cannot be told it tries again until
// the context ends.
func (c *Collector) judge(ctx context.Context, touched []schemas.Summary) error {
	for {
		err := c.Judge(context.WithoutCancel(ctx), touched)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("batches are not judged yet, the next start does that: %w", err)
		}
		c.log.Warn().Err(err).Msg("cannot judge batches; trying again")
		pause(ctx)
	}
}

// answer announces the results of single requests to those who made them.
func (c *Collector) answer(results []schemas.Result) {
	for _, r := range results {
		if r.Batch != schemas.Single {
			continue
		}
		if err := c.queue.AnnounceItem(r); err != nil {
			c.log.Warn().Err(err).Str("request", r.Labels[schemas.LabelRequestID]).Msg("cannot announce a result")
		}
	}
}

// note notes the restorations among the results in the archive.
func (c *Collector) note(ctx context.Context, touched []schemas.Summary, results []schemas.Result) error {
	if c.archive == nil {
		return nil
	}
	events := restorations(touched, results)
	for len(events) > 0 {
		err := c.archive(context.WithoutCancel(ctx), events)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("restorations are not noted in the archive yet, the next start does that: %w", err)
		}
		c.log.Warn().Err(err).Int("restorations", len(events)).Msg("cannot note restorations in the archive; trying again")
		pause(ctx)
	}
	return nil
}

// FinishIfDone ends a sealed batch whose results are complete. It can be
// repeated.
func (c *Collector) FinishIfDone(ctx context.Context, s schemas.Summary) error {
	return c.finish(ctx, []schemas.Summary{s})
}

// retireTogether is how many batches are removed from the broker at a time: it
// waits for its disk for each.
const retireTogether = 8

// finish is FinishIfDone for several batches, which are recorded together.
func (c *Collector) finish(ctx context.Context, batches []schemas.Summary) error {
	var ids []string
	for _, s := range batches {
		if !s.State.Final() && s.Complete() {
			ids = append(ids, s.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	ended, err := c.book.End(ctx, ids)
	if err != nil {
		return err
	}
	c.retire(ctx, ids)
	for _, s := range ended {
		if err := c.queue.Announce(s); err != nil {
			c.log.Warn().Err(err).Str("batch", s.ID).Msg("cannot announce the end of the batch")
		}
		c.Changed(s)
		if c.Observer != nil {
			c.Observer.Ended(s.State)
		}
	}
	return nil
}

// retire removes batches that have ended from the broker, and remembers those for
// which that fails.
func (c *Collector) retire(ctx context.Context, ids []string) {
	var retiring errgroup.Group
	retiring.SetLimit(retireTogether)
	for _, id := range ids {
		retiring.Go(func() error {
			err := c.queue.Retire(ctx, id)
			if err != nil && ctx.Err() == nil {
				c.log.Warn().Err(err).Str("batch", id).Msg("cannot remove the batch from the broker; trying again")
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if delete(c.left, id); err != nil {
				c.left[id] = true
			}
			return nil
		})
	}
	_ = retiring.Wait()
}

// retireLeft retires batches that could not be retired when they ended, until the
// context ends. What is left then the next start does.
func (c *Collector) retireLeft(ctx context.Context) {
	for pause(ctx); ctx.Err() == nil; pause(ctx) {
		c.mu.Lock()
		ids := slices.Collect(maps.Keys(c.left))
		c.mu.Unlock()
		c.retire(ctx, ids)
	}
}

// pause waits before something is tried again.
func pause(ctx context.Context) {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
