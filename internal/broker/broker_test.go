package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(serverConfig); config != "" {
		runServer(config)
		return
	}
	goleak.VerifyTestMain(m)
}

func embed(t testing.TB, dir string) *Broker {
	t.Helper()
	b, err := Embed(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// withBatch gives a broker that has the batch "b" with n requests.
func withBatch(t testing.TB, dir string, n int64) *Broker {
	t.Helper()
	b := embed(t, dir)
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b", State: schemas.StateOpen}))
	must(t, b.Publish(t.Context(), requests(0, n), 1))
	return b
}

func requests(from, to int64) []schemas.Request {
	var out []schemas.Request
	for i := from; i < to; i++ {
		out = append(out, schemas.Request{Batch: "b", Index: i, Tombstone: "t", Output: fmt.Sprintf("out/%d", i)})
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func indexes(t testing.TB, got []*Delivery) []int64 {
	t.Helper()
	out := []int64{}
	for _, d := range got {
		first, last, ok := d.Indexes()
		if !ok {
			t.Fatal("a request without an index")
		}
		for i := first; i <= last; i++ {
			out = append(out, i)
		}
	}
	return out
}

func take(t testing.TB, b *Broker, n int, wait time.Duration) []*Delivery {
	t.Helper()
	got, err := b.Requests(t.Context(), "b", n, wait)
	must(t, err)
	return got
}

func stored(t testing.TB, b *Broker, stream string) uint64 {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	must(t, err)
	info, err := s.Info(t.Context())
	must(t, err)
	return info.State.Msgs
}

func TestPublish(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	last := func() int64 {
		t.Helper()
		n, err := b.LastIndex(t.Context(), "b")
		must(t, err)
		return n
	}
	if last() != -1 {
		t.Errorf("LastIndex of nothing is %d, want -1", last())
	}
	must(t, b.Publish(t.Context(), nil, 1))
	must(t, b.Publish(t.Context(), requests(0, 1500), 1))
	must(t, b.Publish(t.Context(), requests(0, 1500), 1)) // a repetition
	if n := stored(t, b, schemas.StreamRestore); n != 1500 || last() != 1499 {
		t.Errorf("stored %d, last %d; want 1500, 1499", n, last())
	}
	must(t, b.Publish(t.Context(), requests(1500, 1501), 1))
	if last() != 1500 {
		t.Errorf("last %d, want 1500", last())
	}
}

func TestPublishSeveralInOneMessage(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 0)
	for range 2 {
		must(t, b.Publish(t.Context(), requests(0, 250), 100))
		must(t, b.Publish(t.Context(), requests(250, 251), 1<<30))
	}
	got := take(t, b, 100, 0)
	var sizes []int
	next := int64(0)
	for _, d := range got {
		var g schemas.RequestGroup
		must(t, json.Unmarshal(d.Data(), &g))
		if g.Batch != "b" || g.First != next || g.Request(0).Output != fmt.Sprintf("out/%d", next) {
			t.Errorf("got %+v", g)
		}
		sizes, next = append(sizes, len(g.Items)), next+int64(len(g.Items))
	}
	if diff := cmp.Diff([]int{100, 100, 50, 1}, sizes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(251, len(indexes(t, got))); diff != "" {
		t.Error(diff)
	}
	last, err := b.LastIndex(t.Context(), "b")
	if err != nil || last != 250 {
		t.Errorf("last %d, %v", last, err)
	}
}

// Requests whose indexes have gaps are published as they are, in their order, and
// the sample apart from the others.
func TestPublishWithGaps(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 0)
	var some []schemas.Request
	want := []int64{}
	for i, r := range requests(0, 60) {
		if i%20 == 5 || i == 41 || i == 42 {
			continue
		}
		some, want = append(some, r), append(want, r.Index)
	}
	for range 2 {
		must(t, b.Publish(t.Context(), some, 10))
	}
	got := take(t, b, 100, 0)
	var firsts []int64
	for _, d := range got {
		var g schemas.RequestGroup
		must(t, json.Unmarshal(d.Data(), &g))
		for i := range g.Items {
			if r := g.Request(i); r.Output != fmt.Sprintf("out/%d", r.Index) {
				t.Errorf("item %d has output %s", r.Index, r.Output)
			}
		}
		firsts = append(firsts, g.First)
	}
	if diff := cmp.Diff(want, indexes(t, got)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int64{0, 6, 16, 26, 36, 43, 46, 56}, firsts); diff != "" {
		t.Error(diff)
	}

	if last, err := b.LastCanary(t.Context(), "b"); err != nil || last != -1 {
		t.Errorf("last of no sample: %d, %v", last, err)
	}
	must(t, b.PublishCanary(t.Context(), nil))
	for range 2 {
		must(t, b.PublishCanary(t.Context(), requests(0, 60))) // with the same ends
	}
	got = take(t, b, 100, 0)
	if diff := cmp.Diff(indexesTo(60), indexes(t, got)); diff != "" || len(got) != 60 {
		t.Errorf("%d messages\n%s", len(got), diff)
	}
	last, err := b.LastCanary(t.Context(), "b")
	must(t, err)
	if others, err := b.LastIndex(t.Context(), "b"); err != nil || last != 59 || others != 59 {
		t.Errorf("last %d and %d, %v", last, others, err)
	}
}

// indexesTo are the indexes below n.
func indexesTo(n int64) []int64 {
	out := []int64{}
	for i := range n {
		out = append(out, i)
	}
	return out
}

// Requests that are published again come to the batch's workers, and do not
// look as if the producer had published them.
func TestRequeue(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 10)
	must(t, b.Requeue(t.Context(), nil))
	var again []schemas.RequestGroup
	for _, i := range []int64{3, 5} {
		again = append(again, schemas.NewRequestGroup(requests(i, i+1)))
	}
	must(t, b.Requeue(t.Context(), again))
	if last, err := b.LastIndex(t.Context(), "b"); err != nil || last != 9 {
		t.Errorf("last %d, %v", last, err)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 5}, indexes(t, take(t, b, 100, 0))); diff != "" {
		t.Error(diff)
	}
	must(t, b.Retire(t.Context(), "b"))
	if n := stored(t, b, schemas.StreamRestore); n != 0 {
		t.Errorf("%d requests are left", n)
	}
}

// What the server takes for a repetition although it is not there any more must
// not pass for stored.
func TestPublishAgainAfterRetirement(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 10)
	must(t, b.Retire(t.Context(), "b"))
	err := b.Publish(t.Context(), requests(0, 10), 1)
	if err == nil || !strings.Contains(err.Error(), "try again in 2m") {
		t.Fatalf("got error %v", err)
	}
}

