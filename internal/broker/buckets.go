package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

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

func (b *Broker) remove(ctx context.Context, bucket, key string) error {
	kv, err := b.bucket(ctx, bucket)
	if err == nil {
		err = kv.Delete(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", bucket, key, err)
	}
	return nil
}

// get reads a value into v. The error of one that is not there notThere knows.
func (b *Broker) get(ctx context.Context, bucket, key string, v any) error {
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	e, err := kv.Get(ctx, key)
	if err == nil {
		err = json.Unmarshal(e.Value(), v)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", bucket, key, err)
	}
	return nil
}

// watchEvery is how often a watch makes sure that its bucket is still there.
const watchEvery = 5 * time.Second

// watch calls seen with each entry of a bucket whose key the pattern means, now
// and whenever one changes, until the context ends or seen is done. It calls seen
// with nil when all that was there at the beginning has been seen. An error means
// that it cannot know any more, also because the bucket was lost, or was made anew:
// what was in the old one does not count any more.
func (b *Broker) watch(ctx context.Context, bucket, pattern string, seen func(jetstream.KeyValueEntry) (done bool, err error)) error {
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	made, err := b.madeAt(ctx, bucketStreamName(bucket))
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
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := b.sameBucket(ctx, bucket, made); err != nil {
				return err
			}
		case e, ok := <-w.Updates():
			if ctx.Err() != nil {
				return nil
			}
			if !ok {
				return fmt.Errorf("watch %s: the bucket is gone, or the connection to the broker is closed", bucket)
			}
			if done, err := seen(e); done || err != nil {
				return err
			}
		}
	}
}

// sameBucket makes sure that a bucket was not lost since it was made. The client
// library does not notice: it goes on where it stopped, at a place that the new
// bucket may not reach for long. While the broker is away nothing is known.
func (b *Broker) sameBucket(ctx context.Context, bucket string, made time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	now, err := b.madeAt(ctx, bucketStreamName(bucket))
	if err != nil || now.Equal(made) {
		return nil // asked again soon
	}
	return fmt.Errorf("watch %s: the bucket was lost", bucket)
}
