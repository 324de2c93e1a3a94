package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/exhume/exhume/schemas"
)

const (
	// MaxPublish is how many requests the server stores as one.
	MaxPublish = 1000
	// publishBytes is how many bytes of requests are stored as one.
	publishBytes = 8 << 20
	// publishTries is how often a publication with an unknown end is repeated.
	publishTries = 5
)

// Publish stores requests of one batch in the order of their indexes, in groups
// of at most MaxPublish, each all or none. When it fails, what is stored is a
// first part of them, of which LastIndex tells the end. The same call can be
// repeated: what is stored already is not stored twice within the stream's
// duplicate window, and running a request twice is harmless.
func (b *Broker) Publish(ctx context.Context, requests []schemas.Request) error {
	limit := b.maxRequest()
	group, size := make([]*nats.Msg, 0, min(len(requests), MaxPublish)), 0
	first := 0
	for i := range requests {
		r := &requests[i]
		data, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("request %s: %w", r.ID(), err)
		}
		if len(data) > limit {
			return fmt.Errorf("item %d of batch %s: the request has %d bytes and this broker takes %d at most: shorten its labels, or leave the row out",
				r.Index, r.Batch, len(data), limit)
		}
		if len(group) == MaxPublish || (len(group) > 0 && size+len(data) > publishBytes) {
			if err := b.publish(ctx, requests[first:i], group); err != nil {
				return err
			}
			group, size, first = group[:0], 0, i
		}
		group, size = append(group, &nats.Msg{
			Subject: schemas.RestoreSubject(r.Batch), Data: data,
			Header: nats.Header{indexHeader: {strconv.FormatInt(r.Index, 10)}},
		}), size+len(data)
	}
	if len(group) == 0 {
		return nil
	}
	return b.publish(ctx, requests[first:], group)
}

// maxRequest is the size of the largest request: its result, which repeats it
// and names the output once more, must fit into a message.
func (b *Broker) maxRequest() int { return int(b.nc.MaxPayload() / 4) }

// publish stores one group.
func (b *Broker) publish(ctx context.Context, requests []schemas.Request, msgs []*nats.Msg) error {
	first, last := &requests[0], &requests[len(requests)-1]
	// One id stands for all: a repetition is refused as a whole. It names both
	// ends, so that only the same group is a repetition.
	msgs[0].Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s-%d", first.ID(), last.Index))
	var err error
	for range publishTries {
		_, err = jetstreamext.PublishMsgBatch(ctx, b.js, msgs)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, jetstreamext.ErrBatchPublishDuplicateMsgID):
			return b.confirm(ctx, last)
		case ctx.Err() != nil:
			return ctx.Err()
		case !unknownEnd(err):
			return fmt.Errorf("publish requests from %s: %w", first.ID(), err)
		}
	}
	return fmt.Errorf("publish requests from %s: %w", first.ID(), err)
}

// confirm makes sure that a group that was refused as a repetition is there: the
// server remembers ids longer than a batch that was purged.
func (b *Broker) confirm(ctx context.Context, last *schemas.Request) error {
	stored, err := b.LastIndex(ctx, last.Batch)
	if err != nil {
		return err
	}
	if stored < last.Index {
		return fmt.Errorf("publish requests up to %s: they were published a moment ago and removed since: try again in %s", last.ID(), duplicateWindow)
	}
	return nil
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

// LastIndex is the index of the last request of the batch that is stored, -1
// when there is none.
func (b *Broker) LastIndex(ctx context.Context, batch string) (int64, error) {
	stream, err := b.js.Stream(ctx, schemas.StreamRestore)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", schemas.StreamRestore, err)
	}
	msg, err := stream.GetLastMsgForSubject(ctx, schemas.RestoreSubject(batch))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("last request of %s: %w", batch, err)
	}
	index, err := strconv.ParseInt(msg.Header.Get(indexHeader), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("last request of %s has no index in its header %s: something else publishes to %s",
			batch, indexHeader, schemas.RestoreSubject(batch))
	}
	return index, nil
}

// Requests takes up to n requests of a batch that are waiting; see fetch.
func (b *Broker) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]*Delivery, error) {
	return b.fetch(ctx, schemas.StreamRestore, batch, n, wait)
}
