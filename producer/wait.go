package producer

import (
	"context"
	"errors"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const (
	// firstWait and maxWait are how long is waited before a full queue is tried again.
	firstWait, maxWait = 100 * time.Millisecond, 2 * time.Second
	// tellEvery is how often Submission.Waiting is told while the queue stays full.
	tellEvery = 5 * time.Second
)

// patient is a queue that waits for room where there is none. Room comes when items
// are done, those of this batch too.
type patient struct {
	Queue
	// waiting, if set, is Submission.Waiting.
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
	var told time.Time
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		err := publish(requests)
		if !fault.Is(err, schemas.CodeBrokerFull) {
			if err == nil && !told.IsZero() {
				q.waiting(nil)
			}
			return err
		}
		if q.waiting != nil && time.Since(told) >= tellEvery {
			told = time.Now()
			full, _ := errors.AsType[*fault.Error](err)
			q.waiting(full) // which requests they are matters to nobody
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		stored, err := last(ctx, requests[0].Batch)
		if err != nil {
			return err
		}
		// What fails has stored a first part of them, but never all.
		for len(requests) > 1 && requests[0].Index <= stored {
			requests, wait = requests[1:], firstWait
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
