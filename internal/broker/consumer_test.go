package broker

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/schemas"
)

const canaryTotal, canarySize = 1000, 20

// inCanary is the batch "b", of which only a sample is worked on.
func inCanary() schemas.Batch {
	return schemas.Batch{ID: "b", State: schemas.StateOpen, Terms: schemas.Terms{Canary: &schemas.Canary{Size: canarySize}}}
}

// afterCanary is the same batch when its sample has passed.
func afterCanary() schemas.Batch {
	b := inCanary()
	b.Terms.Canary.Passed = true
	return b
}

func sample(b schemas.Batch) (out []schemas.Request) {
	for _, r := range requests(0, canaryTotal) {
		if b.Terms.Canary.Has(r.Index, canaryTotal) {
			out = append(out, r)
		}
	}
	return out
}

func rest(b schemas.Batch) (out []schemas.Request) {
	for _, r := range requests(0, canaryTotal) {
		if !b.Terms.Canary.Has(r.Index, canaryTotal) {
			out = append(out, r)
		}
	}
	return out
}

// indexesOf are the indexes of requests.
func indexesOf(all []schemas.Request) (out []int64) {
	for _, r := range all {
		out = append(out, r.Index)
	}
	return out
}

// work takes and acknowledges all that comes, and gives the indexes in order.
func work(t testing.TB, b *Broker) (done []int64) {
	t.Helper()
	for {
		got := take(t, b, 100, 0)
		if len(got) == 0 {
			slices.Sort(done)
			return done
		}
		done = append(done, indexes(t, got)...)
		for _, d := range got {
			must(t, d.Ack())
		}
	}
}

// wantWork expects the items that the requests are for, each once.
func wantWork(t testing.TB, what string, b *Broker, want []schemas.Request) {
	t.Helper()
	if diff := cmp.Diff(indexesOf(want), work(t, b)); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
	}
}

func requeue(t testing.TB, b *Broker, indexes ...int64) {
	t.Helper()
	for _, i := range indexes {
		must(t, b.Requeue(t.Context(), []schemas.RequestGroup{schemas.NewRequestGroup(requests(i, i+1))}))
	}
}

// At first only the sample comes, with what of it is tried again; when it has
// passed the rest comes, each item once.
func TestCanary(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	for range 2 {
		must(t, b.Activate(t.Context(), inCanary()))
	}
	must(t, b.PublishCanary(t.Context(), sample(inCanary())))
	must(t, b.Publish(t.Context(), rest(inCanary())[:500], 1))
	requeue(t, b, sample(inCanary())[0].Index)
	must(t, b.Publish(t.Context(), rest(inCanary())[500:], 1))
	wantWork(t, "the sample", b, append(sample(inCanary())[:1:1], sample(inCanary())...))

	must(t, b.Activate(t.Context(), afterCanary()))
	must(t, b.Activate(t.Context(), afterCanary()))
	first := take(t, b, 100, 0)
	requeue(t, b, 7)
	for _, shown := range []schemas.Batch{afterCanary(), inCanary(), afterCanary()} { // also by one who comes late
		must(t, b.Activate(t.Context(), shown)) // touches nothing that is in hand, or to be tried again
	}
	for _, d := range first {
		must(t, d.Ack())
	}
	done := append(indexes(t, first), work(t, b)...)
	slices.Sort(done)
	want := append(indexesOf(rest(inCanary())), 7)
	slices.Sort(want)
	if diff := cmp.Diff(want, done); diff != "" {
		t.Error(diff)
	}
}

// A sample passes while the producer is still publishing the rest.
func TestCanaryPassesWhileTheRestIsPublished(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	must(t, b.Activate(t.Context(), inCanary()))
	must(t, b.PublishCanary(t.Context(), sample(inCanary())))
	held := take(t, b, 100, 0)
	some, published := make(chan struct{}), make(chan error, 1)
	go func() {
		all, err := rest(inCanary()), error(nil)
		for i := 0; i < len(all) && err == nil; i += 10 {
			if i == 200 {
				close(some)
			}
			err = b.Publish(t.Context(), all[i:i+10], 3)
		}
		published <- err
	}()
	<-some
	must(t, b.Activate(t.Context(), afterCanary()))
	for _, d := range held {
		must(t, d.Ack()) // late, to the consumer that is gone
	}
	done := work(t, b)
	must(t, <-published)
	done = append(done, work(t, b)...)
	slices.Sort(done)
	if diff := cmp.Diff(indexesOf(rest(inCanary())), done); diff != "" {
		t.Error(diff)
	}
}

