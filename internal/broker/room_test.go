package broker

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// bounded is an embedded broker that keeps little, with the batch "b".
func bounded(t testing.TB, bounds Bounds) *Broker {
	t.Helper()
	b, err := Embed(t.TempDir(), Within(bounds))
	must(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, b.Setup(t.Context()))
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
	return b
}

// A queue takes what it has room for, also of a run of messages that is longer
// than itself, and says of the rest why not.
func TestPublishIntoFullQueue(t *testing.T) {
	t.Parallel()
	const bound = 256 << 10
	b := bounded(t, Bounds{QueueBytes: bound})
	all := requests(0, 3000)
	err := b.Publish(t.Context(), all, 1)
	if !fault.Is(err, schemas.CodeBrokerFull) || !strings.Contains(err.Error(), "the queue is full (2") || !strings.Contains(err.Error(), "of 256 KiB, EXHUME_QUEUE_BYTES)") {
		t.Fatalf("got error %v", err)
	}
	last, err := b.LastIndex(t.Context(), "b")
	must(t, err)
	u, err := b.Usage(t.Context(), schemas.StreamRestore)
	must(t, err)
	if n := stored(t, b, schemas.StreamRestore); n != uint64(last+1) || u.Bytes < bound/2 || u.Bytes > bound-bound/reserve {
		t.Errorf("%d messages up to item %d, %+v", n, last, u)
	}
	// What is left free is for these.
	must(t, b.PublishSingle(t.Context(), "one", schemas.SingleRequest{Tombstone: "t", Output: "o"}))
	again := []schemas.RequestGroup{schemas.NewRequestGroup(all[:1])}
	for err = nil; err == nil; {
		err = b.Requeue(t.Context(), again)
	}
	single := b.PublishSingle(t.Context(), "two", schemas.SingleRequest{Tombstone: strings.Repeat("t", 1000), Output: "o"})
	for _, err := range []error{err, single} {
		if !fault.Is(err, schemas.CodeBrokerFull) || !strings.Contains(err.Error(), "EXHUME_QUEUE_BYTES") {
			t.Errorf("got error %v", err)
		}
	}
	if u, err = b.Usage(t.Context(), schemas.StreamRestore); err != nil || u.Bytes > bound {
		t.Errorf("%+v, %v", u, err)
	}
	must(t, b.Retire(t.Context(), "b"))
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b2"}))
	must(t, b.PublishSingle(t.Context(), "two", schemas.SingleRequest{Tombstone: "t", Output: "o"}))
}

// What the server has no room for is not stored, says so, and is stored when there
// is room again.
func TestPublishIntoFullStore(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"server":  "jetstream { store_dir: %q, max_file_store: 4MB }",
		"account": "jetstream { store_dir: %q, max_file_store: 1GB }\naccounts { A: { jetstream: { max_file: 4MB, max_mem: 1MB, max_streams: 20, max_consumers: 20 }, users: [ { user: a, password: a } ] } }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, fmt.Sprintf(text, filepath.Join(t.TempDir(), "js")))
			o := Options{URL: s.url(), Bounds: Bounds{QueueBytes: 1 << 20, ResultsBytes: 1 << 20, RetriesBytes: 1 << 20}}
			if name == "account" {
				o.User, o.Password = "a", "a"
			}
			b := connect(t, o)
			must(t, b.Setup(t.Context()))
			must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
			other, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}, Storage: jetstream.FileStorage})
			must(t, err)
			for err == nil {
				_, err = b.js.Publish(t.Context(), "other", make([]byte, 500<<10))
			}
			for err = nil; err == nil; { // to the last byte
				_, err = b.js.Publish(t.Context(), "other", make([]byte, 100))
			}
			publish := map[string]func() error{
				"requests": func() error { return b.Publish(t.Context(), requests(0, 10), 1) },
				"results": func() error {
					return b.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: "w", Results: make([]schemas.Result, 3)})
				},
				"single": func() error { return b.PublishSingle(t.Context(), "one", schemas.SingleRequest{Tombstone: "t"}) },
				"requeue": func() error {
					return b.Requeue(t.Context(), []schemas.RequestGroup{schemas.NewRequestGroup(requests(0, 1))})
				},
			}
			for what, publish := range publish {
				if err := publish(); !fault.Is(err, schemas.CodeBrokerFull) || !strings.Contains(err.Error(), "the broker's store is full") {
					t.Errorf("%s: got error %v", what, err)
				}
			}
			must(t, other.Purge(t.Context()))
			for what, publish := range publish {
				if err := publish(); err != nil {
					t.Errorf("%s, with room again: %v", what, err)
				}
			}
			if n := stored(t, b, schemas.StreamRestore); n != 12 {
				t.Errorf("%d requests are stored, want 12", n)
			}
		})
	}
}

