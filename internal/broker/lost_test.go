package broker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/schemas"
)

// wipe takes a server's data away and starts it again.
func (s *testServer) wipe() {
	s.t.Helper()
	s.kill()
	must(s.t, os.RemoveAll(filepath.Join(filepath.Dir(s.config), "js")))
	s.start()
}

// until waits for something that comes by itself.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !is() {
		if ctx.Err() != nil {
			t.Fatalf("waited for %s", what)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func deleteStream(t testing.TB, b *Broker, name string) {
	t.Helper()
	must(t, b.js.DeleteStream(t.Context(), name))
}

func TestIncarnation(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	b := connect(t, Options{URL: s.url()})
	is := func() string {
		t.Helper()
		var is string
		until(t, "the broker", func() bool {
			var err error
			is, err = b.Incarnation(t.Context())
			return err == nil
		})
		return is
	}
	must(t, b.Setup(t.Context()))
	was := is()
	if again := is(); again != was {
		t.Errorf("it changes by itself:\n%s", cmp.Diff(was, again))
	}
	s.kill()
	s.start()
	if again := is(); again != was {
		t.Errorf("it changes with a restart:\n%s", cmp.Diff(was, again))
	}
	for name, lose := range map[string]func(){
		"requests": func() { deleteStream(t, b, schemas.StreamRestore) },
		"results":  func() { deleteStream(t, b, schemas.StreamResults) },
		"batches":  func() { deleteStream(t, b, bucketStreamName(schemas.BucketBatches)) },
		"retries":  func() { deleteStream(t, b, bucketStreamName(schemas.BucketRetries)) },
		"fleet":    func() { deleteStream(t, b, bucketStreamName(schemas.BucketFleet)) },
		"collector": func() {
			must(t, b.js.DeleteConsumer(t.Context(), schemas.StreamResults, collectorConsumer))
		},
		"all": func() { s.wipe() },
	} {
		lose()
		lost := is()
		if lost == was {
			t.Errorf("%s: not noticed", name)
		}
		must(t, b.Setup(t.Context()))
		was = is()
		if was == lost {
			t.Errorf("%s: set up again, not noticed", name)
		}
	}
}

// A watch ends when its bucket is lost, however soon another takes its place.
func TestWatchOfALostBucket(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, s *testServer, b *Broker){
		"deleted": func(t *testing.T, _ *testServer, b *Broker) {
			deleteStream(t, b, bucketStreamName(schemas.BucketBatches))
		},
		"made anew": func(t *testing.T, _ *testServer, b *Broker) {
			deleteStream(t, b, bucketStreamName(schemas.BucketBatches))
			must(t, b.Setup(t.Context()))
		},
		"wiped": func(t *testing.T, s *testServer, b *Broker) {
			s.wipe()
			until(t, "the broker", func() bool { return b.Setup(t.Context()) == nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, "")
			b := connect(t, Options{URL: s.url()})
			must(t, b.Setup(t.Context()))
			for _, id := range []string{"a", "b", "c"} { // so that a new bucket is behind
				must(t, b.Activate(t.Context(), schemas.Batch{ID: id}))
			}
			shown := make(chan string, 10)
			ended := make(chan error, 1)
			watch := func(ctx context.Context) {
				ended <- b.WatchBatches(ctx, func(s schemas.Batch) { shown <- s.ID }, func(string) {})
			}
			go watch(t.Context())
			for range 3 {
				<-shown
			}
			lose(t, s, b)
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it ends without an error")
				}
			case <-time.After(time.Minute):
				t.Fatal("the watch does not end")
			}
			// Whoever watches anew sees what is there now.
			until(t, "streams", func() bool { return b.Setup(t.Context()) == nil })
			ctx, stop := context.WithCancel(t.Context())
			go watch(ctx)
			until(t, "batch d", func() bool { return b.Activate(t.Context(), schemas.Batch{ID: "d"}) == nil })
			if id := <-shown; id != "d" {
				t.Errorf("shown %s, want d", id)
			}
			stop()
			must(t, <-ended)
		})
	}
}

// What a connection remembers of streams and buckets does not outlive them.
func TestWorkOnStreamsMadeAnew(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	b := connect(t, Options{URL: s.url()})
	ctx := t.Context()
	work := func() {
		t.Helper()
		must(t, b.Activate(ctx, schemas.Batch{ID: "b", State: schemas.StateOpen}))
		must(t, b.Publish(ctx, requests(0, 3), 1))
		must(t, b.SetRetry(ctx, "b", 1, schemas.Retry{Attempts: 1}))
		if r, err := b.Retry(ctx, "b", 1); err != nil || r.Attempts != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		got := take(t, b, 10, time.Second)
		if diff := cmp.Diff([]int64{0, 1, 2}, indexes(t, got)); diff != "" {
			t.Error(diff)
		}
		must(t, b.PublishResults(ctx, schemas.ResultGroup{Batch: "b", Worker: "w", Results: []schemas.Result{{}}}))
		if results, err := b.Results(ctx, 10, time.Second); err != nil || len(results) != 1 {
			t.Errorf("%d results, %v", len(results), err)
		}
		if _, err := b.Reserve(ctx, "fleet.items", 1, 1); err != nil {
			t.Error(err)
		}
		if shown, _, err := b.Activated(ctx); err != nil || !slices.Equal(shown, []string{"b"}) {
			t.Errorf("%v, %v", shown, err)
		}
		if _, err := b.Whereabouts(ctx, "b"); err != nil {
			t.Error(err)
		}
	}
	must(t, b.Setup(ctx))
	work()
	s.wipe()
	until(t, "the broker", func() bool { return b.Setup(ctx) == nil })
	if last, err := b.LastIndex(ctx, "b"); err != nil || last != -1 {
		t.Errorf("last request of a new stream: %d, %v", last, err)
	}
	work()
}

