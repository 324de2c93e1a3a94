package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

func check(t testing.TB, b *Broker) []Difference {
	t.Helper()
	got, err := b.Check(t.Context())
	must(t, err)
	return got
}

// settingsOf are those that differ, as "setting: have, want".
func settingsOf(all []Difference) (harmful, harmless []string) {
	for _, d := range all {
		s := d.Setting + ": " + d.Have + ", " + d.Want
		if d.Harmful {
			harmful = append(harmful, s)
		} else {
			harmless = append(harmless, s)
		}
	}
	return harmful, harmless
}

func TestCheckFindsNothingAfterSetup(t *testing.T) {
	t.Parallel()
	s := startServer(t, anyone)
	b := connect(t, Options{URL: s.url()})
	missing := check(t, b)
	if len(missing) != 6 {
		t.Errorf("%d are missing, want 5 streams and a consumer: %v", len(missing), missing)
	}
	for _, d := range missing {
		if !d.Harmful || !strings.Contains(d.String(), "is missing: start 'exhume collector'") {
			t.Errorf("got %v", d)
		}
	}
	for range 2 {
		must(t, b.Setup(t.Context()))
		if got := check(t, b); len(got) > 0 {
			t.Errorf("got %v", got)
		}
	}
}

// What differs is told, and corrected where that loses nothing.
func TestSetupCorrectsWhatIsSafe(t *testing.T) {
	t.Parallel()
	s := startServer(t, anyone)
	b := connect(t, Options{URL: s.url()})
	must(t, b.Setup(t.Context()))
	changeStream(t, b, schemas.StreamRestore, func(c *jetstream.StreamConfig) {
		c.Discard, c.MaxAge, c.MaxMsgs, c.AllowAtomicPublish, c.AllowDirect = jetstream.DiscardOld, time.Hour, 10, false, true
		c.MaxBytes, c.Duplicates = 1<<30, time.Minute
		c.Subjects = append(c.Subjects, "somebody.else")
		c.Description = "ours"
	})
	// As an older release made it.
	changeStream(t, b, schemas.StreamResults, func(c *jetstream.StreamConfig) {
		c.MaxAge, c.Discard, c.MaxBytes = time.Hour, jetstream.DiscardOld, -1
	})
	changeStream(t, b, "KV_"+schemas.BucketRetries, func(c *jetstream.StreamConfig) {
		c.MaxMsgsPerSubject, c.Discard, c.MaxBytes, c.MaxAge = 5, jetstream.DiscardNew, -1, time.Hour
	})
	changeStream(t, b, "KV_"+schemas.BucketBatches, func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 })
	_, err := b.js.UpdateConsumer(t.Context(), schemas.StreamResults, jetstream.ConsumerConfig{
		Durable: collectorConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, MaxDeliver: 3, FilterSubject: "exhume.result.a.b",
	})
	must(t, err)

	harmful, harmless := settingsOf(check(t, b))
	if diff := cmp.Diff([]string{
		"discard: DiscardOld, DiscardNew", "max_msgs: 10, -1", "max_age: 1h0m0s, 0s", "allow_atomic: false, true",
		"discard: DiscardOld, DiscardNew", "max_age: 1h0m0s, 0s", "discard: DiscardNew, DiscardOld",
		"max_deliver: 3, -1", "filter_subject: exhume.result.a.b, ",
	}, harmful); diff != "" {
		t.Errorf("harmful:\n%s", diff)
	}
	left := []string{"max_bytes: 1048576, -1", "max_age: 1h0m0s, 720h0m0s"}
	if diff := cmp.Diff([]string{
		"max_bytes: 1073741824, 8589934592", "duplicate_window: 1m0s, 2m0s", "allow_direct: true, false",
		"max_bytes: -1, 6442450944", left[0], "max_bytes: -1, 1073741824", left[1], "ack_wait: 1m0s, 30s",
	}, harmless); diff != "" {
		t.Errorf("harmless:\n%s", diff)
	}
	must(t, b.Setup(t.Context()))
	harmful, harmless = settingsOf(check(t, b))
	if diff := cmp.Diff(left, harmless); diff != "" || len(harmful) > 0 {
		t.Errorf("after Setup: harmful %v, harmless:\n%s", harmful, diff)
	}
	// The rest is the operator's.
	stream, err := b.js.Stream(t.Context(), schemas.StreamRestore)
	must(t, err)
	if c := stream.CachedInfo().Config; len(c.Subjects) != 2 || c.Description != "ours" {
		t.Errorf("subjects %v, description %q", c.Subjects, c.Description)
	}
}

// What would lose work and cannot be corrected stops Setup, which leaves it alone.
func TestSetupRefusesWhatIsHarmful(t *testing.T) {
	t.Parallel()
	s := startServer(t, anyone)
	b := connect(t, Options{URL: s.url()})
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: schemas.StreamRestore, Subjects: []string{schemas.SubjectsRestore}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.MemoryStorage,
	})
	must(t, err)
	err = b.Setup(t.Context())
	if err == nil || !strings.Contains(err.Error(), "retention is WorkQueue, want Limits: when no batch is active, remove it with 'nats stream rm "+schemas.StreamRestore+"'") ||
		!strings.Contains(err.Error(), "storage is Memory, want File") {
		t.Errorf("got error %v", err)
	}
	stream, err := b.js.Stream(t.Context(), schemas.StreamRestore)
	must(t, err)
	if c := stream.CachedInfo().Config; c.AllowAtomicPublish {
		t.Error("a stream that Setup refuses was changed")
	}
}

func TestSetupNamesWhatTheServerCannot(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]Options{
		"3 replicas need as many servers": {Replicas: 3},
		"it reserves 1 TiB: raise the server's max_file_store or the account's limit, or lower EXHUME_QUEUE_BYTES":   {Bounds: Bounds{QueueBytes: 1 << 40}},
		"it reserves 2 TiB: raise the server's max_file_store or the account's limit, or lower EXHUME_RESULTS_BYTES": {Bounds: Bounds{ResultsBytes: 2 << 40}},
	} {
		o.URL = startServer(t, anyone).url()
		if err := connect(t, o).Setup(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}

// A bound that is changed counts from the next start on, also below what is stored;
// where the server cannot reserve it, the old one stays, and all else is corrected.
func TestSetupChangesBounds(t *testing.T) {
	t.Parallel()
	s := startServer(t, anyone)
	b := connect(t, Options{URL: s.url()})
	must(t, b.Setup(t.Context()))
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
	must(t, b.Publish(t.Context(), requests(0, 1000), 1))
	for _, c := range []struct{ set, want int64 }{{4 << 10, 4 << 10}, {32 << 30, 32 << 30}, {1 << 40, 32 << 30}} {
		changeStream(t, b, schemas.StreamRestore, func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false })
		other := connect(t, Options{URL: s.url(), Bounds: Bounds{QueueBytes: c.set}})
		must(t, other.Setup(t.Context()))
		u, err := b.Usage(t.Context(), schemas.StreamRestore)
		must(t, err)
		if u.Bound != c.want || stored(t, b, schemas.StreamRestore) != 1000 {
			t.Errorf("bound %d set: %+v", c.set, u)
		}
		if harmful, _ := settingsOf(check(t, other)); len(harmful) > 0 {
			t.Errorf("bound %d set: %v", c.set, harmful)
		}
	}
}

func changeStream(t testing.TB, b *Broker, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), name)
	must(t, err)
	c := s.CachedInfo().Config
	change(&c)
	_, err = b.js.UpdateStream(t.Context(), c)
	must(t, err)
}