func TestPublishLarge(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
	large := requests(0, 60)
	for i := range large {
		large[i].Labels = map[string]string{"note": strings.Repeat("x", 1<<20)}
	}
	must(t, b.Publish(t.Context(), large, 1))
	var got []int64
	for len(got) < len(large) {
		d := take(t, b, 512, 0)
		size := 0
		for _, m := range d {
			size += len(m.Data())
			must(t, m.Ack())
		}
		if size == 0 || size > pullBytes {
			t.Fatalf("one pull brought %d bytes", size)
		}
		got = append(got, indexes(t, d)...)
	}
	if len(got) != len(large) || got[59] != 59 {
		t.Errorf("got %v", got)
	}

	large[7].Labels["note"] = strings.Repeat("x", b.maxRequest())
	err := b.Publish(t.Context(), large[5:], 1)
	if err == nil || !strings.Contains(err.Error(), "item 7 of batch b: the request has") {
		t.Errorf("got error %v", err)
	}
}

func TestResultsOfLargeRequestsFit(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	g := schemas.ResultGroup{Batch: "b", Worker: "w", Results: make([]schemas.Result, 3)}
	for i := range g.Results {
		g.Results[i].Output = strings.Repeat("x", b.maxRequest())
		g.Results[i].Target, g.Results[i].Detail = "/root/"+g.Results[i].Output, strings.Repeat("y", 2048)
	}
	must(t, b.PublishResults(t.Context(), g))
	if n := stored(t, b, schemas.StreamResults); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
	// Failed attempts stand behind the results as if all were one list.
	for _, r := range g.Results[1:] {
		g.Failures = append(g.Failures, schemas.Failure{Output: r.Output, Attempt: schemas.Attempt{Detail: r.Detail}})
	}
	g.Results = g.Results[:1]
	must(t, b.PublishResults(t.Context(), g))
	g.Results = nil
	must(t, b.PublishResults(t.Context(), g))
	results, failures := 0, 0
	for _, d := range takeResults(t, b, 8) {
		var g schemas.ResultGroup
		must(t, json.Unmarshal(d.Data(), &g))
		results, failures = results+len(g.Results), failures+len(g.Failures)
	}
	if results != 4 || failures != 4 {
		t.Errorf("%d results and %d failures", results, failures)
	}
}

