package broker

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// A batch ten times as large as the queue passes through it, whose bound holds.
func TestBatchLargerThanQueue(t *testing.T) {
	t.Parallel()
	const bound, n = 256 << 10, 12_000
	b := bounded(t, Bounds{QueueBytes: bound})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all := requests(0, n)
	full := make(chan bool, n)
	published := make(chan error, 1)
	go func() {
		for next := int64(0); next < n; {
			err := b.Publish(ctx, all[next:min(next+4096, n)], 1)
			if err != nil && !fault.Is(err, schemas.CodeBrokerFull) {
				published <- err
				return
			}
			if err != nil {
				full <- true
				pause(ctx, time.Millisecond)
			}
			last, err := b.LastIndex(ctx, "b")
			if err != nil {
				published <- err
				return
			}
			next = last + 1
		}
		published <- nil
	}()
	<-full
	seen := map[int64]int{}
	for len(seen) < n {
		got, err := b.Requests(ctx, "b", 500, time.Second)
		must(t, err)
		if len(got) == 0 && ctx.Err() != nil {
			t.Fatalf("%d of %d requests came", len(seen), n)
		}
		for _, d := range got {
			seen[indexes(t, []*Delivery{d})[0]]++
			must(t, d.Ack())
		}
		must(t, b.TrimQueue(ctx))
		if u, err := b.Usage(ctx, schemas.StreamRestore); err != nil || u.Bytes > bound {
			t.Errorf("%+v, %v", u, err)
		}
	}
	must(t, <-published)
	for i, times := range seen {
		if times != 1 {
			t.Errorf("request %d came %d times", i, times)
		}
	}
	waitInHand(t, b, 0)
	if last, err := b.LastIndex(ctx, "b"); err != nil || last != n-1 {
		t.Errorf("last %d, %v", last, err)
	}
	if settled, err := b.Settled(ctx, "b"); err != nil || !settled {
		t.Errorf("settled %v, %v", settled, err)
	}
}

// fillUp makes a queue more than three quarters full.
func fillUp(t *testing.T, b *Broker) {
	t.Helper()
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "filler"}))
	for {
		s, err := b.js.Stream(t.Context(), schemas.StreamRestore)
		must(t, err)
		if usage(s).crowded() {
			return
		}
		_, err = b.js.Publish(t.Context(), schemas.RestoreSubject("filler"), make([]byte, 8<<10))
		must(t, err)
	}
}

// What is not done stays, and what was given back comes again.
func TestTrimQueueLeavesWhatIsOpen(t *testing.T) {
	t.Parallel()
	b := bounded(t, Bounds{QueueBytes: 256 << 10})
	must(t, b.Publish(t.Context(), requests(0, 100), 1))
	got := take(t, b, 60, 0)
	for i, d := range got {
		if i != 20 && i != 30 && i != 31 {
			must(t, d.Ack())
		}
	}
	must(t, b.Requeue(t.Context(), []schemas.RequestGroup{schemas.NewRequestGroup(requests(7, 8))}))
	waitInHand(t, b, 3)
	must(t, b.TrimQueue(t.Context()))
	if n := stored(t, b, schemas.StreamRestore); n != 101 {
		t.Errorf("%d requests are left although there is room", n)
	}
	fillUp(t, b)
	filled := stored(t, b, schemas.StreamRestore)
	must(t, b.TrimQueue(t.Context()))
	if n := stored(t, b, schemas.StreamRestore); n != filled-20 {
		t.Errorf("%d of %d requests are left, 20 were done before the first that is open", n, filled)
	}
	must(t, got[20].Nak(0))
	must(t, got[30].Nak(0))
	rest := []int64{}
	for len(rest) < 43 {
		for _, d := range take(t, b, 100, time.Minute) {
			rest = append(rest, indexes(t, []*Delivery{d})...)
			must(t, d.Ack())
		}
	}
	slices.Sort(rest)
	want := append([]int64{7, 20, 30}, indexesTo(100)[60:]...)
	if diff := cmp.Diff(want, rest); diff != "" {
		t.Error(diff)
	}
	must(t, got[31].Ack())
	waitInHand(t, b, 0)
	fillUp(t, b)
	filled = stored(t, b, schemas.StreamRestore)
	must(t, b.TrimQueue(t.Context()))
	if n := stored(t, b, schemas.StreamRestore); n != filled-81+1 {
		t.Errorf("%d of %d requests are left, want all but 80: the last one stays", n, filled)
	}
	if last, err := b.LastIndex(t.Context(), "b"); err != nil || last != 99 {
		t.Errorf("last %d, %v", last, err)
	}
	must(t, b.Publish(t.Context(), requests(100, 110), 1))
	if more := indexes(t, take(t, b, 100, time.Minute)); len(more) != 10 || more[0] != 100 {
		t.Errorf("got %v", more)
	}
}

