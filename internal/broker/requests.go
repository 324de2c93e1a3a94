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

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Publish stores requests of one batch in the order of their indexes, which may
// have gaps, up to perMessage of them in one message (schemas.MaxRequests at
// most). When it fails, what is stored is a first part of them, of which LastIndex
// tells the end. The error of a queue that has no room carries CodeBrokerFull. The same call can be repeated: what is stored already is not
// stored twice within the stream's duplicate window, and running a request twice
// is harmless.
func (b *Broker) Publish(ctx context.Context, requests []schemas.Request, perMessage int) error {
	if len(requests) == 0 {
		return nil
	}
	batch := requests[0].Batch
	return b.store(ctx, schemas.RestoreSubject(batch), batch+":", requests, max(1, min(perMessage, schemas.MaxRequests)))
}

// PublishCanary stores the requests of a batch's sample as Publish does the others,
// one in each message: a sample is small, and all workers are to take part in it.
// LastCanary tells the end of what is stored. The sample must be published before
// the others.
func (b *Broker) PublishCanary(ctx context.Context, requests []schemas.Request) error {
	if len(requests) == 0 {
		return nil
	}
	batch := requests[0].Batch
	return b.store(ctx, schemas.CanarySubject(batch), batch+":canary:", requests, 1)
}

// store publishes requests on a subject; the ids of messages begin with prefix.
func (b *Broker) store(ctx context.Context, subject, prefix string, requests []schemas.Request, perMessage int) error {
	var msgs []*nats.Msg
	for len(requests) > 0 {
		n := run(requests, perMessage)
		var err error
		if msgs, err = b.encode(msgs, subject, schemas.NewRequestGroup(requests[:n])); err != nil {
			return err
		}
		requests = requests[n:]
	}
	for _, part := range parts(msgs) {
		if err := b.storePart(ctx, subject, prefix, part); err != nil {
			return err
		}
	}
	return nil
}

// storePart stores a run of messages, all or none; where there is no room for that,
// what there is room for: a run may be longer than the whole queue.
func (b *Broker) storePart(ctx context.Context, subject, prefix string, part []*nats.Msg) error {
	// One id stands for all: a repetition is refused as a whole. It names both
	// ends, so that only the same requests are a repetition.
	first, last := part[0], part[len(part)-1]
	id := prefix + first.Header.Get(firstHeader) + "-" + last.Header.Get(lastHeader)
	err := b.room(ctx, sizeOf(part))
	if err == nil {
		first.Header.Set(jetstream.MsgIDHeader, id)
		err = b.whyFull(ctx, schemas.StreamRestore, b.publish(ctx, part))
	}
	if errors.Is(err, errDuplicate) {
		err = b.confirm(ctx, subject, last.Header.Get(lastHeader))
	}
	if half := len(part) / 2; half > 0 && fault.Is(err, schemas.CodeBrokerFull) {
		if err := b.storePart(ctx, subject, prefix, part[:half]); err != nil {
			return err
		}
		return b.storePart(ctx, subject, prefix, part[half:])
	}
	if err != nil {
		return fmt.Errorf("publish requests %s: %w", id, err)
	}
	return nil
}

// sizeOf is about how many bytes messages take in the stream.
func sizeOf(msgs []*nats.Msg) (bytes int64) {
	const overhead = 256 // subject, headers and record
	for _, m := range msgs {
		bytes += int64(len(m.Data)) + overhead
	}
	return bytes
}

// run is how many of the first requests have consecutive indexes, at most so many.
func run(requests []schemas.Request, most int) int {
	n := 1
	for n < min(most, len(requests)) && requests[n].Index == requests[n-1].Index+1 {
		n++
	}
	return n
}

// Requeue stores requests of one batch that are to be tried again. When it fails
// some may be stored; repeating is harmless. The error of a queue that has no room
// carries CodeBrokerFull: there may be none until those who hold requests let go of
// them.
func (b *Broker) Requeue(ctx context.Context, groups []schemas.RequestGroup) error {
	if len(groups) == 0 {
		return nil
	}
	return b.storeAgain(ctx, schemas.RetrySubject(groups[0].Batch), groups)
}

// encode appends the message of a group, or several where one would be too long.
func (b *Broker) encode(msgs []*nats.Msg, subject string, g schemas.RequestGroup) ([]*nats.Msg, error) {
	data, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("requests of batch %s from item %d: %w", g.Batch, g.First, err)
	}
	n := len(g.Items)
	switch limit := b.maxRequest(); {
	case len(data) <= limit:
		return append(msgs, &nats.Msg{Subject: subject, Data: data, Header: nats.Header{
			firstHeader: {strconv.FormatInt(g.First, 10)},
			lastHeader:  {strconv.FormatInt(g.First+int64(n)-1, 10)},
		}}), nil
	case n == 1:
		return nil, fmt.Errorf("item %d of batch %s: the request has %d bytes and this broker takes %d at most: shorten its labels, or leave the row out",
			g.First, g.Batch, len(data), limit)
	}
	head, tail := g, g
	head.Items, tail.Items = g.Items[:n/2], g.Items[n/2:]
	tail.First += int64(n / 2)
	if msgs, err = b.encode(msgs, subject, head); err != nil {
		return nil, err
	}
	return b.encode(msgs, subject, tail)
}

// maxRequest is the size of the longest message of requests: the result of a
// single one, which repeats it and names the output once more, must fit into a
// message.
func (b *Broker) maxRequest() int { return int(b.nc.MaxPayload() / 4) }

// confirm makes sure that requests that were refused as a repetition are there:
// the server remembers ids longer than a batch that was purged.
func (b *Broker) confirm(ctx context.Context, subject, last string) error {
	stored, err := b.lastIndex(ctx, subject)
	if err != nil {
		return err
	}
	if want, err := strconv.ParseInt(last, 10, 64); err != nil || stored < want {
		return fmt.Errorf("they were published a moment ago and removed since: try again in %s", duplicateWindow)
	}
	return nil
}

// LastIndex is the index of the last item of the batch that its producer has
// stored a request for, the sample aside; -1 when there is none.
func (b *Broker) LastIndex(ctx context.Context, batch string) (int64, error) {
	return b.lastIndex(ctx, schemas.RestoreSubject(batch))
}

// LastCanary is the index of the last item of the batch's sample that a request is
// stored for, -1 when there is none.
func (b *Broker) LastCanary(ctx context.Context, batch string) (int64, error) {
	return b.lastIndex(ctx, schemas.CanarySubject(batch))
}

func (b *Broker) lastIndex(ctx context.Context, subject string) (int64, error) {
	stream, err := b.js.Stream(ctx, schemas.StreamRestore)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", schemas.StreamRestore, err)
	}
	msg, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("last request on %s: %w", subject, err)
	}
	index, err := strconv.ParseInt(msg.Header.Get(lastHeader), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("last request on %s has no index in its header %s: something else publishes there", subject, lastHeader)
	}
	return index, nil
}

// Requests takes up to n messages of requests of a batch that are waiting; see
// fetch.
func (b *Broker) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]*Delivery, error) {
	return b.fetch(ctx, schemas.StreamRestore, batch, n, wait)
}