// A stream of results that nobody records refuses more and drops nothing; recorded
// ones make room.
func TestResultsAreNotDropped(t *testing.T) {
	t.Parallel()
	b := bounded(t, Bounds{ResultsBytes: 256 << 10})
	publish := func(i int64) error {
		g := schemas.ResultGroup{Batch: "b", Worker: "w", Results: []schemas.Result{{Detail: strings.Repeat("x", 2000)}}}
		g.Results[0].Index = i
		return b.PublishResults(t.Context(), g)
	}
	var err error
	n := int64(0)
	for ; err == nil && n < 1000; n++ {
		err = publish(n)
	}
	if !fault.Is(err, schemas.CodeBrokerFull) || !strings.Contains(err.Error(), "256 KiB, EXHUME_RESULTS_BYTES), and no collector has recorded them") {
		t.Fatalf("got error %v", err)
	}
	full := stored(t, b, schemas.StreamResults)
	must(t, b.TrimResults(t.Context()))
	if left := stored(t, b, schemas.StreamResults); left != full || full != uint64(n-1) {
		t.Fatalf("%d of %d results are left, and nobody has recorded any", left, full)
	}
	record(t, b, 10)
	must(t, b.TrimResults(t.Context()))
	if left := stored(t, b, schemas.StreamResults); left != full-10 {
		t.Errorf("%d of %d are left, 10 were recorded", left, full)
	}
	record(t, b, int(full)-10)
	must(t, b.TrimResults(t.Context()))
	if u, err := b.Usage(t.Context(), schemas.StreamResults); err != nil || u.Bytes > u.Bound/2+4<<10 || u.Bytes < u.Bound/2-4<<10 {
		t.Errorf("%+v, %v; want half of it", u, err)
	}
	must(t, publish(n))
	before := stored(t, b, schemas.StreamResults)
	must(t, b.TrimResults(t.Context()))
	if after := stored(t, b, schemas.StreamResults); after != before {
		t.Errorf("%d of %d are left, and there is room", after, before)
	}
}

// record takes n messages of results and acknowledges them.
func record(t *testing.T, b *Broker, n int) {
	t.Helper()
	for n > 0 {
		got, err := b.Results(t.Context(), n, time.Minute)
		must(t, err)
		n -= len(got)
		for _, d := range got {
			must(t, d.msg.AckSync(nats.Context(t.Context())))
		}
	}
}

