package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// Settled says whether no message of an active batch waits or is in anybody's
// hand, and all results that there are of it are recorded. While its producer goes
// on publishing that can change.
func (b *Broker) Settled(ctx context.Context, batch string) (bool, error) {
	c, err := b.consumerOf(ctx, batch)
	// One that brings the sample only has the rest still to bring.
	if err != nil || len(c.Config.FilterSubjects) > 0 {
		return false, err
	}
	return b.idle(ctx, c)
}

// Look tells how an active batch stands: shown is the batch as workers are shown it,
// nil when they are not or cannot take its messages; idle whether none of those that
// they can take waits or is in anybody's hand, and all results that there are of it are
// recorded. While only the batch's sample is worked on, its other messages do not
// count.
func (b *Broker) Look(ctx context.Context, batch string) (shown *schemas.Batch, idle bool, err error) {
	c, err := b.js.Consumer(ctx, schemas.StreamRestore, batch)
	if err == nil {
		err = b.get(ctx, schemas.BucketBatches, batch, &shown)
	}
	if notThere(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look at batch %s: %w", batch, err)
	}
	idle, err = b.idle(ctx, c.CachedInfo())
	return shown, idle, err
}

// idle says whether a batch's consumer has nothing to bring and has brought nothing
// that is still in hand, and all results of the batch are recorded.
func (b *Broker) idle(ctx context.Context, c *jetstream.ConsumerInfo) (bool, error) {
	if c.NumPending > 0 || c.NumAckPending > 0 {
		return false, nil
	}
	results, err := b.js.Stream(ctx, schemas.StreamResults)
	if err != nil {
		return false, fmt.Errorf("stream %s: %w", schemas.StreamResults, err)
	}
	last, err := results.GetLastMsgForSubject(ctx, schemas.ResultSubject("*", c.Name))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("last result of %s: %w", c.Name, err)
	}
	recorded, err := b.js.Consumer(ctx, schemas.StreamResults, collectorConsumer)
	if err != nil {
		return false, fmt.Errorf("%s: %w", collectingName, err)
	}
	return recorded.CachedInfo().AckFloor.Stream >= last.Sequence, nil
}

// Left is how many messages of requests of a batch the broker holds, done or not.
func (b *Broker) Left(ctx context.Context, batch string) (int64, error) {
	return b.count(ctx, schemas.RestoreSubjects(batch))
}

// count is how many requests there are on subjects.
func (b *Broker) count(ctx context.Context, subjects string) (n int64, err error) {
	stream, err := b.js.Stream(ctx, schemas.StreamRestore)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", schemas.StreamRestore, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjects))
	if err != nil {
		return 0, fmt.Errorf("requests on %s: %w", subjects, err)
	}
	for _, of := range info.State.Subjects {
		n += int64(of)
	}
	return n, nil
}
