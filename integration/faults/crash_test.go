package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/exhume/exhume/integration/harness"
)

// A process dies at a chosen step, as in a power cut, and is started again.
func TestCrashPoints(t *testing.T) {
	faults := []fault{
		{"worker", false, crashes("worker", workerPoints, 12)},
		{"collector", false, crashes("collector", collectorPoints, 4)},
		{"producer", false, producerCrashes},
	}
	for _, point := range workerPoints {
		faults = append(faults, fault{point, true, crashes("worker", []string{point, point, point}, 12)})
	}
	for _, point := range collectorPoints {
		faults = append(faults, fault{point, true, crashes("collector", []string{point, point, point}, 4)})
	}
	strike(t, faults)
}

var (
	workerPoints = []string{
		"destination.written", "destination.synced", "destination.renamed", "destination.committed",
		"worker.restored", "worker.published", "worker.counted", "worker.requeued",
	}
	collectorPoints = []string{
		"collector.inserted", "evidence.appended", "evidence.synced", "collector.noted",
		"collector.committed", "collector.archived", "collector.finished",
	}
	producerPoints = []string{"producer.opened", "producer.kept", "producer.published", "producer.sealing"}
)

// crashes has a role die at each of the points in turn, in any order, each time at
// one of the first so many times that it comes there. It watches the order of all
// that happens between a request and its acknowledgement, and that each step can be
// done twice: I1 to I5, I8.
func crashes(role string, points []string, hits int) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr := newTrial(t, random, 600*len(points), "")
		tr.start(2)
		r := tr.collector
		if role == "worker" {
			r = tr.workers[0]
		}
		tr.submit(400)
		tr.at(0.02, 0.06)
		for _, i := range random.Perm(len(points)) {
			r.Stop(t)
			tr.dies(r, points[i], 1+random.IntN(hits))
		}
		r.Restart(t)
		tr.finish()
	}
}

// dies starts a role that dies when it comes to a point for the n-th time, and waits
// for that.
func (tr *trial) dies(r *harness.Role, point string, n int) {
	tr.Helper()
	env := r.Env
	r.Env = slices.Concat(env, []string{fmt.Sprintf("EXHUME_FAILPOINTS=%s=%d", point, n)})
	r.Launch()
	if err := r.Ended(tr.T); !killed(err) {
		tr.Fatalf("%s did not die at %s (%d): %v\n%s", r.Name, point, n, err, r.Said())
	}
	r.Env = env
	tr.Logf("%s died at %s, the time %d that it came there, at %.0f %% of the items", r.Name, point, n, 100*tr.watch.progress())
}

// killed says whether a program was.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}

// producerCrashes has who submits die at each step in turn; the same command again
// goes on: I1, I2.
func producerCrashes(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 3000, "")
	tr.start(2)
	tr.watch = newWatch(tr)
	for _, point := range producerPoints {
		cmd, _, said := tr.Command(t, "submit", "manifest.jsonl", "--by", "tester", "--batch", batch, "--root", tr.root)
		cmd.Env = append(append(cmd.Env, tr.env...), "EXHUME_FAILPOINTS="+point+"=1")
		if err := cmd.Run(); !killed(err) {
			t.Fatalf("it did not die at %s: %v\n%s", point, err, said)
		}
	}
	tr.submitting()
	tr.finish()
}
