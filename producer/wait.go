package producer

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const (
	// firstWait and maxWait are how long is waited before something is tried again.
	firstWait, maxWait = 100 * time.Millisecond, 2 * time.Second
	// tellEvery is how often Submission.Waiting is told of what lasts.
	tellEvery = 5 * time.Second
	// awayFor is how long a collector may be away, or its ledger, while a batch is
	// submitted: about as long as publication waits for the broker.
	awayFor = time.Minute
)

// patience waits for what passes, longer each time, and tells of it.
type patience struct {
	// waiting, if set, is Submission.Waiting.
	waiting func(reason error)
	waited  time.Duration
	told    time.Time
}

// wait waits before something is tried again that failed for this reason. An error
// says that the context has ended.
func (p *patience) wait(ctx context.Context, reason error) error {
	if p.waiting != nil && time.Since(p.told) >= tellEvery {
		p.told = time.Now()
		short, _ := errors.AsType[*fault.Error](reason)
		p.waiting(short) // which requests they are matters to nobody
	}
	p.waited = min(max(2*p.waited, firstWait), maxWait)
	return pause(ctx, p.waited)
}

// end is for when nothing is waited for any more, and gives the error on.
func (p *patience) end(err error) error {
	if err == nil && !p.told.IsZero() {
		p.waiting(nil)
	}
	return err
}

// patient is a queue that waits for room where there is none. Room comes when items
// are done, those of this batch too.
type patient struct {
	Queue
	waiting func(reason error)
}

func (q patient) Publish(ctx context.Context, requests []schemas.Request, perMessage int) error {
	return q.insist(ctx, requests, q.LastIndex, func(requests []schemas.Request) error {
		return q.Queue.Publish(ctx, requests, perMessage)
	})
}

func (q patient) PublishCanary(ctx context.Context, requests []schemas.Request) error {
	return q.insist(ctx, requests, q.LastCanary, func(requests []schemas.Request) error {
		return q.Queue.PublishCanary(ctx, requests)
	})
}

// insist publishes requests until there was room for all of them. Last tells which
// was stored last.
func (q patient) insist(ctx context.Context, requests []schemas.Request,
	last func(ctx context.Context, batch string) (int64, error), publish func([]schemas.Request) error,
) error {
	p := patience{waiting: q.waiting}
	for {
		err := publish(requests)
		if !fault.Is(err, schemas.CodeBrokerFull) {
			return p.end(err)
		}
		if err := p.wait(ctx, err); err != nil {
			return err
		}
		stored, err := last(ctx, requests[0].Batch)
		if err != nil {
			continue // all of them again, which is harmless, and tells what is wrong
		}
		// What fails has stored a first part of them, but never all.
		for len(requests) > 1 && requests[0].Index <= stored {
			requests, p.waited = requests[1:], 0
		}
	}
}

// steady is a control API that waits for a collector that is away, or whose ledger
// is. What it does can be repeated.
type steady struct {
	Control
	waiting func(reason error)
}

func (c steady) Open(ctx context.Context, b schemas.Batch) (s schemas.Summary, err error) {
	err = c.insist(ctx, func() error {
		s, err = c.Control.Open(ctx, b)
		return err
	})
	return s, err
}

// Kept does not wait where nobody answers, who may be an older program.
func (c steady) Kept(ctx context.Context, id string) (next int64, err error) {
	var nobody error
	err = c.insist(ctx, func() error {
		next, err = c.Control.Kept(ctx, id)
		if nobody = nil; fault.Is(err, schemas.CodeNoCollector) {
			nobody = err
			return nil
		}
		return err
	})
	return next, cmp.Or(nobody, err)
}

func (c steady) Keep(ctx context.Context, k schemas.Kept) error {
	return c.insist(ctx, func() error { return c.Control.Keep(ctx, k) })
}

func (c steady) Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (s schemas.Summary, err error) {
	err = c.insist(ctx, func() error {
		s, err = c.Control.Seal(ctx, id, total, manifestSHA256)
		return err
	})
	return s, err
}

func (c steady) insist(ctx context.Context, do func() error) error {
	p := patience{waiting: c.waiting}
	for end := time.Now().Add(awayFor); ; {
		err := do()
		if fault.CodeOf(err).Class() != schemas.ClassBackendDown || time.Now().After(end) {
			return p.end(err)
		}
		if err := p.wait(ctx, err); err != nil {
			return err
		}
	}
}

// pause waits so long; an error says that the context has ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
