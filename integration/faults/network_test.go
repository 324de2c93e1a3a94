package faults

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/exhume/exhume/integration/harness"
)

// The network between a worker, or the collector, and the broker breaks.
func TestNetwork(t *testing.T) {
	strike(t, []fault{
		{"partition", false, partitioned(harness.Break{HoldUp: true, HoldDown: true}, 0.3)},
		{"worker-is-not-heard", true, partitioned(harness.Break{HoldUp: true}, 0.3)},
		{"worker-hears-nothing", true, partitioned(harness.Break{HoldDown: true}, 0.3)},
		{"partition-beyond-leases", true, partitioned(harness.Break{HoldUp: true, HoldDown: true}, 1)},
		{"worker-is-not-heard-beyond-leases", true, partitioned(harness.Break{HoldUp: true}, 1)},
		{"worker-hears-nothing-beyond-leases", true, partitioned(harness.Break{HoldDown: true}, 1)},
		{"reset-at-acks", false, reset(harness.Break{LoseRequest: []byte("$JS.ACK."), Times: 8})},
		{"reset-at-results", true, reset(harness.Break{LoseRequest: []byte("exhume.result."), Times: 8})},
		{"results-without-answer", true, reset(harness.Break{LoseAnswer: []byte("exhume.result."), Times: 8})},
		{"slow", true, reset(harness.Break{Delay: 50 * time.Millisecond, Errors: 0.02})},
		{"collector-reset", true, collectorReset},
	})
}

// partitioned breaks the network between one of two workers and the broker until the
// other one has done a further share of the items (1: all that are left, those that the
// first has in hand included). It watches heartbeats, leases, and that who was away
// settles nothing that others have done: I1, I2, I3, I5, I6.
func partitioned(how harness.Break, share float64) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr := newTrial(t, random, 2000, "")
		nats := harness.NewNATS(t)
		tr.NATS = nats.URL
		tr.start(1)
		net := tr.joinByProxy(nats.URL)
		tr.submit(500)
		tr.at(0.1, 0.4)
		net.Set(how)
		until := min(1, tr.watch.progress()+share)
		harness.WaitAtMost(t, recovery, "the other worker", func() bool { return tr.watch.progress() >= until })
		net.Set(harness.Break{})
		tr.finish()
	}
}

// joinByProxy starts a worker that reaches the broker through a proxy.
func (tr *trial) joinByProxy(broker string) *harness.Proxy {
	tr.Helper()
	net := harness.NewProxy(tr.T, harness.Address(tr.T, broker), tr.random.Uint64())
	tr.join("EXHUME_NATS_URL=" + harness.Via(tr.T, broker, net))
	return net
}

// reset breaks the connections of all workers, and nothing else, at what they say. It
// watches that results whose fate is unknown are sent again and counted once, and that
// a lost acknowledgement only repeats harmless work: I1, I2, I4, I5.
func reset(how harness.Break) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr := newTrial(t, random, 2000, "")
		nats := harness.NewNATS(t)
		tr.NATS = nats.URL
		tr.start(0)
		nets := []*harness.Proxy{tr.joinByProxy(nats.URL), tr.joinByProxy(nats.URL)}
		tr.submit(400)
		tr.at(0.05, 0.2)
		for _, net := range nets {
			net.Set(how)
		}
		harness.WaitAtMost(t, recovery, "the connections to be reset", func() bool { return nets[0].Struck() > 3 && nets[1].Struck() > 3 })
		for _, net := range nets {
			net.Set(harness.Break{})
		}
		tr.finish()
	}
}

// collectorReset resets the collector's connections again and again, some of them when
// it acknowledges: what is delivered to it again is counted once: I1, I2, I4, I8.
func collectorReset(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	nats := harness.NewNATS(t)
	tr.NATS = nats.URL
	tr.start(2)
	net := harness.NewProxy(t, harness.Address(t, nats.URL), random.Uint64())
	tr.collector.Stop(t)
	tr.collector.Env = append(tr.collector.Env, "EXHUME_NATS_URL="+harness.Via(t, nats.URL, net))
	tr.collector.Restart(t)
	tr.submit(400)
	for _, from := range []float64{0.05, 0.25, 0.45, 0.65} {
		tr.at(from, from+0.15)
		net.Set(harness.Break{LoseRequest: []byte("$JS.ACK."), Times: 1 + random.IntN(3)})
		net.Reset()
	}
	tr.finish()
}
