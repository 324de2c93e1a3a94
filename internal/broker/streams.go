package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

const (
	// restoreMaxBytes bounds the queue on disk, about 50 million requests. A
	// full queue refuses new requests instead of dropping old ones.
	restoreMaxBytes = 16 << 30
	// resultsMaxAge is how long results are kept, so that ledger and evidence
	// could be rebuilt from them.
	resultsMaxAge = 30 * 24 * time.Hour
	// duplicateWindow is how long the server knows the ids of what it stored.
	duplicateWindow = 2 * time.Minute
	// retriesMaxAge is when a record of failed attempts is forgotten that a
	// worker left behind after its batch had ended.
	retriesMaxAge = 30 * 24 * time.Hour
	// retiredFor is how long a batch that has ended stays visible as such, for
	// workers that were away meanwhile.
	retiredFor = time.Hour
	// ackWait is how long a message may stay unacknowledged without a sign of
	// life before it is delivered again.
	ackWait = 30 * time.Second
	// maxAckPending bounds the requests of one batch in the hands of all
	// workers, including those that wait for a retry.
	maxAckPending = 20_000
)

// Heartbeat is how often the holder of a message must give a sign of life.
const Heartbeat = ackWait / 3

// collectorConsumer is the durable consumer that all collectors share.
const collectorConsumer = "collector"

// Setup creates the streams and buckets where they are missing. Only the
// collector's control role calls it.
func (b *Broker) Setup(ctx context.Context) error {
	streams := []jetstream.StreamConfig{{
		Name:     schemas.StreamRestore,
		Subjects: []string{schemas.SubjectsRestore},
		// Not a work queue: deleting a message on every ack costs a sync each.
		Retention:          jetstream.LimitsPolicy,
		Storage:            jetstream.FileStorage,
		Discard:            jetstream.DiscardNew,
		MaxBytes:           restoreMaxBytes,
		Duplicates:         duplicateWindow,
		AllowAtomicPublish: true,
		AllowDirect:        true,
	}, {
		Name:      schemas.StreamResults,
		Subjects:  []string{schemas.SubjectsResults},
		Retention: jetstream.LimitsPolicy,
		Storage:   jetstream.FileStorage,
		MaxAge:    resultsMaxAge,
	}}
	for _, s := range streams {
		if _, err := b.js.CreateOrUpdateStream(ctx, s); err != nil {
			return fmt.Errorf("stream %s: %w", s.Name, err)
		}
	}
	for _, kv := range []jetstream.KeyValueConfig{
		{Bucket: schemas.BucketBatches, History: 1, LimitMarkerTTL: retiredFor},
		{Bucket: schemas.BucketRetries, History: 1, TTL: retriesMaxAge},
	} {
		if _, err := b.js.CreateOrUpdateKeyValue(ctx, kv); err != nil {
			return fmt.Errorf("bucket %s: %w", kv.Bucket, err)
		}
	}
	return b.ensureConsumer(ctx, schemas.StreamResults, jetstream.ConsumerConfig{
		Durable: collectorConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
	})
}

func (b *Broker) ensureConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) error {
	_, err := b.js.Consumer(ctx, stream, cfg.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		_, err = b.js.CreateConsumer(ctx, stream, cfg)
	}
	if err != nil {
		return fmt.Errorf("consumer %s of %s: %w", cfg.Durable, stream, err)
	}
	return nil
}

// Reclaim makes every message that is in somebody's hand available again at
// once. It must only be called when nobody else can be alive: by the process
// that embeds the broker, when it starts. Without it the messages that a killed
// process held would wait for the end of their lease.
//
// A consumer goes back to the first message that is not acknowledged; some that
// were acknowledged out of order come again, which is harmless. The server
// counts deliveries anew then, so that what had been delivered is remembered
// here.
func (b *Broker) Reclaim(ctx context.Context) error {
	for _, name := range []string{schemas.StreamRestore, schemas.StreamResults} {
		stream, err := b.js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			b.mu.Lock()
			b.reclaimed[name+"/"+info.Name] = info.Delivered.Stream
			b.mu.Unlock()
			if info.NumAckPending == 0 {
				continue
			}
			if _, err := stream.ResetConsumer(ctx, info.Name); err != nil {
				return fmt.Errorf("consumer %s of %s: %w", info.Name, name, err)
			}
		}
		if err := list.Err(); err != nil {
			return fmt.Errorf("consumers of %s: %w", name, err)
		}
	}
	return nil
}

// reclaimedTo is the sequence up to which a consumer had delivered messages when
// it was reclaimed.
func (b *Broker) reclaimedTo(stream, consumer string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reclaimed[stream+"/"+consumer]
}
