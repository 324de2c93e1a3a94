package broker

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// guarded is JetStream with calls that end when the server denies them; see
// permitted. Those that only the collector's control role makes once, at its
// start, or that list things, are left as they are: they end by their timeout.
type guarded struct {
	jetstream.JetStream
	b *Broker
}

// ofAPI are rights to publish to subjects of JetStream's API. A server that maps
// another prefix to the usual one denies the usual one.
func (b *Broker) ofAPI(subjects ...string) (needs []right) {
	for _, s := range subjects {
		needs = append(needs, toPublish(b.api+s))
		if b.api != jetstream.DefaultAPIPrefix {
			needs = append(needs, toPublish(jetstream.DefaultAPIPrefix+s))
		}
	}
	return needs
}

// ask makes a call that asks JetStream's API on one of the subjects.
func ask[T any](ctx context.Context, b *Broker, call func(context.Context) (T, error), subjects ...string) (answer T, err error) {
	err = b.permitted(ctx, func(ctx context.Context) (err error) {
		answer, err = call(ctx)
		return err
	}, append(b.toAsk(), b.ofAPI(subjects...)...)...)
	return answer, err
}

func (g guarded) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := ask(ctx, g.b, func(ctx context.Context) (jetstream.Stream, error) { return g.JetStream.Stream(ctx, name) }, "STREAM.INFO."+name)
	if err != nil {
		return nil, err
	}
	return guardedStream{s, g.b, name}, nil
}

func (g guarded) CreateStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	return ask(ctx, g.b, func(ctx context.Context) (jetstream.Stream, error) { return g.JetStream.CreateStream(ctx, cfg) }, "STREAM.CREATE."+cfg.Name)
}

func (g guarded) Consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	return ask(ctx, g.b, func(ctx context.Context) (jetstream.Consumer, error) { return g.JetStream.Consumer(ctx, stream, name) },
		"CONSUMER.INFO."+stream+"."+name)
}

func (g guarded) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	subject := "CONSUMER.CREATE." + stream + "." + cfg.Durable
	return ask(ctx, g.b, func(ctx context.Context) (jetstream.Consumer, error) {
		return g.JetStream.CreateConsumer(ctx, stream, cfg)
	},
		subject, subject+".>") // the filter may follow
}

func (g guarded) PublishMsg(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (ack *jetstream.PubAck, err error) {
	err = g.b.permitted(ctx, func(ctx context.Context) (err error) {
		ack, err = g.JetStream.PublishMsg(ctx, m, opts...)
		return err
	}, g.b.toAsk(m.Subject)...)
	return ack, err
}

func (g guarded) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	kv, err := ask(ctx, g.b, func(ctx context.Context) (jetstream.KeyValue, error) { return g.JetStream.KeyValue(ctx, bucket) },
		"STREAM.INFO."+bucketStreamName(bucket))
	if err != nil {
		return nil, err
	}
	return guardedBucket{kv, g.b}, nil
}

// guardedStream is a stream; see guarded.
type guardedStream struct {
	jetstream.Stream
	b    *Broker
	name string
}

func (s guardedStream) GetLastMsgForSubject(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	return ask(ctx, s.b, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return s.Stream.GetLastMsgForSubject(ctx, subject)
	},
		"STREAM.MSG.GET."+s.name)
}

// guardedBucket is a bucket; see guarded.
type guardedBucket struct {
	jetstream.KeyValue
	b *Broker
}

func (k guardedBucket) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	return ask(ctx, k.b, func(ctx context.Context) (jetstream.KeyValueEntry, error) { return k.KeyValue.Get(ctx, key) },
		"STREAM.MSG.GET."+bucketStreamName(k.Bucket()))
}

func (k guardedBucket) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return k.write(ctx, key, func(ctx context.Context) (uint64, error) { return k.KeyValue.Put(ctx, key, value) })
}

func (k guardedBucket) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return k.write(ctx, key, func(ctx context.Context) (uint64, error) { return k.KeyValue.Create(ctx, key, value, opts...) })
}

func (k guardedBucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return k.write(ctx, key, func(ctx context.Context) (uint64, error) { return k.KeyValue.Update(ctx, key, value, revision) })
}

func (k guardedBucket) Delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	_, err := k.write(ctx, key, func(ctx context.Context) (uint64, error) { return 0, k.KeyValue.Delete(ctx, key, opts...) })
	return err
}

// write makes a call that stores or removes a value.
func (k guardedBucket) write(ctx context.Context, key string, call func(context.Context) (uint64, error)) (revision uint64, err error) {
	subject := "$KV." + k.Bucket() + "." + key
	err = k.b.permitted(ctx, func(ctx context.Context) (err error) {
		revision, err = call(ctx)
		return err
	}, append(k.b.toAsk(subject), toPublish(k.b.api+subject))...) // the latter in another domain
	return revision, err
}

// Watch begins a watch, which ends with the context.
func (k guardedBucket) Watch(ctx context.Context, keys string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	needs := k.b.ofAPI("CONSUMER.CREATE." + bucketStreamName(k.Bucket()) + ".>")
	ctx, w := k.b.denials.wait(ctx, append(needs, k.b.toAsk()...)...)
	watcher, err := k.KeyValue.Watch(ctx, keys, opts...)
	if err == nil {
		w.leave()
		return watcher, nil
	}
	defer w.end()
	if denied := denial(ctx); denied != nil {
		return nil, denied
	}
	return nil, err
}
