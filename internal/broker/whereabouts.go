package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

const (
	// retriesRead is how many records of retries are read at most to count those
	// that wait, and retriesFor how long.
	retriesRead = 100_000
	retriesFor  = time.Second
)

// Whereabouts tells what the broker knows of an active batch: how much is
// published, waits, is in hand and will be tried again. It fills no other field.
// While the producer is still publishing, items of a sample may be published
// beyond those that are counted.
func (b *Broker) Whereabouts(ctx context.Context, batch string) (w schemas.Whereabouts, err error) {
	c, err := b.consumerOf(ctx, batch)
	if err != nil {
		return w, err
	}
	w.Waiting, w.InHand = int64(c.NumPending), int64(c.NumAckPending)
	if len(c.Config.FilterSubjects) > 0 { // it does not bring what comes after the sample
		rest, err := b.count(ctx, schemas.RestoreSubject(batch))
		if err != nil {
			return w, err
		}
		w.Waiting += rest
	}
	if batch != schemas.Single { // which has no producer that would stop
		last, err := b.LastIndex(ctx, batch)
		if err != nil {
			return w, err
		}
		w.Published = last + 1
	}
	if w.Unrecorded, err = b.Unrecorded(ctx); err != nil {
		return w, err
	}
	return w, b.retrying(ctx, batch, &w, retriesRead)
}

// consumerOf tells of a batch's consumer.
func (b *Broker) consumerOf(ctx context.Context, batch string) (*jetstream.ConsumerInfo, error) {
	c, err := b.js.Consumer(ctx, schemas.StreamRestore, batch)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("the broker does not have batch %s just now: a collector brings it back within seconds", batch)
	}
	if err != nil {
		return nil, fmt.Errorf("consumer %s of %s: %w", batch, schemas.StreamRestore, err)
	}
	return c.CachedInfo(), nil
}

// retrying adds the items whose next try is still to come. Records stay until
// the batch ends, so that those of items that were tried meanwhile are passed over.
// Where there are more than are read, the others are taken to be like those in
// number; their causes and times are left out.
func (b *Broker) retrying(ctx context.Context, batch string, w *schemas.Whereabouts, most int64) error {
	bounded, cancel := context.WithTimeout(ctx, retriesFor)
	defer cancel()
	now := time.Now()
	var read, left int64
	err := b.watch(bounded, schemas.BucketRetries, batch+".*", func(e jetstream.KeyValueEntry) (done bool, err error) {
		if e == nil { // that was all
			return true, nil
		}
		read, left = read+1, int64(e.Delta())
		if e.Operation() != jetstream.KeyValuePut {
			return read == most, nil
		}
		var r schemas.Retry
		if err := json.Unmarshal(e.Value(), &r); err != nil {
			return false, fmt.Errorf("attempts of %s: %w", e.Key(), err)
		}
		if r.NextTry.After(now) {
			addWaiting(w, r)
		}
		return read == most, nil
	})
	if bounded.Err() != nil && ctx.Err() == nil {
		err = nil
	}
	if left > 0 {
		w.Retrying += w.Retrying * left / read
	}
	return errors.Join(err, ctx.Err())
}

// addWaiting adds an item that waits for its next try.
func addWaiting(w *schemas.Whereabouts, r schemas.Retry) {
	w.Retrying++
	if w.NextTry.IsZero() || r.NextTry.Before(w.NextTry) {
		w.NextTry = r.NextTry
	}
	if n := len(r.Causes); n > 0 {
		if w.Causes == nil {
			w.Causes = map[schemas.Code]int64{}
		}
		w.Causes[r.Causes[n-1]]++
	}
}
