package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/schemas"
)

const (
	// brokerEvery is how often it is looked whether the broker has lost streams.
	brokerEvery = 5 * time.Second
	// stillFor is how often the broker is asked about a batch that moves, how long
	// nothing must have changed at it before it may have lost something, and how long it
	// must be idle before its open items are taken for lost. A batch that just waits for
	// its turn is asked about less and less often, down to once in stillMost.
	stillFor, stillMost = 10 * time.Second, time.Minute
	// requeueMost is the longest time after which requests are published again that
	// were published again already, and of which no result was recorded since.
	requeueMost = time.Hour
	// maxKeptBytes bounds what kept requests take in memory when they are read.
	maxKeptBytes = 64 << 20
)

// lost is what Run remembers between looks at what the broker may have lost.
type lost struct {
	incarnation string
	next        time.Time // when the streams are looked at again
	batches     map[string]*stillness
}

// stillness is how long a batch has not moved.
type stillness struct {
	batch schemas.Batch // as it was recorded at the last look
	next  time.Time     // when the broker is asked again
	done  int64
	since time.Time // when that has changed last
	lost  time.Time // from when on what is idle may be lost
	idle  bool      // as it was at the last look
	// Since it has moved last:
	told     bool // that requests are lost for good
	requeued int  // how often requests were published again
}

// moved is what has just moved.
func moved(s schemas.Summary, next, now time.Time) *stillness {
	return &stillness{batch: s.Batch, next: next, done: s.Counts.Done(), since: now, lost: now.Add(stillFor)}
}

// lookAtBroker makes streams and buckets anew that were lost, and shows all that was
// in them. What else was in them lookForLost finds. What holds for the fleet it shows
// again when workers are shown something else.
func (c *Control) lookAtBroker(ctx context.Context, now time.Time) error {
	if now.Before(c.lost.next) {
		return nil
	}
	c.lost.next = now.Add(brokerEvery)
	is, err := c.queue.Incarnation(ctx)
	if err != nil {
		return err
	}
	if is == c.lost.incarnation {
		return c.mendSteering(ctx)
	}
	c.log.Warn().Msg("the broker has lost streams or buckets; making them anew, and showing all batches again")
	if err := c.queue.Setup(ctx); err != nil {
		return err
	}
	if _, err = c.showAll(ctx); err != nil {
		c.lost.incarnation = "" // it is tried again
		return err
	}
	for _, still := range c.lost.batches {
		still.next, still.lost = now, now // something of them is gone, most likely
	}
	return nil
}

// lookForLost looks after batches: those that workers are not shown as they are
// recorded are shown again, and requests that are not there any more, of batches that
// do not move, are published again.
func (c *Control) lookForLost(ctx context.Context, active []schemas.Summary, now time.Time) error {
	before := c.lost.batches
	c.lost.batches = make(map[string]*stillness, len(active))
	var errs []error
	for _, s := range active {
		still := before[s.ID]
		if still == nil {
			still = moved(s, now.Add(stillFor), now)
		}
		if !alike(still.batch, s.Batch) { // whoever has changed it shows it until then, if they live
			still.next = earlier(still.next, now.Add(lookEvery))
		}
		if still.batch = s.Batch; still.done != s.Counts.Done() {
			still = moved(s, still.next, now)
		}
		c.lost.batches[s.ID] = still
		if !now.Before(still.next) {
			errs = append(errs, c.lookAtBatch(ctx, s, still, now))
		}
	}
	return errors.Join(errs...)
}

