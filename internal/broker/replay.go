package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

const (
	// replayMessages and replayBytes bound what of a replay is in memory.
	replayMessages, replayBytes = 500, 8 << 20
	// replayWait is how long a replay waits for a broker that does not go on.
	replayWait = callTimeout
)

// Replayed is one message of a replay.
type Replayed struct {
	// At is when the broker stored it.
	At   time.Time
	Data []byte
}

// ReplayResults gives the messages of results that are there, oldest first, up to
// the one that is the last now; those that come in meanwhile are left out. Whether
// they were taken before does not matter, and does not change. Where there is no
// stream there are none. An error ends the sequence.
func (b *Broker) ReplayResults(ctx context.Context) iter.Seq2[Replayed, error] {
	return func(yield func(Replayed, error) bool) {
		if err := b.replay(ctx, func(m Replayed) bool { return yield(m, nil) }); err != nil {
			yield(Replayed{}, fmt.Errorf("replay of %s: %w", schemas.StreamResults, err))
		}
	}
}

// replay calls seen with each message until it returns false.
func (b *Broker) replay(ctx context.Context, seen func(Replayed) bool) error {
	stream, err := b.js.Stream(ctx, schemas.StreamResults)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return err
	}
	if info.State.Msgs == 0 {
		return nil
	}
	c, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return err
	}
	msgs, err := c.Messages(jetstream.PullMaxMessagesWithBytesLimit(replayMessages, replayBytes))
	if err != nil {
		return err
	}
	defer msgs.Stop()
	for {
		m, err := nextOf(ctx, msgs)
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream > info.State.LastSeq {
			return nil // it came in meanwhile
		}
		if !seen(Replayed{At: meta.Timestamp, Data: m.Data()}) {
			return nil
		}
		if meta.NumPending == 0 {
			return nil
		}
	}
}

func nextOf(ctx context.Context, msgs jetstream.MessagesContext) (jetstream.Msg, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err() // what is here already would come nevertheless
	}
	bounded, cancel := context.WithTimeout(ctx, replayWait)
	defer cancel()
	m, err := msgs.Next(jetstream.NextContext(bounded))
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		err = fmt.Errorf("nothing came for %s", replayWait)
	}
	return m, err
}

// Shown gives the batches that workers are shown; known is false where the broker
// knows of no batches, not even that there are none.
func (b *Broker) Shown(ctx context.Context) (batches []schemas.Batch, known bool, err error) {
	err = b.watch(ctx, schemas.BucketBatches, ">", func(e jetstream.KeyValueEntry) (done bool, err error) {
		if e == nil {
			return true, nil
		}
		if e.Operation() != jetstream.KeyValuePut {
			return false, nil
		}
		var batch schemas.Batch
		if err := json.Unmarshal(e.Value(), &batch); err != nil {
			return true, fmt.Errorf("batch %s in %s: %w", e.Key(), schemas.BucketBatches, err)
		}
		batches = append(batches, batch)
		return false, nil
	})
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, false, nil
	}
	return batches, err == nil && ctx.Err() == nil, errors.Join(err, ctx.Err())
}

// Steering is what workers are shown of what holds for the fleet, nothing where
// there was never anything.
func (b *Broker) Steering(ctx context.Context) (s schemas.Steering, err error) {
	if err = b.get(ctx, schemas.BucketFleet, schemas.KeySteering, &s); notThere(err) {
		err = nil
	}
	return s, err
}
