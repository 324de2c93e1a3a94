package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// Retry is what is known of an item's failed attempts; zero when there are none.
func (b *Broker) Retry(ctx context.Context, batch string, index int64) (schemas.Retry, error) {
	var r schemas.Retry
	kv, err := b.bucket(ctx, schemas.BucketRetries)
	if err != nil {
		return r, err
	}
	e, err := kv.Get(ctx, retryKey(batch, index))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("attempts of %s: %w", retryKey(batch, index), err)
	}
	if err := json.Unmarshal(e.Value(), &r); err != nil {
		return r, fmt.Errorf("attempts of %s: %w", retryKey(batch, index), err)
	}
	return r, nil
}

// SetRetry keeps an item's failed attempts.
func (b *Broker) SetRetry(ctx context.Context, batch string, index int64, r schemas.Retry) error {
	return b.put(ctx, schemas.BucketRetries, retryKey(batch, index), r)
}

func retryKey(batch string, index int64) string { return batch + "." + strconv.FormatInt(index, 10) }

// bucket gives a bucket that exists, from memory where it was seen before.
func (b *Broker) bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	b.mu.Lock()
	kv := b.buckets[name]
	b.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := b.js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buckets[name] = kv
	return kv, nil
}

func (b *Broker) put(ctx context.Context, bucket, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s %s: %w", bucket, key, err)
	}
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	if _, err := kv.Put(ctx, key, data); err != nil {
		return fmt.Errorf("%s %s: %w", bucket, key, err)
	}
	return nil
}
