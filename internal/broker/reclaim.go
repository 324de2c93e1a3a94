package broker

import (
	"context"
	"fmt"
	"maps"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// reclaim is what is remembered of a consumer that was reclaimed.
type reclaim struct {
	// to is the sequence up to which it had delivered messages.
	to uint64
	// times is how often in a row it was reclaimed while its first open message was
	// the same.
	times int
}

// reclaimedKey is the metadata of a consumer that says so for the next start: the
// sequence that all before is acknowledged of, a space, and times.
const reclaimedKey = "exhume-reclaimed"

// Reclaim makes every message that is in somebody's hand available again at
// once. It must only be called when nobody else can be alive: by the process
// that embeds the broker, when it starts. Without it the messages that a killed
// process held would wait for the end of their lease.
//
// A consumer goes back to the first message that is not acknowledged; some that
// were acknowledged out of order come again, which is harmless. The server
// counts deliveries anew then. What had been delivered is remembered here, and
// counts as delivered once for each start that found the same message open: a
// request that kills every process comes before all others, again and again.
//
// It does nothing where others can be alive: on a broker outside the process, or
// one that those can reach who could before it was started.
func (b *Broker) Reclaim(ctx context.Context) error {
	if !b.reclaims {
		return nil
	}
	for _, name := range []string{schemas.StreamRestore, schemas.StreamResults} {
		stream, err := b.js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			if err := b.reclaim(ctx, stream, info); err != nil {
				return fmt.Errorf("consumer %s of %s: %w", info.Name, name, err)
			}
		}
		if err := list.Err(); err != nil {
			return fmt.Errorf("consumers of %s: %w", name, err)
		}
	}
	return nil
}

func (b *Broker) reclaim(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo) error {
	r := reclaim{to: info.Delivered.Stream, times: 1}
	if info.NumAckPending > 0 {
		var floor uint64
		var before int
		_, err := fmt.Sscanf(info.Config.Metadata[reclaimedKey], "%d %d", &floor, &before)
		if err == nil && floor == info.AckFloor.Stream {
			r.times += before
		}
		// Written down first: who dies in between is counted all the same.
		cfg := info.Config
		cfg.Metadata = maps.Clone(cfg.Metadata)
		if cfg.Metadata == nil {
			cfg.Metadata = map[string]string{}
		}
		cfg.Metadata[reclaimedKey] = fmt.Sprintf("%d %d", info.AckFloor.Stream, r.times)
		if _, err := stream.UpdateConsumer(ctx, cfg); err != nil {
			return err
		}
		if _, err := stream.ResetConsumer(ctx, info.Name); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reclaimed[info.Stream+"/"+info.Name] = r
	return nil
}

// reclaimedOf is what is remembered of a consumer.
func (b *Broker) reclaimedOf(stream, consumer string) reclaim {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reclaimed[stream+"/"+consumer]
}