// A sample is left alone while it is worked on, and afterwards its last request
// tells where it ended.
func TestTrimQueueAndSample(t *testing.T) {
	t.Parallel()
	b := bounded(t, Bounds{QueueBytes: 256 << 10})
	must(t, b.Retire(t.Context(), "b")) // its consumer brings everything
	batch := schemas.Batch{ID: "b", State: schemas.StateOpen, Terms: schemas.Terms{Canary: &schemas.Canary{Size: 10}}}
	must(t, b.Activate(t.Context(), batch))
	must(t, b.PublishCanary(t.Context(), requests(0, 10)))
	must(t, b.Publish(t.Context(), requests(10, 50), 1))
	fillUp(t, b)
	for _, d := range take(t, b, 100, 0) {
		must(t, d.Ack())
	}
	waitInHand(t, b, 0)
	filled := stored(t, b, schemas.StreamRestore)
	must(t, b.TrimQueue(t.Context()))
	if n := stored(t, b, schemas.StreamRestore); n != filled {
		t.Errorf("%d of %d requests are left while the sample is worked on", n, filled)
	}
	batch.Terms.Canary.Passed = true
	must(t, b.Activate(t.Context(), batch))
	rest := take(t, b, 100, time.Minute)
	if got := indexes(t, rest); len(got) != 40 || got[0] != 10 {
		t.Fatalf("got %v", got)
	}
	for _, d := range rest[:20] {
		must(t, d.Ack())
	}
	waitInHand(t, b, 20)
	must(t, b.TrimQueue(t.Context()))
	if n := stored(t, b, schemas.StreamRestore); n != filled-9-20 {
		t.Errorf("%d of %d requests are left, want 29 fewer", n, filled)
	}
	sample, err := b.LastCanary(t.Context(), "b")
	must(t, err)
	if last, err := b.LastIndex(t.Context(), "b"); err != nil || last != 49 || sample != 9 {
		t.Errorf("last %d and %d, %v", sample, last, err)
	}
}

// Single requests that are done go to the last one, and their indexes do not come
// again.
func TestTrimSingleRequests(t *testing.T) {
	t.Parallel()
	b := bounded(t, Bounds{QueueBytes: 256 << 10})
	must(t, b.Activate(t.Context(), schemas.Batch{ID: schemas.Single}))
	publish := func(id string) {
		t.Helper()
		must(t, b.PublishSingle(t.Context(), id, schemas.SingleRequest{Tombstone: "t", Output: "o"}))
	}
	takeOne := func() (index int64) {
		t.Helper()
		got, err := b.Requests(t.Context(), schemas.Single, 1, time.Minute)
		must(t, err)
		_, index = got[0].Single()
		must(t, got[0].msg.AckSync(nats.Context(t.Context())))
		return index
	}
	publish("one")
	publish("two")
	takeOne()
	second := takeOne()
	fillUp(t, b)
	filled := stored(t, b, schemas.StreamRestore)
	must(t, b.TrimQueue(t.Context()))
	if n := stored(t, b, schemas.StreamRestore); n != filled-2 {
		t.Errorf("%d of %d requests are left, 2 are done", n, filled)
	}
	publish("three")
	if third := takeOne(); third <= second {
		t.Errorf("index %d comes after %d", third, second)
	}
}

// Requests are removed a part at a time.
func TestTrimManyRequests(t *testing.T) {
	t.Parallel()
	b := bounded(t, Bounds{QueueBytes: 1 << 20})
	must(t, b.Publish(t.Context(), requests(0, 500), 1))
	s, err := b.js.Stream(t.Context(), schemas.StreamRestore)
	must(t, err)
	for _, end := range []uint64{0, s.CachedInfo().State.FirstSeq, s.CachedInfo().State.LastSeq} {
		must(t, trimSubject(t.Context(), s, schemas.RestoreSubject("b"), end))
	}
	first, err := s.GetMsg(t.Context(), 1, jetstream.WithGetMsgSubject(schemas.RestoreSubject("b")))
	must(t, err)
	if n := stored(t, b, schemas.StreamRestore); n != 1 || first.Sequence != s.CachedInfo().State.LastSeq {
		t.Errorf("%d requests are left, the first is %d", n, first.Sequence)
	}
}

// A full queue in which nothing more is done costs next to nothing.
func TestTrimQueueOfPausedBatches(t *testing.T) {
	t.Parallel()
	b := bounded(t, Bounds{QueueBytes: 256 << 10})
	must(t, b.Publish(t.Context(), requests(0, 100), 1))
	for _, d := range take(t, b, 10, 0) {
		must(t, d.Ack())
	}
	waitInHand(t, b, 0)
	fillUp(t, b)
	asked, purged := calls(t, b, "STREAM.MSG.GET"), calls(t, b, "STREAM.PURGE")
	must(t, b.TrimQueue(t.Context()))
	if asked() == 0 || purged() == 0 {
		t.Error("nothing is removed")
	}
	fillUp(t, b)
	must(t, b.TrimQueue(t.Context()))
	if n := asked() + purged(); n > 0 {
		t.Errorf("%d calls, and nothing was done", n)
	}
	for _, d := range take(t, b, 10, 0) {
		must(t, d.Ack())
	}
	waitInHand(t, b, 0)
	if must(t, b.TrimQueue(t.Context())); purged() == 0 {
		t.Error("nothing is removed when more is done")
	}
	must(t, b.Retire(t.Context(), "b"))
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
	if must(t, b.TrimQueue(t.Context())); asked() == 0 {
		t.Error("another batch of that name is not looked at")
	}
	must(t, b.Retire(t.Context(), "b"))
	fillUp(t, b)
	must(t, b.TrimQueue(t.Context()))
	if _, there := b.trimmed["b"]; there || len(b.trimmed) != 1 {
		t.Errorf("batches that have ended are remembered: %v", b.trimmed)
	}
}