// takeResults takes n messages of results.
func takeResults(t *testing.T, b *Broker, n int) (all []*Delivery) {
	t.Helper()
	for len(all) < n {
		got, err := b.Results(t.Context(), n-len(all), time.Minute)
		must(t, err)
		all = append(all, got...)
	}
	return all
}

func TestTake(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 10)
	first := take(t, b, 4, 0)
	if diff := cmp.Diff([]int64{0, 1, 2, 3}, indexes(t, first)); diff != "" {
		t.Error(diff)
	}
	if first[0].Redelivered() || first[0].Deliveries() != 1 || time.Since(first[0].PublishedAt()).Abs() > time.Minute {
		t.Errorf("redelivered %v, published %v", first[0].Redelivered(), first[0].PublishedAt())
	}
	must(t, first[1].Nak(0))
	rest := take(t, b, 100, time.Minute) // there is something, so nothing to wait for
	for len(rest) < 7 {
		rest = append(rest, take(t, b, 100, time.Minute)...) // what was given back may come a little later
	}
	again := slices.DeleteFunc(slices.Clone(rest), func(d *Delivery) bool { return !d.Redelivered() })
	if diff := cmp.Diff([]int64{1}, indexes(t, again)); diff != "" || again[0].Deliveries() != 2 {
		t.Error(diff)
	}
	got := indexes(t, rest)
	slices.Sort(got)
	if diff := cmp.Diff([]int64{1, 4, 5, 6, 7, 8, 9}, got); diff != "" {
		t.Error(diff)
	}
	if none := take(t, b, 100, 10*time.Millisecond); len(none) != 0 {
		t.Errorf("got %v", indexes(t, none))
	}
}

// A message that the server had sent when the context ended is returned, not
// dropped with its lease running.
func TestTakeDropsNothingWhenCancelled(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 0)
	const n = 300
	seen := map[int64]bool{}
	for i := range int64(n) {
		ctx, cancel := context.WithCancel(t.Context())
		published := make(chan error, 1)
		go func() {
			err := b.Publish(context.WithoutCancel(ctx), requests(i, i+1), 1)
			cancel()
			published <- err
		}()
		got, err := b.Requests(ctx, "b", 5, time.Minute)
		must(t, err)
		must(t, <-published)
		for _, d := range got {
			seen[indexes(t, []*Delivery{d})[0]] = true
			must(t, d.Ack())
		}
	}
	for _, d := range take(t, b, n, 100*time.Millisecond) {
		if d.Redelivered() {
			t.Error("a message was taken and dropped")
		}
		seen[indexes(t, []*Delivery{d})[0]] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d messages were seen, the others wait for the end of their lease", len(seen), n)
	}
}

func TestTakeFromConsumerThatGoes(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 0)
	failed := make(chan error, 1)
	go func() {
		_, err := b.Requests(t.Context(), "b", 5, time.Minute)
		failed <- err
	}()
	s, err := b.js.Stream(t.Context(), schemas.StreamRestore)
	must(t, err)
	for { // until the pull waits at the server
		c, err := s.Consumer(t.Context(), "b")
		must(t, err)
		if c.CachedInfo().NumWaiting == 1 {
			break
		}
	}
	must(t, b.Retire(t.Context(), "b"))
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "Consumer Deleted") {
		t.Errorf("got error %v", err)
	}
	if _, err := b.Requests(t.Context(), "b", 5, time.Minute); err == nil || !strings.Contains(err.Error(), "no such consumer") {
		t.Errorf("got error %v", err)
	}
}

