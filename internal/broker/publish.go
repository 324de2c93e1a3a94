package broker

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const (
	// maxPublish is how many messages the server stores as one.
	maxPublish = 1000
	// publishBytes is how many bytes of messages are stored as one.
	publishBytes = 8 << 20
	// publishTries is how often a publication with an unknown end is repeated.
	publishTries = 5
)

// parts cuts messages into runs that the server takes as one.
func parts(msgs []*nats.Msg) (parts [][]*nats.Msg) {
	first, size := 0, 0
	for i, m := range msgs {
		if i > first && (i-first == maxPublish || size+len(m.Data) > publishBytes) {
			parts = append(parts, msgs[first:i])
			first, size = i, 0
		}
		size += len(m.Data)
	}
	if first < len(msgs) {
		parts = append(parts, msgs[first:])
	}
	return parts
}

// errDuplicate says that the server knows the id of a message already.
var errDuplicate = jetstreamext.ErrBatchPublishDuplicateMsgID

// publish stores messages, all or none.
func (b *Broker) publish(ctx context.Context, msgs []*nats.Msg) (err error) {
	for range publishTries {
		_, err = jetstreamext.PublishMsgBatch(ctx, b.js, msgs)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || !unknownEnd(err) {
			return err
		}
	}
	return err
}

// unknownEnd says whether a publication may have been stored although it failed,
// or failed for a reason that passes.
func unknownEnd(err error) bool {
	for _, e := range []error{
		nats.ErrTimeout, context.DeadlineExceeded, nats.ErrNoResponders, nats.ErrConnectionReconnecting,
		jetstreamext.ErrBatchPublishIncomplete, jetstreamext.ErrAtomicPublishTooManyInflight,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
