package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// Activate makes the consumer that a batch needs as it stands (see consumer) and
// shows the batch to the workers. It can be repeated, from whatever the batch was
// before. A batch that has ended is refused.
func (b *Broker) Activate(ctx context.Context, batch schemas.Batch) error {
	if batch.State.Final() {
		return fmt.Errorf("batch %s has ended (%s): workers cannot be shown it any more", batch.ID, batch.State)
	}
	if err := b.setupConsumer(ctx, batch); err != nil {
		return fmt.Errorf("consumer %s of %s: %w", batch.ID, schemas.StreamRestore, err)
	}
	return b.put(ctx, schemas.BucketBatches, batch.ID, batch)
}

// Activated lists the ids of the batches that workers are shown, and of those of
// which something else is here: a consumer, or requests.
func (b *Broker) Activated(ctx context.Context) (shown, others []string, err error) {
	kv, err := b.bucket(ctx, schemas.BucketBatches)
	if err != nil {
		return nil, nil, err
	}
	keys, err := kv.ListKeys(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("keys of %s: %w", schemas.BucketBatches, err)
	}
	active := map[string]bool{}
	for id := range keys.Keys() {
		active[id] = true
	}
	left, err := b.left(ctx)
	if err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(left, func(id string, _ bool) bool { return active[id] })
	return slices.Sorted(maps.Keys(active)), slices.Sorted(maps.Keys(left)), nil
}

// left are the ids of the batches that have a consumer or requests.
func (b *Broker) left(ctx context.Context) (map[string]bool, error) {
	stream, err := b.js.Stream(ctx, schemas.StreamRestore)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", schemas.StreamRestore, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(schemas.SubjectsRestore))
	if err != nil {
		return nil, fmt.Errorf("subjects of %s: %w", schemas.StreamRestore, err)
	}
	ids := map[string]bool{}
	for subject := range info.State.Subjects {
		ids[schemas.BatchOfSubject(subject)] = true
	}
	consumers := stream.ConsumerNames(ctx)
	for id := range consumers.Name() {
		ids[id] = true
	}
	if err := consumers.Err(); err != nil {
		return nil, fmt.Errorf("consumers of %s: %w", schemas.StreamRestore, err)
	}
	return ids, nil
}

// Retire hides a batch from the workers and removes its consumer, its retry
// records, its rates and its requests. It can be repeated. The requests go last: while they
// are there, Activated names the batch; and the server keeps no account of them
// for a consumer any more.
func (b *Broker) Retire(ctx context.Context, id string) error {
	if err := b.retire(ctx, id); err != nil {
		return fmt.Errorf("retire batch %s: %w", id, err)
	}
	return nil
}

func (b *Broker) retire(ctx context.Context, id string) error {
	kv, err := b.bucket(ctx, schemas.BucketBatches)
	if err != nil {
		return err
	}
	if err := kv.Purge(ctx, id, jetstream.PurgeTTL(retiredFor)); err != nil {
		return err
	}
	if err := b.js.DeleteConsumer(ctx, schemas.StreamRestore, id); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	for _, of := range []struct{ stream, subject string }{
		{bucketStreamName(schemas.BucketRetries), "$KV." + schemas.BucketRetries + "." + id + ".>"},
		{bucketStreamName(schemas.BucketFleet), "$KV." + schemas.BucketFleet + "." + rateKey(schemas.ScopeBatch(id)) + ".>"},
		{schemas.StreamRestore, schemas.RestoreSubjects(id)},
	} {
		s, err := b.js.Stream(ctx, of.stream)
		if err != nil {
			return err
		}
		if err := s.Purge(ctx, jetstream.WithPurgeSubject(of.subject)); err != nil {
			return err
		}
	}
	return nil
}

// WatchBatches calls show for each active batch, now and whenever one changes,
// and hide when one ends, until the context ends. An error means that it cannot
// know any more.
func (b *Broker) WatchBatches(ctx context.Context, show func(schemas.Batch), hide func(id string)) error {
	return b.watch(ctx, schemas.BucketBatches, ">", func(e jetstream.KeyValueEntry) (done bool, err error) {
		switch {
		case e == nil:
		case e.Operation() != jetstream.KeyValuePut:
			hide(e.Key())
		default:
			var batch schemas.Batch
			if err := json.Unmarshal(e.Value(), &batch); err != nil {
				return false, fmt.Errorf("batch %s in %s: %w", e.Key(), schemas.BucketBatches, err)
			}
			show(batch)
		}
		return false, nil
	})
}
