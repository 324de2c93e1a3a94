package broker

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const (
	// maxPublish is how many messages the server stores as one.
	maxPublish = 1000
	// publishBytes is how many bytes of messages are stored as one.
	publishBytes = 8 << 20
	// publishTimeout is Broker.publishTimeout, publishFor bounds all tries.
	publishTimeout, publishFor = 10 * time.Second, time.Minute
	// firstDelay and maxDelay are how long a publication with an unknown end
	// waits before it is repeated.
	firstDelay, maxDelay = 50 * time.Millisecond, 2 * time.Second
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

// publish stores messages, all or none. Where a server of a cluster fails, the
// others may need some seconds to agree on who goes on. The error of a broker that
// does not answer carries CodeBrokerDown: they may be stored then.
func (b *Broker) publish(ctx context.Context, msgs []*nats.Msg) (err error) {
	delay := firstDelay
	for end := time.Now().Add(publishFor); ; delay = min(2*delay, maxDelay) {
		err = b.publishOnce(ctx, msgs)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || !unknownEnd(err) {
			return err
		}
		if time.Now().After(end) {
			return fault.New(schemas.CodeBrokerDown, "%s: it stores nothing, tried for %s: %w; has its disk room, its cluster a quorum?", b.opts, publishFor, err)
		}
		pause(ctx, delay)
	}
}

func (b *Broker) publishOnce(ctx context.Context, msgs []*nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, b.publishTimeout)
	defer cancel()
	return b.permitted(ctx, func(ctx context.Context) error {
		done := make(chan error, 1)
		go func() {
			_, err := jetstreamext.PublishMsgBatch(ctx, b.js, msgs, jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: b.publishTimeout})
			done <- err
		}()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			if denied := denial(ctx); denied != nil {
				// It waits for its first acknowledgement whatever becomes of the
				// context, publishTimeout at most, and is not made again.
				return denied
			}
			return <-done // until then it works on the messages
		}
	}, b.toAsk(subjectsOf(msgs)...)...)
}

// subjectsOf are the subjects of messages, each once where those of one subject
// stand together.
func subjectsOf(msgs []*nats.Msg) (subjects []string) {
	for i, m := range msgs {
		if i == 0 || m.Subject != msgs[i-1].Subject {
			subjects = append(subjects, m.Subject)
		}
	}
	return subjects
}

// unknownEnd says whether a publication may have been stored although it failed,
// or failed for a reason that passes.
func unknownEnd(err error) bool {
	for _, e := range []error{
		nats.ErrTimeout, context.DeadlineExceeded, nats.ErrNoResponders, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
		jetstreamext.ErrBatchPublishIncomplete, jetstreamext.ErrAtomicPublishTooManyInflight,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	if _, broken := errors.AsType[net.Error](err); broken { // the connection, while it was written to
		return true
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeNoLeader || api.ErrorCode == codeInProcess)
}

// Error codes of the server: its cluster has no leader, and it is just storing a
// message with the same id.
const codeNoLeader, codeInProcess jetstream.ErrorCode = 10008, 10158
