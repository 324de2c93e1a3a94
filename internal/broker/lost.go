package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// Incarnation tells the streams and buckets that are there from those that take
// their place when they were lost: while it stays the same nothing that Setup makes
// was removed, or made anew.
func (b *Broker) Incarnation(ctx context.Context) (string, error) {
	var all strings.Builder
	for _, s := range b.streams() {
		at, err := b.madeAt(ctx, s.Name)
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintln(&all, s.Name, at)
	}
	_, err := b.js.Consumer(ctx, schemas.StreamResults, collectorConsumer)
	if err != nil && !notThere(err) {
		return "", fmt.Errorf("%s: %w", collectingName, err)
	}
	_, _ = fmt.Fprintln(&all, collectorConsumer, err == nil)
	return all.String(), nil
}

// madeAt is when a stream was made, the zero time when there is none.
func (b *Broker) madeAt(ctx context.Context, stream string) (time.Time, error) {
	s, err := b.js.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("stream %s: %w", stream, err)
	}
	return s.CachedInfo().Created, nil
}

// notThere says whether an error means that what was asked for is not there.
func notThere(err error) bool {
	for _, e := range []error{jetstream.ErrStreamNotFound, jetstream.ErrConsumerNotFound, jetstream.ErrBucketNotFound, jetstream.ErrKeyNotFound} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Republish stores requests of one batch, in the order of their indexes, that the
// broker has lost: where Publish had stored them or, of the batch's sample,
// PublishCanary. Those that are there nevertheless are there twice, which is
// harmless. When it fails some may be stored.
func (b *Broker) Republish(ctx context.Context, requests []schemas.Request, perMessage int, sample bool) error {
	if len(requests) == 0 {
		return nil
	}
	subject := schemas.RestoreSubject(requests[0].Batch)
	if sample {
		subject, perMessage = schemas.CanarySubject(requests[0].Batch), 1
	}
	var groups []schemas.RequestGroup
	for len(requests) > 0 {
		n := run(requests, max(1, min(perMessage, schemas.MaxRequests)))
		groups = append(groups, schemas.NewRequestGroup(requests[:n]))
		requests = requests[n:]
	}
	return b.storeAgain(ctx, subject, groups)
}

// storeAgain stores requests of one batch whether or not they are there. Their
// messages have no ids: the server would take them for those that it has stored, or
// had.
func (b *Broker) storeAgain(ctx context.Context, subject string, groups []schemas.RequestGroup) error {
	var msgs []*nats.Msg
	for _, g := range groups {
		var err error
		if msgs, err = b.encode(msgs, subject, g); err != nil {
			return err
		}
	}
	for _, part := range parts(msgs) {
		if err := b.whyFull(ctx, schemas.StreamRestore, b.publish(ctx, part)); err != nil {
			return fmt.Errorf("publish %d requests of batch %s again: %w", len(part), groups[0].Batch, err)
		}
	}
	return nil
}
