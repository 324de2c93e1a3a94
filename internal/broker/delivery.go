package broker

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Headers of requests: the indexes of the first and the last item that the
// message asks for. They stand beside the payload so that the items of a message
// whose payload cannot be read are still known.
const (
	firstHeader = "Exhume-First"
	lastHeader  = "Exhume-Last"
)

// Delivery is one message in hand. Whoever fetched it gives a sign of life at
// least every Heartbeat until it is settled.
type Delivery struct {
	msg *nats.Msg
	// published is when the message was stored.
	published  time.Time
	deliveries int
}

// delivery makes a delivery; messages up to the sequence reclaimed.to may have been
// delivered before the consumer was reset.
func delivery(msg *nats.Msg, reclaimed reclaim) *Delivery {
	d := &Delivery{msg: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.published, d.deliveries = meta.Timestamp, int(meta.NumDelivered)
		if meta.Sequence.Stream <= reclaimed.to {
			d.deliveries = max(d.deliveries, reclaimed.times+1)
		}
	}
	return d
}

// Data is the message's payload.
func (d *Delivery) Data() []byte { return d.msg.Data }

// Indexes are the indexes of the first and the last item, as the publisher of a
// request put them beside its payload.
func (d *Delivery) Indexes() (first, last int64, ok bool) {
	if d.msg.Header == nil {
		return 0, 0, false
	}
	first, err1 := strconv.ParseInt(d.msg.Header.Get(firstHeader), 10, 64)
	last, err2 := strconv.ParseInt(d.msg.Header.Get(lastHeader), 10, 64)
	return first, last, err1 == nil && err2 == nil
}

// PublishedAt is when the message was stored.
func (d *Delivery) PublishedAt() time.Time { return d.published }

// Redelivered says whether the message may have been delivered before.
func (d *Delivery) Redelivered() bool { return d.deliveries > 1 }

// Deliveries is how often the message was delivered, this time included, as far
// as is known: when its batch got another consumer the server counts anew, and after
// Reclaim it is a guess; see there.
func (d *Delivery) Deliveries() int { return d.deliveries }

// Ack settles the message. It does not wait for the server: a lost ack only
// repeats harmless work.
func (d *Delivery) Ack() error { return d.msg.Ack() }

// Nak gives the message back, to be delivered again after the delay.
func (d *Delivery) Nak(delay time.Duration) error { return d.msg.NakWithDelay(delay) }

// Alive is the sign of life.
func (d *Delivery) Alive() error { return d.msg.InProgress() }
