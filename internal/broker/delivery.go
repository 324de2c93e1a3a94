package broker

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// indexHeader carries a request's index, so that a request whose payload cannot
// be read is still known.
const indexHeader = "Exhume-Index"

// Delivery is one message in hand. Whoever fetched it gives a sign of life at
// least every Heartbeat until it is settled.
type Delivery struct {
	msg *nats.Msg
	// published is when the message was stored; again says that it was
	// delivered before.
	published time.Time
	again     bool
}

// delivery makes a delivery; messages up to the stream's sequence reclaimed may
// have been delivered before the consumer was reset.
func delivery(msg *nats.Msg, reclaimed uint64) *Delivery {
	d := &Delivery{msg: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.published, d.again = meta.Timestamp, meta.NumDelivered > 1 || meta.Sequence.Stream <= reclaimed
	}
	return d
}

// Data is the message's payload.
func (d *Delivery) Data() []byte { return d.msg.Data }

// Index is the index that the publisher put beside the payload of a request.
func (d *Delivery) Index() (int64, bool) {
	if d.msg.Header == nil {
		return 0, false
	}
	index, err := strconv.ParseInt(d.msg.Header.Get(indexHeader), 10, 64)
	return index, err == nil
}

// PublishedAt is when the message was stored.
func (d *Delivery) PublishedAt() time.Time { return d.published }

// Redelivered says whether the message may have been delivered before.
func (d *Delivery) Redelivered() bool { return d.again }

// Ack settles the message. It does not wait for the server: a lost ack only
// repeats harmless work.
func (d *Delivery) Ack() error { return d.msg.Ack() }

// Nak gives the message back, to be delivered again after the delay.
func (d *Delivery) Nak(delay time.Duration) error { return d.msg.NakWithDelay(delay) }

// Alive is the sign of life.
func (d *Delivery) Alive() error { return d.msg.InProgress() }
