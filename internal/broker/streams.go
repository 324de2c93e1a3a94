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
		// No age and no discarding: the server does not know which results are
		// recorded. TrimResults does.
		Name:              schemas.StreamResults,
		Subjects:          []string{schemas.SubjectsResults},
		Discard:           jetstream.DiscardNew,
		MaxBytes:          b.opts.ResultsBytes,
		MaxMsgsPerSubject: -1,
		Duplicates:        duplicateWindow,
	},
		bucketStream(schemas.BucketBatches, jetstream.StreamConfig{
			Discard: jetstream.DiscardNew, MaxBytes: -1, AllowMsgTTL: true, SubjectDeleteMarkerTTL: retiredFor,
		}),
		// A full one must not refuse: workers hold their items until a failed attempt
		// is counted, and nothing would ever make room.
		bucketStream(schemas.BucketRetries, jetstream.StreamConfig{
			Discard: jetstream.DiscardOld, MaxBytes: b.opts.RetriesBytes, MaxAge: retriesMaxAge,
		}),
		bucketStream(schemas.BucketFleet, jetstream.StreamConfig{Discard: jetstream.DiscardNew, MaxBytes: -1}),
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
	s.MaxMsgsPerSubject, s.Duplicates = 1, duplicateWindow
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
	s, err := b.makeStream(ctx, want)
	if err != nil {
		return err
	}
	cfg := s.CachedInfo().Config
	bound := cfg.MaxBytes
	changed, err := correct("stream "+want.Name, &cfg, &want, streamRules)
	if err != nil || !changed {
		return err
	}
	_, err = b.js.UpdateStream(ctx, cfg)
	if isFull(err) && cfg.MaxBytes != bound {
		// The server cannot reserve so much. What worked until now goes on to work.
		b.opts.Log.Warn().Err(b.cannotCreate(want, err)).Str("stream", want.Name).Int64("bound", bound).Msg("the bound of a stream stays as it is")
		cfg.MaxBytes = bound
		_, err = b.js.UpdateStream(ctx, cfg)
	}
	return err
}

// makeStream gives a stream, and makes it when it is missing.
func (b *Broker) makeStream(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	if want.Name == schemas.StreamRestore || want.Name == schemas.StreamResults {
		// Sequence numbers must not come again when the stream was lost and is made
		// anew: they are the indexes of single requests, and tell which results are
		// recorded and may go.
		want.FirstSeq = uint64(time.Now().UnixMicro())
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		s, err := b.tryStream(ctx, want)
		// Another collector was faster, whose stream begins elsewhere. A cluster may
		// answer none of the two.
		again := errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.Is(err, context.DeadlineExceeded)
		if !again || ctx.Err() != nil {
			return s, b.cannotCreate(want, err)
		}
		pause(ctx, firstDelay)
	}
}

func (b *Broker) tryStream(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	s, err := b.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = b.js.CreateStream(ctx, want)
	}
	return s, err
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
func (b *Broker) cannotCreate(want jetstream.StreamConfig, err error) error {
	var api *jetstream.APIError
	switch {
	case isFull(err):
		return fmt.Errorf("%w: it reserves %s: raise the server's max_file_store or the account's limit, or lower %s",
			err, sizeText(want.MaxBytes), boundOf[want.Name])
	case errors.As(err, &api) && (api.ErrorCode == codeNoPeers || api.ErrorCode == codeNoReplicas):
		return fmt.Errorf("%w: %d replicas need as many servers in one cluster", err, b.opts.Replicas)
	}
	return err
}

// Error codes of the server that the client library has no names for.
const (
	codeNoPeers    jetstream.ErrorCode = 10005
	codeNoReplicas jetstream.ErrorCode = 10074
)
