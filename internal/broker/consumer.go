package broker

import (
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// consumer is the consumer of a batch as it should be, but for where it begins.
// While only the batch's sample is worked on, it brings that, and what of it is to
// be tried again; what is cancelled must all come, and so must everything else.
func consumer(batch schemas.Batch) jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Durable:       batch.ID,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1, // the worker decides, by its own count
		MaxAckPending: maxAckPending,
	}
	if batch.InCanary() && !batch.Stopping() {
		c.FilterSubjects = []string{schemas.CanarySubject(batch.ID), schemas.RetrySubject(batch.ID)}
	} else {
		// One filter: with several the server looks for the next message much longer.
		c.FilterSubject = schemas.RestoreSubjects(batch.ID)
	}
	if most := batch.Terms.MaxInFlight; most > 0 && !batch.Stopping() {
		// Of messages that are full, so that there are never more items.
		c.MaxAckPending = int(min(max(most/max(batch.PerMessage, 1), 1), maxAckPending))
	}
	return c
}

// passed says whether all of a batch's sample has its results, so that none of it
// must be delivered again.
func passed(batch schemas.Batch) bool {
	return batch.Terms.Canary != nil && batch.Terms.Canary.Passed && !batch.Stopping()
}

// consumerTries is how often it is tried to set a consumer up while others do the same.
const consumerTries = 20

// setupConsumer makes a batch's consumer what it should be.
func (b *Broker) setupConsumer(ctx context.Context, batch schemas.Batch) error {
	b.activating.Lock()
	defer b.activating.Unlock()
	for try := 1; ; try++ {
		done, err := b.tryConsumer(ctx, batch)
		if done || err != nil && (try >= consumerTries || !inTheWay(err)) {
			return err
		}
		if err != nil {
			pause(ctx, firstDelay)
		}
	}
}

// inTheWay says whether setting a consumer up failed because another collector was
// doing it at the same time: what was there a moment ago is gone, or the other way
// round, or the server was still removing its files.
func inTheWay(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && slices.Contains([]jetstream.ErrorCode{
		jetstream.JSErrCodeConsumerExists, jetstream.JSErrCodeConsumerDoesNotExist, codeNoFiles,
	}, api.ErrorCode)
}

// codeNoFiles is the server's error code when it cannot make a consumer's files.
const codeNoFiles jetstream.ErrorCode = 10012

// tryConsumer takes one step: it removes a consumer with another filter, or makes
// the right one and is done.
func (b *Broker) tryConsumer(ctx context.Context, batch schemas.Batch) (done bool, err error) {
	stream, err := b.js.Stream(ctx, schemas.StreamRestore)
	if err != nil {
		return false, err
	}
	want := consumer(batch)
	c, err := b.js.Consumer(ctx, schemas.StreamRestore, batch.ID)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		if passed(batch) {
			if err := afterSample(ctx, stream, &want); err != nil {
				return false, err
			}
		}
		_, err = b.js.CreateConsumer(ctx, schemas.StreamRestore, want)
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	have := c.CachedInfo().Config
	// One that brings everything stays: a sample passes once only, so that whoever
	// wants the sample alone does not know yet that it has.
	if len(have.FilterSubjects) == 0 || len(want.FilterSubjects) > 0 {
		if have.MaxAckPending != want.MaxAckPending {
			have.MaxAckPending = want.MaxAckPending
			_, err = b.js.UpdateConsumer(ctx, schemas.StreamRestore, have)
		}
		return err == nil, err
	}
	// What of the sample is in hand is finished first: a new consumer would bring it
	// to who cancels at once. Whoever stops a batch shows it until it has ended.
	if batch.Stopping() && c.CachedInfo().NumAckPending > 0 {
		return true, nil
	}
	// The filter is not changed in place, because the consumer would stay where it
	// is: beyond requests that it passed over, which would never come.
	if passed(batch) {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(schemas.RetrySubject(batch.ID))); err != nil {
			return false, err
		}
	}
	err = b.js.DeleteConsumer(ctx, schemas.StreamRestore, batch.ID)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		err = nil
	}
	return false, err
}

// afterSample has a consumer begin behind the requests of the batch's sample. They
// are published before all others, so that the first of those is where; one that
// a second producer publishes late comes again, which is harmless.
func afterSample(ctx context.Context, stream jetstream.Stream, c *jetstream.ConsumerConfig) error {
	first, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(schemas.RestoreSubject(c.Durable)))
	if err == nil {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, first.Sequence
		return nil
	}
	if !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	last, err := stream.GetLastMsgForSubject(ctx, schemas.CanarySubject(c.Durable))
	if err == nil {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, last.Sequence+1
		return nil
	}
	if !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	return nil
}