// Results that are old go when they are recorded, and not before.
func TestOldResultsGo(t *testing.T) {
	t.Parallel()
	b := bounded(t, Bounds{})
	g := schemas.ResultGroup{Batch: "b", Worker: "w", Results: make([]schemas.Result, 1)}
	for range 10 {
		must(t, b.PublishResults(t.Context(), g))
	}
	stream, err := b.js.Stream(t.Context(), schemas.StreamResults)
	must(t, err)
	fifth, err := stream.GetMsg(t.Context(), stream.CachedInfo().State.FirstSeq+4)
	must(t, err)
	b.opts.ResultsAge = 0
	made := calls(t, b, "CONSUMER.CREATE."+schemas.StreamResults)
	must(t, b.trimResults(t.Context(), fifth.Time))
	if n := made(); n > 0 || stored(t, b, schemas.StreamResults) != 10 {
		t.Errorf("%d consumers were made, and nothing may go", n)
	}
	for _, c := range []struct{ recorded, left int }{{2, 8}, {6, 6}, {2, 6}} {
		record(t, b, c.recorded)
		// A little is left until much of it may go together.
		b.opts.ResultsAge = 100 * time.Hour
		must(t, b.trimResults(t.Context(), fifth.Time.Add(30*time.Minute)))
		b.opts.ResultsAge = 0
		must(t, b.trimResults(t.Context(), fifth.Time))
		if left := stored(t, b, schemas.StreamResults); left != uint64(c.left) {
			t.Errorf("%d results are left, want %d", left, c.left)
		}
	}
	must(t, b.trimResults(t.Context(), time.Now()))
	if left := stored(t, b, schemas.StreamResults); left != 0 {
		t.Errorf("%d results are left", left)
	}
	if n := made(); n == 0 {
		t.Error("consumers are not counted")
	}
	must(t, b.trimResults(t.Context(), time.Now()))
	if names := stream.ConsumerNames(t.Context()); true {
		for name := range names.Name() {
			if name != collectorConsumer {
				t.Errorf("consumer %s is left", name)
			}
		}
	}
}

// calls begins to count the calls of the server's API whose subjects begin so.
func calls(t *testing.T, b *Broker, subject string) func() (n int) {
	t.Helper()
	sub, err := b.nc.SubscribeSync("$JS.API." + subject + ".>")
	must(t, err)
	t.Cleanup(func() { must(t, sub.Unsubscribe()) })
	must(t, b.nc.Flush())
	before := 0
	return func() int {
		t.Helper()
		must(t, b.nc.Flush())
		all, _, err := sub.Pending()
		must(t, err)
		n := all - before
		before = all
		return n
	}
}

// Results that are not recorded stay, also when their stream takes the place of one
// that was lost while it was looked which may go.
func TestResultsOfANewStream(t *testing.T) {
	t.Parallel()
	b := bounded(t, Bounds{})
	g := schemas.ResultGroup{Batch: "b", Worker: "w", Results: make([]schemas.Result, 1)}
	for range 10 {
		must(t, b.PublishResults(t.Context(), g))
	}
	record(t, b, 10)
	old, err := b.js.Consumer(t.Context(), schemas.StreamResults, collectorConsumer)
	must(t, err)
	deleteStream(t, b, schemas.StreamResults)
	must(t, b.Setup(t.Context()))
	for range 10 {
		must(t, b.PublishResults(t.Context(), g))
	}
	stream, err := b.js.Stream(t.Context(), schemas.StreamResults)
	must(t, err)
	must(t, stream.Purge(t.Context(), jetstream.WithPurgeSequence(old.CachedInfo().AckFloor.Stream+1)))
	if n := stored(t, b, schemas.StreamResults); n != 10 {
		t.Fatalf("%d of 10 results are left", n)
	}
	record(t, b, 10)
}

// Results that nobody records wait on disk, not in memory. It runs alone, because it
// weighs the process.
func TestUnrecordedResultsTakeNoMemory(t *testing.T) {
	b := bounded(t, Bounds{})
	g := schemas.ResultGroup{Batch: "b", Worker: "w", Results: make([]schemas.Result, 100)}
	for i := range g.Results {
		g.Results[i].Detail = strings.Repeat("x", 4000)
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const rounds, most = 200, 32 << 20 // some 80 MB
	must(t, b.PublishResults(t.Context(), g))
	before := heap()
	for i := range rounds {
		must(t, b.PublishResults(t.Context(), g))
		if i%20 == 19 {
			if more := heap() - before; more > most {
				t.Fatalf("%d MiB more in memory after %d messages", more>>20, i+1)
			}
		}
	}
	if u, err := b.Usage(t.Context(), schemas.StreamResults); err != nil || u.Bytes < 2*most {
		t.Errorf("%+v, %v", u, err)
	}
}