func (c *Control) lookAtBatch(ctx context.Context, s schemas.Summary, still *stillness, now time.Time) error {
	still.next = now.Add(stillFor)
	shown, idle, err := c.queue.Look(ctx, s.ID)
	if err != nil {
		return err
	}
	if shown == nil || !alike(*shown, s.Batch) {
		still.idle = false
		return c.showAgain(ctx, s.ID)
	}
	was, early := still.idle, now.Before(still.lost)
	still.idle = idle && canLose(s) && !early
	switch {
	case !still.idle:
		still.next = now.Add(min(max(now.Sub(still.since)/2, stillFor), stillMost))
		if early {
			still.next = earlier(still.next, still.lost)
		}
		return nil
	case !was:
		return nil // twice, because what is just under way may be seen in no place
	}
	still.idle = false
	return c.requeue(ctx, s, still, now)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// canLose says whether an idle batch has open items that workers should have: not
// one that is being submitted, is paused, or waits to be judged.
func canLose(s schemas.Summary) bool {
	return !s.SealedAt.IsZero() && s.State != schemas.StatePaused && !s.Complete() &&
		(!sampleOnly(s) || s.Counts.Done() < s.Terms.Canary.Size)
}

// sampleOnly says whether workers get nothing but the batch's sample.
func sampleOnly(s schemas.Summary) bool { return s.InCanary() && !s.Stopping() }

// requeue publishes the requests of open items again, which the broker has lost, as
// far as they are kept. Items that have a result meanwhile come to no harm. Where no
// result comes of it, it is done less and less often, and only the first time is told.
func (c *Control) requeue(ctx context.Context, s schemas.Summary, still *stillness, now time.Time) error {
	items := 0
	err := c.kept.OpenKept(ctx, s.ID, func(k schemas.Kept, open []int64) error {
		requests, err := requestsOf(k, open)
		if err != nil {
			return fmt.Errorf("batch %s: the requests that are kept of items %d to %d cannot be read: %w", s.ID, k.First, k.Last, err)
		}
		if err := c.recount(ctx, s.ID, open); err != nil {
			return err
		}
		requests = workable(s, requests)
		if err := c.queue.Republish(ctx, requests, int(s.PerMessage), sampleOnly(s)); err != nil {
			return err
		}
		items += len(requests)
		return nil
	})
	if items == 0 {
		if err == nil && !still.told {
			still.told = true
			c.log.Error().Str("batch", s.ID).Int64("open", s.Open()).Msg("the broker has lost requests that are not kept; submit the same manifest again")
		}
		return err
	}
	failpoint.Here("control.requeued")
	c.log.Warn().Str("batch", s.ID).Int("items", items).Msg("published requests again that the broker had lost")
	return errors.Join(err, c.requeued(ctx, s.ID, items, still, now))
}

// requeued records that requests were published again.
func (c *Control) requeued(ctx context.Context, id string, items int, still *stillness, now time.Time) error {
	s, err := c.record(ctx, id, "", func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		if s.State.Final() || still.requeued > 0 {
			return nil, nil
		}
		return event(s, schemas.ChangeRequeue, schemas.Command{}, fmt.Sprintf("the broker had lost the requests of %d items", items)), nil
	})
	if err != nil {
		return err
	}
	still.requeued++
	still.lost = now.Add(min(stillFor<<min(still.requeued, 10), requeueMost))
	if s.State.Final() {
		return c.queue.Retire(ctx, id) // what was published after it had been retired
	}
	return nil
}

// workable leaves those of the requests whose turn it is: while only the batch's
// sample is worked on, the others may well be there.
func workable(s schemas.Summary, requests []schemas.Request) []schemas.Request {
	if !sampleOnly(s) {
		return requests
	}
	return slices.DeleteFunc(requests, func(r schemas.Request) bool { return !s.Terms.Canary.Has(r.Index, s.Total) })
}

// requestsOf reads the requests of open items out of what is kept.
func requestsOf(k schemas.Kept, open []int64) ([]schemas.Request, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxKeptBytes))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	text, err := d.DecodeAll(k.Body, nil)
	if err != nil {
		return nil, err
	}
	// One by one: of what is compressed well there may be very many.
	n := k.Last - k.First + 1
	g := schemas.RequestGroup{Batch: k.Batch, First: k.First}
	in := json.NewDecoder(bytes.NewReader(text))
	if open, err := in.Token(); err != nil || open != json.Delim('[') {
		return nil, errors.Join(errors.New("they are no list"), err)
	}
	for in.More() && int64(len(g.Items)) <= n {
		var item schemas.RequestItem
		if err := in.Decode(&item); err != nil {
			return nil, err
		}
		g.Items = append(g.Items, item)
	}
	if int64(len(g.Items)) != n {
		return nil, fmt.Errorf("there are %d or more, want %d", len(g.Items), n)
	}
	if _, err := in.Token(); err != nil {
		return nil, err
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows them")
	}
	requests := make([]schemas.Request, len(open))
	for i, index := range open {
		requests[i] = g.Request(int(index - k.First))
	}
	return requests, nil
}
