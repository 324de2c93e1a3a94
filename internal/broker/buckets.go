package broker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

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

// watch calls seen with each entry of a bucket whose key the pattern means, now
// and whenever one changes, until the context ends or seen is done. It calls seen
// with nil when all that was there at the beginning has been seen. An error means
// that it cannot know any more.
func (b *Broker) watch(ctx context.Context, bucket, pattern string, seen func(jetstream.KeyValueEntry) (done bool, err error)) error {
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	w, err := kv.Watch(ctx, pattern)
	if err != nil {
		return fmt.Errorf("watch %s: %w", bucket, err)
	}
	defer func() {
		_ = w.Stop() // nothing is left to stop when it fails
		for range w.Updates() {
			// What is still coming in would hold up the goroutine that brings it.
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Updates():
			if ctx.Err() != nil {
				return nil
			}
			if !ok {
				return fmt.Errorf("watch %s: the connection to the broker is closed", bucket)
			}
			if done, err := seen(e); done || err != nil {
				return err
			}
		}
	}
}