// All messages that may be in hand are: a pull that does not wait ends soon all the same.
func TestTakeWhenTooManyAreInHand(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 10)
	_, err := b.js.UpdateConsumer(t.Context(), schemas.StreamRestore, jetstream.ConsumerConfig{
		Durable: "b", FilterSubject: schemas.RestoreSubjects("b"), AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: ackWait, MaxDeliver: -1, MaxAckPending: 3,
	})
	must(t, err)
	got := take(t, b, 2, 0)
	got = append(got, take(t, b, 1, 0)...)
	start := time.Now()
	if more, err := b.Requests(t.Context(), "b", 5, 50*time.Millisecond); len(more) > 0 || err != nil {
		t.Errorf("got %v, %v", more, err)
	}
	if d := time.Since(start); d > 5*pullGrace {
		t.Errorf("took %s", d)
	}
	must(t, got[0].Ack())
	if more := take(t, b, 1, time.Minute); len(more) != 1 {
		t.Errorf("got %v", more)
	}
}

// waitInHand waits until the server knows that n messages are in hand.
func waitInHand(t *testing.T, b *Broker, n int) {
	t.Helper()
	for {
		c, err := b.js.Consumer(t.Context(), schemas.StreamRestore, "b")
		must(t, err)
		if c.CachedInfo().NumAckPending == n {
			return
		}
	}
}

func TestReclaimAfterKill(t *testing.T) {
	t.Parallel()
	dir, killed := t.TempDir(), t.TempDir()
	b := withBatch(t, dir, 100)
	got := take(t, b, 50, 0)
	for _, d := range append(got[:10:10], got[20:30]...) {
		must(t, d.Ack())
	}
	must(t, b.SetRetry(t.Context(), "b", 40, schemas.Retry{Attempts: 2}))
	waitInHand(t, b, 30)
	must(t, os.CopyFS(killed, os.DirFS(dir))) // what a kill leaves
	for round := range 3 {
		b := embed(t, killed)
		if round == 0 {
			before := take(t, b, 100, 0)
			for _, d := range before[:min(len(before), 5)] {
				must(t, d.Nak(time.Hour)) // held back, as by a retry
			}
		}
		must(t, b.Reclaim(t.Context()))
		all := take(t, b, 200, 0)
		seen := map[int64]bool{}
		for _, d := range all {
			i := indexes(t, []*Delivery{d})[0]
			seen[i] = true
			if i < 50 && (!d.Redelivered() || d.Deliveries() < 2) {
				t.Errorf("round %d: item %d passes for new", round, i)
			}
		}
		for i := range int64(100) {
			if !seen[i] && (i < 10 || i >= 20 && i < 30) {
				continue // acknowledged; it may come again or not
			}
			if !seen[i] {
				t.Errorf("round %d: item %d does not come", round, i)
			}
		}
		if r, err := b.Retry(t.Context(), "b", 40); err != nil || r.Attempts != 2 {
			t.Errorf("attempts %d, %v", r.Attempts, err)
		}
		must(t, b.Close())
	}
}

func TestReclaimLeavesSettledConsumersAlone(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 20)
	for _, d := range take(t, b, 10, 0) {
		must(t, d.Ack())
	}
	waitInHand(t, b, 0)
	must(t, b.Reclaim(t.Context()))
	if got := indexes(t, take(t, b, 20, 0)); len(got) != 10 || got[0] != 10 {
		t.Errorf("got %v", got)
	}
	must(t, b.Reclaim(t.Context()))
	if again := take(t, b, 20, 0); len(again) < 10 || !again[0].Redelivered() {
		t.Errorf("got %d", len(again))
	}
}

