package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// trimTogether is how many messages are removed at once at most: whoever publishes
// or acknowledges waits meanwhile.
const trimTogether = 200_000

// TrimQueue removes requests that are done of batches that go on, when more than
// three quarters of the queue are full. Without it a batch that is larger than the
// queue would wait for ever for room that itself takes up, and so would single
// requests, whose batch never ends. It can be called at any time, by several
// collectors at once.
//
// A request is done when it is acknowledged; its results are stored then. Only those
// go before which no message of their batch is open. The last one that a producer
// has published stays, because it tells where the producer has stopped.
func (b *Broker) TrimQueue(ctx context.Context) error {
	stream, err := b.js.Stream(ctx, schemas.StreamRestore)
	if err != nil {
		return fmt.Errorf("stream %s: %w", schemas.StreamRestore, err)
	}
	if !usage(stream).crowded() {
		return nil
	}
	b.trimming.Lock()
	defer b.trimming.Unlock()
	there := map[string]bool{}
	consumers := stream.ListConsumers(ctx)
	for c := range consumers.Info() {
		there[c.Name] = true
		// Of a sample that is worked on alone nothing goes: it is small.
		if c.Config.FilterSubject != schemas.RestoreSubjects(c.Name) {
			continue
		}
		if b.trimmed[c.Name] == c.AckFloor.Stream {
			continue // nothing was done since
		}
		if err := trimBatch(ctx, stream, c); err != nil {
			return fmt.Errorf("remove requests of batch %s that are done: %w", c.Name, err)
		}
		b.trimmed[c.Name] = c.AckFloor.Stream
	}
	if err := consumers.Err(); err != nil {
		return fmt.Errorf("consumers of %s: %w", schemas.StreamRestore, err)
	}
	maps.DeleteFunc(b.trimmed, func(name string, _ uint64) bool { return !there[name] })
	return nil
}

func trimBatch(ctx context.Context, stream jetstream.Stream, c *jetstream.ConsumerInfo) error {
	end := c.AckFloor.Stream + 1
	if c.Name == schemas.Single { // has no producer that could go on
		return trimSubject(ctx, stream, schemas.RestoreSubject(c.Name), end)
	}
	for _, subject := range []string{schemas.RestoreSubject(c.Name), schemas.CanarySubject(c.Name)} {
		last, err := stream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := trimSubject(ctx, stream, subject, min(end, last.Sequence)); err != nil {
			return err
		}
	}
	return trimSubject(ctx, stream, schemas.RetrySubject(c.Name), end)
}

// trimSubject removes the messages of a subject before the sequence end.
func trimSubject(ctx context.Context, stream jetstream.Stream, subject string, end uint64) error {
	first, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for at := first.Sequence; at < end; {
		at = min(at+trimTogether, end)
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(at)); err != nil {
			return err
		}
	}
	return nil
}

// TrimResults removes results that are recorded: when more than three quarters of
// the stream are full, the oldest until half of it is, and those that are older
// than Bounds.ResultsAge. What no collector has acknowledged stays. It can be called
// at any time, by several collectors at once.
func (b *Broker) TrimResults(ctx context.Context) error {
	if err := b.trimResults(ctx, time.Now().Add(-b.opts.ResultsAge)); err != nil {
		return fmt.Errorf("remove results that are recorded: %w", err)
	}
	return nil
}

func (b *Broker) trimResults(ctx context.Context, oldest time.Time) error {
	stream, err := b.js.Stream(ctx, schemas.StreamResults)
	if err != nil {
		return err
	}
	state, u := stream.CachedInfo().State, usage(stream)
	// Not as soon as one is too old, but many together.
	aged := state.Msgs > 0 && state.FirstTime.Before(oldest.Add(-b.opts.ResultsAge/100))
	if !aged && !u.crowded() {
		return nil
	}
	c, err := b.js.Consumer(ctx, schemas.StreamResults, collectorConsumer)
	if err != nil {
		return err
	}
	recorded, end := c.CachedInfo().AckFloor.Stream+1, uint64(0)
	if recorded <= state.FirstSeq {
		return nil
	}
	if aged {
		if end, err = firstSince(ctx, stream, oldest); err != nil {
			return err
		}
	}
	if u.crowded() {
		tooMany := float64(u.Bytes-u.Bound/2) / float64(u.Bytes)
		end = max(end, state.FirstSeq+uint64(tooMany*float64(state.LastSeq+1-state.FirstSeq)))
	}
	end = min(end, recorded)
	// When the stream is lost meanwhile, the next one begins beyond the end.
	for at := state.FirstSeq; at < end; {
		at = min(at+trimTogether, end)
		if err := stream.Purge(ctx, jetstream.WithPurgeSequence(at)); err != nil {
			return err
		}
	}
	return nil
}

// firstSince is the sequence of the first message that was stored at the time or
// after it, one beyond the last when there is none. Only a consumer knows.
func firstSince(ctx context.Context, stream jetstream.Stream, at time.Time) (uint64, error) {
	c, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &at, AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return 0, err
	}
	info := c.CachedInfo()
	return info.Delivered.Stream + 1, stream.DeleteConsumer(ctx, info.Name)
}
