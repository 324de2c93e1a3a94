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
	// maxAckPending bounds the messages of one batch in the hands of all
	// workers, including those that wait for a retry.
	maxAckPending = 20_000
)

// Heartbeat is how often the holder of a message must give a sign of life.
const Heartbeat = ackWait / 3

// collectorConsumer is the durable consumer that all collectors share.
const (
	collectorConsumer = "collector"
	collectingName    = "consumer " + schemas.StreamResults + " " + collectorConsumer
)

// streams are the streams as they should be; a bucket is one, too. Messages are
// read from the leader only (no AllowDirect), because another server may not
// have what was stored a moment ago.
func (b *Broker) streams() []jetstream.StreamConfig {
	all := []jetstream.StreamConfig{{
		Name:     schemas.StreamRestore,
		Subjects: []string{schemas.SubjectsRestore},
		// Not a work queue: deleting a message on every ack costs a sync each.
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardNew,
		MaxBytes:           b.opts.QueueBytes,
		MaxMsgsPerSubject:  -1,
		Duplicates:         duplicateWindow,
		AllowAtomicPublish: true,
	}, {
		Name:              schemas.StreamResults,
		Subjects:          []string{schemas.SubjectsResults},
		MaxAge:            resultsMaxAge,
		MaxMsgsPerSubject: -1,
		MaxBytes:          -1,
		Duplicates:        duplicateWindow,
	},
		bucketStream(schemas.BucketBatches, jetstream.StreamConfig{AllowMsgTTL: true, SubjectDeleteMarkerTTL: retiredFor}),
		bucketStream(schemas.BucketRetries, jetstream.StreamConfig{MaxAge: retriesMaxAge}),
		bucketStream(schemas.BucketFleet, jetstream.StreamConfig{}),
	}
	for i := range all {
		all[i].MaxMsgs, all[i].MaxMsgSize, all[i].MaxConsumers = -1, -1, -1
		all[i].Storage, all[i].Replicas = jetstream.FileStorage, b.opts.Replicas
	}
	return all
}

// bucketStream makes of settings the stream that clients know as a bucket.
func bucketStream(name string, s jetstream.StreamConfig) jetstream.StreamConfig {
	s.Name, s.Subjects = bucketStreamName(name), []string{"$KV." + name + ".>"}
	s.Discard, s.MaxMsgsPerSubject, s.MaxBytes, s.Duplicates = jetstream.DiscardNew, 1, -1, duplicateWindow
	s.AllowRollup, s.DenyDelete = true, true
	return s
}

func bucketStreamName(bucket string) string { return "KV_" + bucket }

// collecting is the consumer of StreamResults as it should be.
func collecting() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: collectorConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
	}
}

// Setup makes the streams, the buckets and the collector's consumer where they
// are missing. Only the collector's control role calls it; it can be repeated.
//
// Of what is there already it corrects only what loses nothing and costs
// nothing: see Difference.Safe. It fails when something else differs that would
// lose or stop work (Difference.Harmful), and leaves alone what does not.
func (b *Broker) Setup(ctx context.Context) error {
	for _, want := range b.streams() {
		if err := b.setupStream(ctx, want); err != nil {
			return fmt.Errorf("%s: cannot set stream %s up: %w", b.opts, want.Name, err)
		}
	}
	if err := b.setupCollecting(ctx); err != nil {
		return fmt.Errorf("%s: cannot set %s up: %w", b.opts, collectingName, err)
	}
	return nil
}

func (b *Broker) setupStream(ctx context.Context, want jetstream.StreamConfig) error {
	s, err := b.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if want.Name == schemas.StreamRestore {
			// Sequence numbers are the indexes of single requests, and must not
			// come again when the stream was lost and is made anew.
			want.FirstSeq = uint64(time.Now().UnixMicro())
		}
		_, err = b.js.CreateStream(ctx, want)
		return b.cannotCreate(err)
	}
	if err != nil {
		return err
	}
	cfg := s.CachedInfo().Config
	changed, err := correct("stream "+want.Name, &cfg, &want, streamRules)
	if err == nil && changed {
		_, err = b.js.UpdateStream(ctx, cfg)
	}
	return err
}

func (b *Broker) setupCollecting(ctx context.Context) error {
	want := collecting()
	c, err := b.js.Consumer(ctx, schemas.StreamResults, want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		_, err = b.js.CreateConsumer(ctx, schemas.StreamResults, want)
		return err
	}
	if err != nil {
		return err
	}
	cfg := c.CachedInfo().Config
	changed, err := correct(collectingName, &cfg, &want, consumerRules)
	if err == nil && changed {
		_, err = b.js.UpdateConsumer(ctx, schemas.StreamResults, cfg)
	}
	return err
}

// cannotCreate adds to the server's refusal what can be done about it.
func (b *Broker) cannotCreate(err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return err
	}
	switch api.ErrorCode {
	case codeNoStorage, codeNoResources:
		return fmt.Errorf("%w: the queue reserves %d MiB: raise the server's max_file_store or the account's limit, or lower the bound of the queue",
			err, b.opts.QueueBytes>>20)
	case codeNoPeers, codeNoReplicas:
		return fmt.Errorf("%w: %d replicas need as many servers in one cluster", err, b.opts.Replicas)
	}
	return err
}

// Error codes of the server that the client library has no names for.
const (
	codeNoPeers     jetstream.ErrorCode = 10005
	codeNoResources jetstream.ErrorCode = 10023
	codeNoStorage   jetstream.ErrorCode = 10047
	codeNoReplicas  jetstream.ErrorCode = 10074
)

// Reclaim makes every message that is in somebody's hand available again at
// once. It must only be called when nobody else can be alive: by the process
// that embeds the broker, when it starts. Without it the messages that a killed
// process held would wait for the end of their lease.
//
// A consumer goes back to the first message that is not acknowledged; some that
// were acknowledged out of order come again, which is harmless. The server
// counts deliveries anew then, so that what had been delivered is remembered
// here.
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
