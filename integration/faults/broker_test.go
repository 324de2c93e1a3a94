package faults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/schemas"
)

// The broker dies, stands still, is full, loses its leader or everything.
func TestBroker(t *testing.T) {
	strike(t, []fault{
		{"killed", false, brokerKilled},
		{"frozen", true, brokerFrozen(time.Second, 8*time.Second)},
		{"frozen-beyond-leases", true, brokerFrozen(35*time.Second, 60*time.Second)},
		{"data-removed", false, dataRemoved},
		{"store-full", false, storeFull},
		{"cluster-rolling", true, clusterRolls},
		{"cluster-leader-killed", true, leadersKilled},
		{"results-replayed", true, resultsReplayed},
	})
}

// brokerKilled kills the broker within 100 ms of the first delivery, and later, again
// and again; it goes on with the same store. It watches that what is confirmed is on
// disk, and that an outage of the broker costs no attempt: I1, I2, I5, I6.
func brokerKilled(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	broker := harness.NewNATS(t)
	tr.NATS = broker.URL
	tr.start(2)
	before := tr.watchFrom(500)
	harness.WaitAtMost(t, recovery, "the first file", func() bool { return tr.watch.present.Load() > before })
	<-time.After(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
	broker.Kill()
	broker.Start(t)
	for _, from := range []float64{0.2, 0.5} {
		tr.at(from, from+0.25)
		broker.Kill()
		broker.Start(t)
	}
	tr.finish()
}

// watchFrom submits and gives how many files were there before.
func (tr *trial) watchFrom(rate int) int64 {
	tr.Helper()
	before := int64(len(harness.FilesBelow(tr.T, tr.root)))
	tr.submit(rate)
	return before
}

// brokerFrozen has the broker stand still, with all connections open, so long. It
// watches deadlines on every call, and that leases which ended meanwhile harm nothing:
// I1, I2, I3, I5, I6.
func brokerFrozen(from, to time.Duration) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr := newTrial(t, random, 2000, "")
		broker := harness.NewNATS(t)
		tr.NATS = broker.URL
		tr.start(2)
		tr.submit(500)
		tr.at(0.1, 0.7)
		broker.Freeze(t)
		<-time.After(from + time.Duration(random.Int64N(int64(to-from))))
		broker.Thaw()
		tr.finish()
	}
}

// dataRemoved has the broker come back without any data in the middle of a batch. It
// watches the reconciler: streams are made again and the requests of all open items
// published again, from what is kept for the batch: I1, I2, I4, I6.
func dataRemoved(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	broker := harness.NewNATS(t)
	tr.NATS = broker.URL
	tr.start(2)
	tr.submit(400)
	tr.at(0.1, 0.7)
	broker.Kill()
	broker.Lose(t)
	broker.Start(t)
	tr.finish()
}

// storeFull leaves no room on the broker's disk while a batch is under way, makes room
// again and restarts the broker, which takes nothing more into a stream that it could
// once not write. It watches that nothing is taken for stored that was not: I1, I2, I5,
// I6.
func storeFull(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	broker := harness.NewNATS(t)
	broker.Stop()
	d := newDisk(t, broker.Store, "size=64m")
	broker.Within(d.within("/")...)
	broker.Start(t)
	tr.NATS = broker.URL
	tr.start(2)
	tr.submit(400)
	tr.at(0.1, 0.6)
	fill(t, d.ballast())
	harness.WaitFor(t, "the broker to have no room", func() bool { return strings.Contains(broker.Said(), "no space left") })
	<-time.After(time.Duration(random.Int64N(int64(5 * time.Second))))
	drop(t, d.ballast())
	broker.Kill()
	broker.Start(t)
	tr.finish()
}

// fill writes a file until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is full
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		err = nil
	}
}

// clusterRolls restarts the three servers of a cluster one after the other, in order,
// after their leaders have stepped down: I1, I2, I5, I6, and no pause longer than an
// election.
func clusterRolls(t *testing.T, random *rand.Rand) {
	tr, servers := clustered(t, random)
	tr.submit(300)
	for i, n := range random.Perm(len(servers)) {
		tr.at(0.1+0.25*float64(i), 0.3+0.25*float64(i))
		stepDown(t, servers[(n+1)%3].URL)
		servers[n].Stop()
		servers[n].Start(t)
	}
	tr.finish()
}

// leadersKilled kills the leader of the stream of requests, of that of results and so
// on: I1, I2, I5, I6 with a quorum left.
func leadersKilled(t *testing.T, random *rand.Rand) {
	tr, servers := clustered(t, random)
	tr.submit(300)
	for _, stream := range []string{schemas.StreamRestore, schemas.StreamResults} {
		tr.at(0.1, 0.4)
		leader := leaderOf(t, tr.NATS, stream)
		servers[leader].Kill()
		servers[leader].Start(t)
	}
	tr.finish()
}

// clustered is a trial whose broker is a cluster of three.
func clustered(t *testing.T, random *rand.Rand) (*trial, []*harness.NATS) {
	t.Helper()
	tr := newTrial(t, random, 2000, "")
	servers := harness.NewCluster(t)
	tr.NATS = servers[0].URL + "," + servers[1].URL + "," + servers[2].URL
	tr.start(2, "EXHUME_NATS_REPLICAS=3")
	return tr, servers
}

// leaderOf is which server leads a stream.
func leaderOf(t *testing.T, url, stream string) (n int) {
	t.Helper()
	js := harness.ConnectNATS(t, url)
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(s.CachedInfo().Cluster.Leader, "n%d", &n); err != nil {
		t.Fatal(err)
	}
	return n - 1
}

// stepDown has the leaders of the streams step down.
func stepDown(t *testing.T, url string) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, stream := range []string{schemas.StreamRestore, schemas.StreamResults} {
		harness.WaitFor(t, "the leader of "+stream+" to step down", func() bool { // there may be none yet
			said, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, 10*time.Second)
			return err == nil && bytes.Contains(said.Data, []byte(`"success":true`))
		})
	}
}

// resultsReplayed has two collectors work at the same time, and all results delivered
// to them again from the first, twice. It watches that a result counts once whoever
// records it: I1, I2, I4.
func resultsReplayed(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	tr.ledger = postgresOf(t)
	tr.start(2)
	second := tr.Start(t, "collector2", tr.env, "collector")
	tr.Collectors = []string{"collector", "collector2"}
	tr.submit(300)
	js := harness.ConnectNATS(t, tr.NATS)
	for _, from := range []float64{0.2, 0.5} {
		tr.at(from, from+0.2)
		name := ""
		s, err := js.Stream(t.Context(), schemas.StreamResults)
		if err != nil {
			t.Fatal(err)
		}
		for name = range s.ConsumerNames(t.Context()).Name() {
			if err := s.DeleteConsumer(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if name == "" {
			t.Fatal("nobody consumes the results")
		}
	}
	tr.workers = append(tr.workers, second) // to be stopped with them
	tr.finish()
}
