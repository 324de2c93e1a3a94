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

// Whereabouts tells what the broker knows of an active batch: how much is
// published, waits, is in hand and will be tried again. It fills no other field.
func (b *Broker) Whereabouts(ctx context.Context, batch string) (w schemas.Whereabouts, err error) {
	c, err := b.js.Consumer(ctx, schemas.StreamRestore, batch)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return w, fmt.Errorf("the broker does not have batch %s: restart the collector, which brings it back", batch)
	}
	if err != nil {
		return w, fmt.Errorf("consumer %s of %s: %w", batch, schemas.StreamRestore, err)
	}
	w.Waiting, w.InHand = int64(c.CachedInfo().NumPending), int64(c.CachedInfo().NumAckPending)
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
	return w, b.retrying(ctx, batch, &w)
}

// retrying adds the items whose next try is still to come. Records stay until
// the batch ends, so that those of items that were tried meanwhile are passed over.
func (b *Broker) retrying(ctx context.Context, batch string, w *schemas.Whereabouts) error {
	kv, err := b.bucket(ctx, schemas.BucketRetries)
	if err != nil {
		return err
	}
	all, err := kv.Watch(ctx, batch+".*", jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("watch %s: %w", schemas.BucketRetries, err)
	}
	defer all.Stop() //nolint:errcheck // nothing is left to stop when it fails
	now := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-all.Updates():
			if !ok {
				return fmt.Errorf("watch %s: the connection to the broker is closed", schemas.BucketRetries)
			}
			if e == nil { // that was all
				return nil
			}
			var r schemas.Retry
			if err := json.Unmarshal(e.Value(), &r); err != nil {
				return fmt.Errorf("attempts of %s: %w", e.Key(), err)
			}
			if r.NextTry.Before(now) {
				continue
			}
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
	}
}