// A collector dies between the consumers. The next one goes on, whatever is
// published by then.
func TestCanaryPassesAgainAfterACrash(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"nothing of the rest is there": 0, "some": 500, "all": canaryTotal - canarySize} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := embed(t, t.TempDir())
			must(t, b.Activate(t.Context(), inCanary()))
			must(t, b.PublishCanary(t.Context(), sample(inCanary())))
			must(t, b.Publish(t.Context(), rest(inCanary())[:before], 1))
			wantWork(t, "the sample", b, sample(inCanary()))
			must(t, b.js.DeleteConsumer(t.Context(), schemas.StreamRestore, "b"))
			must(t, b.Activate(t.Context(), afterCanary()))
			must(t, b.Publish(t.Context(), rest(inCanary())[before:], 1))
			wantWork(t, "the rest", b, rest(inCanary()))
		})
	}
}

// A batch with a sample is passed before anything of it is published.
func TestCanaryPassesBeforeItIsPublished(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	must(t, b.Activate(t.Context(), inCanary()))
	must(t, b.Activate(t.Context(), afterCanary()))
	must(t, b.PublishCanary(t.Context(), sample(inCanary())))
	wantWork(t, "the sample", b, sample(inCanary()))
}

// A second producer publishes the sample once more, long after the first one.
// Nothing of the rest is lost for that.
func TestCanaryThatIsPublishedTwice(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	must(t, b.Activate(t.Context(), inCanary()))
	must(t, b.PublishCanary(t.Context(), sample(inCanary())))
	must(t, b.Publish(t.Context(), rest(inCanary()), 1))
	wantWork(t, "the sample", b, sample(inCanary()))
	var late []*nats.Msg // without ids, as if the server had forgotten them
	for _, r := range sample(inCanary()) {
		var err error
		late, err = b.encode(late, schemas.CanarySubject("b"), schemas.NewRequestGroup([]schemas.Request{r}))
		must(t, err)
	}
	must(t, b.publish(t.Context(), late))
	must(t, b.Activate(t.Context(), afterCanary()))
	wantWork(t, "all", b, requests(0, canaryTotal))
}

// What is still open of a batch that is cancelled comes, although its sample has
// not passed.
func TestCancelledCanary(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	batch := inCanary()
	must(t, b.Activate(t.Context(), batch))
	must(t, b.PublishCanary(t.Context(), sample(batch)))
	must(t, b.Publish(t.Context(), rest(batch), 1))
	requeue(t, b, 24)
	held := take(t, b, 1, 0)
	batch.State, batch.Reason = schemas.StateRunning, schemas.ReasonCancelling
	must(t, b.Activate(t.Context(), batch))
	first := indexes(t, held)[0]
	if got := work(t, b); slices.Contains(got, first) {
		t.Errorf("item %d is in hand, and comes again: %v", first, got)
	}
	must(t, held[0].Ack())
	for all := false; !all; {
		must(t, b.Activate(t.Context(), batch))
		c, err := b.consumerOf(t.Context(), "b")
		must(t, err)
		all = len(c.Config.FilterSubjects) == 0
	}
	if diff := cmp.Diff(indexesTo(canaryTotal), slices.Compact(work(t, b))); diff != "" {
		t.Error(diff)
	}
}