func TestLook(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	ctx := t.Context()
	look := func(when string, wantShown, wantIdle bool) {
		t.Helper()
		// What becomes of acknowledgements is known a moment later.
		until(t, when, func() bool {
			shown, idle, err := b.Look(ctx, "b")
			must(t, err)
			return (shown != nil) == wantShown && idle == wantIdle
		})
	}
	purge := func(stream string, o ...jetstream.StreamPurgeOpt) {
		t.Helper()
		s, err := b.js.Stream(ctx, stream)
		must(t, err)
		must(t, s.Purge(ctx, o...))
	}
	batch := schemas.Batch{ID: "b", State: schemas.StateOpen}
	look("nothing is there", false, false)
	must(t, b.Activate(ctx, batch))
	look("it is shown", true, true)
	must(t, b.Publish(ctx, requests(0, 10), 1))
	look("all wait", true, false)

	held := take(t, b, 4, 0)
	purge(schemas.StreamRestore) // by hand
	look("what was in hand is lost, too, and what waits", true, true)
	for _, d := range held {
		must(t, d.Ack())
	}
	must(t, b.Republish(ctx, requests(0, 10), 1, false))
	look("they are there again", true, false)

	// Only some are lost: those in the middle, and one.
	s, err := b.js.Stream(ctx, schemas.StreamRestore)
	must(t, err)
	info, err := s.Info(ctx)
	must(t, err)
	held = take(t, b, 3, 0)
	must(t, s.DeleteMsg(ctx, info.State.FirstSeq))
	purge(schemas.StreamRestore, jetstream.WithPurgeSequence(info.State.FirstSeq+6))
	look("four wait", true, false)
	for _, d := range slices.Concat(held, take(t, b, 10, 0)) {
		must(t, d.Ack())
	}
	look("those are done", true, true)

	must(t, b.PublishResults(ctx, schemas.ResultGroup{Batch: "b", Worker: "w", Results: []schemas.Result{{}}}))
	look("a result is not recorded", true, false)
	results, err := b.Results(ctx, 1, time.Second)
	must(t, err)
	must(t, results[0].Ack())
	look("it is recorded", true, true)
	must(t, b.PublishResults(ctx, schemas.ResultGroup{Batch: "b", Worker: "w", Results: []schemas.Result{{}}}))
	purge(schemas.StreamResults)
	look("a result is lost", true, true)

	kv, err := b.bucket(ctx, schemas.BucketBatches)
	must(t, err)
	for what, lose := range map[string]func(){
		"key":      func() { must(t, kv.Purge(ctx, "b")) },
		"bucket":   func() { purge(bucketStreamName(schemas.BucketBatches)) },
		"consumer": func() { must(t, b.js.DeleteConsumer(ctx, schemas.StreamRestore, "b")) },
		"requests": func() { deleteStream(t, b, schemas.StreamRestore) },
		"batches":  func() { deleteStream(t, b, bucketStreamName(schemas.BucketBatches)) },
	} {
		lose()
		look(what+" lost", false, false)
		must(t, b.Setup(ctx))
		must(t, b.Activate(ctx, batch))
		// A new consumer brings all that is still there, done or not.
		shown, _, err := b.Look(ctx, "b")
		if diff := cmp.Diff(&batch, shown); err != nil || diff != "" {
			t.Errorf("%s there again: %v\n%s", what, err, diff)
		}
	}

	// While only the sample is worked on, the rest does not count.
	batch.Terms.Canary = &schemas.Canary{Size: 1}
	must(t, b.Retire(ctx, "b"))
	must(t, b.Activate(ctx, batch))
	must(t, b.Republish(ctx, requests(2, 3), 1, false))
	look("nothing of the sample waits", true, true)
	if settled, err := b.Settled(ctx, "b"); err != nil || settled {
		t.Errorf("settled %v, %v", settled, err)
	}
	must(t, b.Republish(ctx, requests(0, 1), 1, true))
	look("the sample waits", true, false)
}

// What was published a moment ago and is lost can be published again at once.
func TestRepublish(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 30)
	ctx := t.Context()
	must(t, b.Republish(ctx, nil, 4, false))
	s, err := b.js.Stream(ctx, schemas.StreamRestore)
	must(t, err)
	must(t, s.Purge(ctx))
	lost := slices.Concat(requests(3, 5), requests(10, 20))
	must(t, b.Republish(ctx, lost, 4, false))
	must(t, b.Republish(ctx, requests(7, 9), 4, true))
	got := take(t, b, 30, 0)
	if diff := cmp.Diff([]int64{3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 7, 8}, indexes(t, got)); diff != "" {
		t.Error(diff)
	}
	if len(got) != 6 {
		t.Errorf("%d messages, want 6: up to 4 requests in each, 1 of the sample", len(got))
	}
	if last, err := b.LastCanary(ctx, "b"); err != nil || last != 8 {
		t.Errorf("last of the sample: %d, %v", last, err)
	}
}

// Collectors that start together on an empty broker make its streams together.
func TestSetupTogether(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	var all []*Broker
	for range 4 {
		all = append(all, connect(t, Options{URL: s.url()}))
	}
	for range 3 {
		var g errgroup.Group
		for _, b := range all {
			g.Go(func() error { return b.Setup(t.Context()) })
		}
		must(t, g.Wait())
		for _, want := range all[0].streams() {
			deleteStream(t, all[0], want.Name)
		}
	}
}
