package faults

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/schemas"
)

// Roles and producers die or stand still at any moment.
func TestProcesses(t *testing.T) {
	strike(t, []fault{
		{"worker-killed", false, workersKilled},
		{"collector-killed", true, collectorKilled},
		{"producer-killed", false, producerKilled},
		{"all-killed", true, allKilled},
		{"worker-frozen", true, workerFrozen},
		{"collector-frozen", true, collectorFrozen},
	})
}

// workersKilled kills workers again and again, one of which is started anew each
// time. It watches that results come before acknowledgements, that a file appears
// whole, and that a killed worker's temporary files are removed: I1, I2, I3, I5, I8.
func workersKilled(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	tr.start(3)
	tr.submit(600)
	for _, from := range []float64{0.05, 0.25, 0.45, 0.65} {
		tr.at(from, from+0.15)
		r := tr.any(tr.workers)
		r.Kill()
		r.Restart(t)
	}
	tr.finish()
}

// collectorKilled kills the collector again and again. It watches that rows, evidence
// and acknowledgements come in this order, and that what was written twice counts
// once: I1, I2, I4.
func collectorKilled(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	tr.start(2)
	tr.submit(600)
	for _, from := range []float64{0.05, 0.3, 0.6} {
		tr.at(from, from+0.15)
		tr.collector.Kill()
		tr.collector.Restart(t)
	}
	tr.finish()
}

// producerKilled kills who submits, again and again, until the same command is
// through. It watches that a batch is sealed only when all of it is there, and that
// nothing is published twice: I1, I2.
func producerKilled(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 6000, "")
	tr.env = append(tr.env, "EXHUME_GROUP_SIZE=128")
	tr.start(2)
	tr.watch = newWatch(tr)
	js := harness.ConnectNATS(t, tr.NATS)
	for range 4 {
		cmd, _, said := tr.Command(t, "submit", "manifest.jsonl", "--by", "tester", "--batch", batch, "--root", tr.root)
		cmd.Env = append(cmd.Env, tr.env...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		killed := afterMessages(t, js, 1+uint64(random.IntN(24)), ended)
		if killed {
			_ = cmd.Process.Signal(syscall.SIGKILL)
			t.Logf("submit: %v", <-ended)
		}
		t.Logf("killed: %v\n%s", killed, said)
	}
	tr.submitting()
	tr.finish()
}

// allKilled kills every process of the fleet at once, the broker included, and starts
// them anew in any order: I1 to I8 after what a power cut does to all hosts.
func allKilled(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	nats := harness.NewNATS(t)
	tr.NATS = nats.URL
	tr.start(2)
	tr.submit(600)
	for _, from := range []float64{0.1, 0.5} {
		tr.at(from, from+0.3)
		nats.Kill()
		for _, r := range tr.roles() {
			r.Kill()
		}
		nats.Start(t)
		for _, i := range random.Perm(len(tr.roles())) {
			tr.roles()[i].Restart(t)
		}
	}
	tr.finish()
}

// workerFrozen has a worker stand still for longer than its leases, so that others
// do its work, and then go on. It watches that whoever lost a lease harms nothing: its
// results are not counted again and its acknowledgements settle nothing that is not
// done: I1, I2, I3, I5.
func workerFrozen(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 2000, "")
	tr.start(2)
	tr.submit(400)
	tr.at(0.1, 0.5)
	r := tr.any(tr.workers)
	r.Freeze(t)
	// The others finish everything, what it has in hand included.
	harness.WaitAtMost(t, recovery, "the others' work", func() bool { return tr.watch.progress() >= 1 })
	r.Thaw()
	tr.finish()
}

// collectorFrozen has the collector stand still while workers go on, and then go on:
// workers do not depend on it, and nothing is lost or counted twice: I1, I2, I4, I6.
func collectorFrozen(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 1500, "")
	tr.start(2)
	tr.submit(0)
	tr.at(0.05, 0.3)
	tr.collector.Freeze(t)
	// Files appear without it.
	harness.WaitAtMost(t, recovery, "all files", tr.watch.files)
	tr.collector.Thaw()
	tr.finish()
}

// afterMessages returns true when so many more requests are in the queue, and false
// when the producer has ended before.
func afterMessages(t *testing.T, js jetstream.JetStream, more uint64, ended chan error) bool {
	t.Helper()
	var from uint64
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s, err := js.Stream(t.Context(), schemas.StreamRestore)
		if err != nil {
			t.Fatal(err)
		}
		last := s.CachedInfo().State.LastSeq
		if from == 0 {
			from = last
		}
		if last >= from+more {
			return true
		}
		select {
		case err := <-ended:
			ended <- err
			return false
		case <-tick.C:
		}
	}
}
