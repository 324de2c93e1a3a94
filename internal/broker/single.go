package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Single tells of a message that was published alone the request's id (see
// schemas.HeaderRequestID) and the item's index, its sequence number.
func (d *Delivery) Single() (requestID string, index int64) {
	if meta, err := d.msg.Metadata(); err == nil {
		index = int64(meta.Sequence.Stream)
	}
	requestID = cmp.Or(d.msg.Header.Get(schemas.HeaderRequestID), d.msg.Header.Get(jetstream.MsgIDHeader), fmt.Sprintf("seq-%d", index))
	return requestID, index
}

// AnnounceItem publishes the result of a single request to whoever listens.
// Nobody needs to.
func (b *Broker) AnnounceItem(r schemas.Result) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("event of request %s: %w", r.Labels[schemas.LabelRequestID], err)
	}
	return b.nc.Publish(schemas.ItemEventSubject(r.Labels[schemas.LabelRequestID]), data)
}

// PublishSingle stores a request that is made alone. The same id within the
// stream's duplicate window is the same request, so that a call that fails can be
// repeated. The error of a queue that is full carries CodeBrokerFull, that of a
// broker that does not answer CodeBrokerDown: the request may be stored then.
func (b *Broker) PublishSingle(ctx context.Context, requestID string, r schemas.SingleRequest) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("request %s: %w", requestID, err)
	}
	_, err = b.js.PublishMsg(ctx, &nats.Msg{
		Subject: schemas.RestoreSubject(schemas.Single), Data: data,
		Header: nats.Header{schemas.HeaderRequestID: {requestID}, jetstream.MsgIDHeader: {requestID}},
	})
	if err == nil {
		return nil
	}
	if err = b.whyFull(ctx, schemas.StreamRestore, err); unknownEnd(err) && ctx.Err() == nil {
		err = fault.New(schemas.CodeBrokerDown, "%s: no answer, it may be stored: %w", b.opts, err)
	}
	return fmt.Errorf("publish request %s: %w; ask again with the same id", requestID, err)
}

// WatchItem calls found with the result of a single request whenever it is
// announced, until stop is called. When it returns the server knows of it, if it
// is there. The error of a user who may not listen carries CodeBrokerDenied.
func (b *Broker) WatchItem(requestID string, found func(schemas.Result)) (stop func(), err error) {
	sub, err := b.subscribe(schemas.ItemEventSubject(requestID), func(m *nats.Msg) {
		var r schemas.Result
		if json.Unmarshal(m.Data, &r) == nil {
			found(r)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("watch request %s: %w", requestID, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
