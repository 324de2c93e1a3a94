package broker

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

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
