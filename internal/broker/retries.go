package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/schemas"
)

// Retry is what is known of an item's failed attempts; zero when there are none.
func (b *Broker) Retry(ctx context.Context, batch string, index int64) (r schemas.Retry, err error) {
	err = b.get(ctx, schemas.BucketRetries, retryKey(batch, index), &r)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return r, fmt.Errorf("failed attempts: %w", err)
	}
	return r, nil
}

// SetRetry keeps an item's failed attempts. A record that tells of nothing is removed:
// the batch may have ended meanwhile, and nobody would do it then.
func (b *Broker) SetRetry(ctx context.Context, batch string, index int64, r schemas.Retry) error {
	if r.Attempts+r.Deaths+len(r.Causes)+len(r.History) == 0 && r.LastError == "" && r.NextTry.IsZero() {
		return b.remove(ctx, schemas.BucketRetries, retryKey(batch, index))
	}
	return b.put(ctx, schemas.BucketRetries, retryKey(batch, index), r)
}

func retryKey(batch string, index int64) string { return batch + "." + strconv.FormatInt(index, 10) }

// retriesAtOnce is how many records RetriesOf asks for at the same time.
const retriesAtOnce = 32

// RetriesOf is what is known of the failed attempts of several items. Items that
// have not failed are left out.
func (b *Broker) RetriesOf(ctx context.Context, batch string, indexes []int64) (map[int64]schemas.Retry, error) {
	found := make([]schemas.Retry, len(indexes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(retriesAtOnce)
	for i, index := range indexes {
		g.Go(func() (err error) {
			found[i], err = b.Retry(ctx, batch, index)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := map[int64]schemas.Retry{}
	for i, r := range found {
		if r.Attempts > 0 {
			all[indexes[i]] = r
		}
	}
	return all, nil
}