// Other terms change the consumer in its place: what is in hand stays so.
func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	batch := schemas.Batch{ID: "b", State: schemas.StateOpen}
	must(t, b.Activate(t.Context(), batch))
	must(t, b.Publish(t.Context(), requests(0, 100), 1))
	var created string
	var held []*Delivery
	for _, c := range []struct {
		maxInFlight, perMessage int64
		want                    int
	}{
		{0, 0, maxAckPending}, {5, 0, 5}, {6, 1, 6}, {100, 8, 12}, {3, 64, 1}, {1 << 40, 1, maxAckPending}, {8, 1, 8},
	} {
		batch.Terms.MaxInFlight, batch.PerMessage = c.maxInFlight, c.perMessage
		must(t, b.Activate(t.Context(), batch))
		info, err := b.consumerOf(t.Context(), "b")
		must(t, err)
		if info.Config.MaxAckPending != c.want {
			t.Errorf("%d items in flight, %d a message: %d messages, want %d", c.maxInFlight, c.perMessage, info.Config.MaxAckPending, c.want)
		}
		if created == "" {
			created, held = info.Created.String(), take(t, b, 3, 0)
		}
		if got := info.Created.String(); got != created {
			t.Errorf("the consumer was made anew at %s", got)
		}
	}
	if more := take(t, b, 100, 0); len(held) != 3 || len(more) != 5 || more[0].Redelivered() {
		t.Errorf("%d messages beside the %d in hand, want 5 new ones", len(more), len(held))
	}
	batch.State = schemas.StatePaused
	must(t, b.Activate(t.Context(), batch))
	batch.Terms.MaxInFlight = 0
	must(t, b.Activate(t.Context(), batch))
	if more := take(t, b, 100, 0); len(more) != 92 || more[0].Redelivered() {
		t.Errorf("%d more messages, want 92 new ones", len(more))
	}
}

func TestActivateRefusesWhatHasEnded(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	err := b.Activate(t.Context(), schemas.Batch{ID: "b", State: schemas.StateAborted})
	if err == nil || !strings.Contains(err.Error(), "batch b has ended (aborted)") {
		t.Errorf("got error %v", err)
	}
	if shown, others, err := b.Activated(t.Context()); err != nil || len(shown)+len(others) > 0 {
		t.Errorf("got %v, %v, %v", shown, others, err)
	}
}

// Collectors show a batch at the same time, some of them as it was a moment ago.
func TestActivateTogether(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{})
	must(t, b.Activate(t.Context(), inCanary()))
	must(t, b.PublishCanary(t.Context(), sample(inCanary())))
	must(t, b.Publish(t.Context(), rest(inCanary()), 1))
	wantWork(t, "the sample", b, sample(inCanary()))
	var all sync.WaitGroup
	for i := range 4 {
		one := connect(t, Options{URL: b.Address()})
		shown := []schemas.Batch{inCanary(), afterCanary()}[i%2]
		all.Go(func() {
			for range 20 {
				if err := one.Activate(t.Context(), shown); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	must(t, b.Activate(t.Context(), afterCanary()))
	wantWork(t, "the rest", b, rest(inCanary()))
}

// The phases of a batch with a sample, in a cluster.
func TestCanaryInACluster(t *testing.T) {
	t.Parallel()
	b := connectToCluster(t, startCluster(t))
	retry(t, func() error { return b.Activate(t.Context(), inCanary()) })
	must(t, b.PublishCanary(t.Context(), sample(inCanary())))
	must(t, b.Publish(t.Context(), rest(inCanary()), 1))
	worked := func(n int) (done []int64) {
		t.Helper()
		for len(done) < n {
			got, err := b.Requests(t.Context(), "b", 100, 0)
			if err != nil {
				t.Log("meanwhile:", err)
			}
			done = append(done, indexes(t, got)...)
			for _, d := range got {
				must(t, d.Ack())
			}
		}
		slices.Sort(done)
		return done
	}
	if diff := cmp.Diff(indexesOf(sample(inCanary())), worked(canarySize)); diff != "" {
		t.Error(diff)
	}
	requeue(t, b, sample(inCanary())[3].Index)
	worked(1)
	for range 2 {
		retry(t, func() error { return b.Activate(t.Context(), afterCanary()) })
	}
	if diff := cmp.Diff(indexesOf(rest(inCanary())), worked(canaryTotal-canarySize)); diff != "" {
		t.Error(diff)
	}
	if info, err := b.consumerOf(t.Context(), "b"); err != nil || info.NumPending != 0 {
		t.Errorf("more is to come: %+v, %v", info, err)
	}
}
