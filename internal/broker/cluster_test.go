package broker

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// connectToCluster connects and sets up, for which the cluster needs its quorum.
func connectToCluster(t testing.TB, servers []*testServer) *Broker {
	t.Helper()
	b := connect(t, Options{URL: urls(servers), Replicas: len(servers)})
	retry(t, func() error { return b.Setup(t.Context()) })
	return b
}

// retry repeats what a cluster cannot do while its servers agree on a leader.
func retry(t testing.TB, do func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		pause(t.Context(), 50*time.Millisecond)
	}
}

// In a cluster messages come after the status that ends a pull. None of them is
// dropped, to wait for the end of its lease.
func TestTakeFromCluster(t *testing.T) {
	t.Parallel()
	b := connectToCluster(t, startCluster(t))
	retry(t, func() error { return b.Activate(t.Context(), schemas.Batch{ID: "b"}) })
	must(t, b.Publish(t.Context(), requests(0, 300), 1))
	for n := 0; n < 300; {
		got := take(t, b, 70, time.Minute)
		for _, d := range got {
			if d.Redelivered() {
				t.Fatalf("item %v was dropped", indexes(t, []*Delivery{d}))
			}
			must(t, d.Ack())
		}
		n += len(got)
	}
}

// The server that leads the queue is killed while requests are published, and
// the next one while they are taken and answered. Nothing is lost.
func TestKilledLeaders(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	b := connectToCluster(t, servers)
	retry(t, func() error { return b.Activate(t.Context(), schemas.Batch{ID: "b", State: schemas.StateOpen}) })

	const n, step = 4000, 200
	half, published := make(chan struct{}), make(chan error, 1)
	go func() {
		published <- func() error {
			for first := int64(0); first < n; first += step {
				if first == n/2 {
					close(half)
				}
				if err := b.Publish(t.Context(), requests(first, first+step), 20); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	<-half
	killed := leader(t, b, servers)
	killed.kill()
	must(t, <-published)
	killed.start()

	// Each message taken is answered and acknowledged, as a worker does it.
	seen := map[int64]bool{}
	killed = nil
	for len(seen) < n {
		got, err := b.Requests(t.Context(), "b", 50, time.Second)
		if err != nil {
			t.Log("meanwhile:", err)
			pause(t.Context(), 50*time.Millisecond)
		}
		for _, d := range got {
			var g schemas.RequestGroup
			must(t, json.Unmarshal(d.Data(), &g))
			answer := schemas.ResultGroup{Batch: "b", Worker: "w"}
			for i := range g.Items {
				r := g.Request(i)
				seen[r.Index] = true
				answer.Results = append(answer.Results, schemas.Result{Request: r, Outcome: schemas.OutcomeRestored})
			}
			retry(t, func() error { return b.PublishResults(t.Context(), answer) })
			must(t, d.Ack())
		}
		if killed == nil && len(seen) > n/2 {
			retry(t, func() error { return replicated(t, b) })
			killed = leader(t, b, servers)
			killed.kill()
		}
	}
	retry(t, func() error {
		last, err := b.LastIndex(t.Context(), "b")
		if err == nil && last != n-1 {
			t.Errorf("last index %d", last)
		}
		return err
	})

	// The collector finds a result for each.
	answered := map[int64]bool{}
	for len(answered) < n {
		got, err := b.Results(t.Context(), 100, time.Second)
		if err != nil {
			t.Log("meanwhile:", err)
			pause(t.Context(), 50*time.Millisecond)
		}
		for _, d := range got {
			var g schemas.ResultGroup
			must(t, json.Unmarshal(d.Data(), &g))
			for _, r := range g.Results {
				answered[r.Index] = true
			}
			must(t, d.Ack())
		}
	}
	if diff := cmp.Diff(seen, answered); diff != "" {
		t.Error(diff)
	}
	retry(t, func() error { return b.Retire(t.Context(), "b") })
}

// replicated says whether all servers have all that is stored.
func replicated(t testing.TB, b *Broker) error {
	for _, want := range b.streams() {
		s, err := b.js.Stream(t.Context(), want.Name)
		if err != nil {
			return err
		}
		cluster := s.CachedInfo().Cluster
		if cluster == nil || cluster.Leader == "" {
			return jetstream.ErrStreamNotFound
		}
		for _, r := range cluster.Replicas {
			if !r.Current {
				return jetstream.ErrStreamNotFound
			}
		}
	}
	return nil
}
