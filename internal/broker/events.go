package broker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Announce publishes the end of a batch to whoever listens. Nobody needs to.
func (b *Broker) Announce(s schemas.Summary) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("event of batch %s: %w", s.ID, err)
	}
	return b.nc.Publish(schemas.BatchEventSubject(s.ID), data)
}

// Progress publishes how far a batch is to whoever listens. While the broker is
// away it is left out, because the next one says more.
func (b *Broker) Progress(s schemas.Summary) error {
	if !b.nc.IsConnected() {
		return nil
	}
	return b.Announce(s)
}

// WatchEvents calls changed for every summary of a batch that is announced, its
// end included, one at a time, until it is stopped.
//
// Events are not kept anywhere: those of before the call, and those that come
// while the connection is lost, are missed. Whoever must not miss the end asks
// API.Get once after this call and then now and again. The error of a user who
// may not listen carries CodeBrokerDenied.
func (b *Broker) WatchEvents(batch string, changed func(schemas.Summary)) (stop func(), err error) {
	sub, err := b.subscribe(schemas.BatchEventSubject(batch), func(m *nats.Msg) {
		var s schemas.Summary
		if err := json.Unmarshal(m.Data, &s); err != nil {
			b.opts.Log.Warn().Err(err).Str("batch", batch).Msg("an event cannot be understood; passed over")
			return
		}
		changed(s)
	})
	if err != nil {
		return nil, fmt.Errorf("events of batch %s: %w", batch, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

// Ping asks the server for a sign of life. The error of a broker that is away
// carries CodeBrokerDown.
func (b *Broker) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	if !b.nc.IsConnected() {
		return fault.New(schemas.CodeBrokerDown, "%s: the connection is lost", b.opts)
	}
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return fault.New(schemas.CodeBrokerDown, "%s: the broker does not answer: %w", b.opts, err)
	}
	return nil
}