func TestRetire(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 10)
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b2"}))
	held := take(t, b, 3, 0)
	must(t, b.SetRetry(t.Context(), "b", 1, schemas.Retry{Attempts: 1}))
	must(t, b.SetRetry(t.Context(), "b2", 1, schemas.Retry{Attempts: 1}))
	must(t, b.SetSteering(t.Context(), schemas.Steering{}))
	for _, scope := range []string{"b", "b2"} {
		_, err := b.Reserve(t.Context(), schemas.ScopeBatch(scope)+".items", 1, 1)
		must(t, err)
	}

	check := func(wantShown, wantOthers []string) {
		t.Helper()
		shown, others, err := b.Activated(t.Context())
		must(t, err)
		if diff := cmp.Diff(wantShown, shown) + cmp.Diff(wantOthers, others); diff != "" {
			t.Error(diff)
		}
	}
	check([]string{"b", "b2"}, nil)
	// A crash after the first step leaves the batch to be found.
	kv, err := b.bucket(t.Context(), schemas.BucketBatches)
	must(t, err)
	must(t, kv.Purge(t.Context(), "b"))
	check([]string{"b2"}, []string{"b"})
	for range 2 {
		must(t, b.Retire(t.Context(), "b"))
		must(t, b.Retire(t.Context(), "never-there"))
	}
	must(t, held[0].Ack()) // by a worker that comes late
	check([]string{"b2"}, nil)
	if n := stored(t, b, schemas.StreamRestore); n != 0 {
		t.Errorf("%d requests are left", n)
	}
	if n := stored(t, b, "KV_"+schemas.BucketRetries); n != 1 {
		t.Errorf("%d records of attempts are left, want the other batch's", n)
	}
	if n := stored(t, b, "KV_"+schemas.BucketFleet); n != 2 {
		t.Errorf("%d values are left, want what holds for the fleet and the other batch's rate", n)
	}
	// Only the marker is left, and it goes by itself.
	msg, err := kv.Get(t.Context(), "b")
	if err == nil {
		t.Errorf("got %v", msg)
	}
	s, err := b.js.Stream(t.Context(), "KV_"+schemas.BucketBatches)
	must(t, err)
	raw, err := s.GetLastMsgForSubject(t.Context(), "$KV."+schemas.BucketBatches+".b")
	must(t, err)
	if ttl := raw.Header.Get("Nats-TTL"); ttl == "" {
		t.Errorf("the marker stays for ever: %v", raw.Header)
	}
}

func TestWatchBatches(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 0)
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(chan string, 10), make(chan error, 1)
	go func() {
		done <- b.WatchBatches(ctx, func(b schemas.Batch) { events <- "show " + b.ID }, func(id string) { events <- "hide " + id })
	}()
	want := func(what string) {
		t.Helper()
		if got := <-events; got != what {
			t.Errorf("got %q, want %q", got, what)
		}
	}
	want("show b")
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "c"}))
	want("show c")
	must(t, b.Retire(t.Context(), "b"))
	want("hide b")
	cancel()
	must(t, <-done)
}

func TestWatchBatchesEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 0)
	shown, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- b.WatchBatches(t.Context(), func(schemas.Batch) { close(shown) }, nil) }()
	<-shown
	b.nc.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("got error %v", err)
	}
}

func TestEmbedNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	start := time.Now()
	_, err := Embed(filepath.Join(file, "broker"))
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got error %v", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("it took %s to find out", d)
	}
}

func BenchmarkPublish(b *testing.B) {
	br := embed(b, b.TempDir())
	const n = 1000
	next := int64(0)
	for b.Loop() {
		must(b, br.Publish(b.Context(), requests(next, next+n), 1))
		next += n
	}
	b.ReportMetric(float64(next)/b.Elapsed().Seconds(), "items/s")
}

func BenchmarkTakeAndAck(b *testing.B) {
	br := withBatch(b, b.TempDir(), 0)
	var n, published int64
	for b.Loop() {
		if n == published {
			b.StopTimer()
			must(b, br.Publish(b.Context(), requests(published, published+20_000), 1))
			published += 20_000
			b.StartTimer()
		}
		got := take(b, br, 512, 0)
		for _, d := range got {
			must(b, d.Ack())
		}
		n += int64(len(got))
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "items/s")
}
