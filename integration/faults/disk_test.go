package faults

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/schemas"
)

// Disks are full, out of inodes or read-only: those that are restored to, and those that
// records are kept on.
func TestDisk(t *testing.T) {
	strike(t, []fault{
		{"full", false, destinationSick(full)},
		{"inodes", true, destinationSick(crowded)},
		{"read-only", true, destinationSick(readOnly)},
		{"one-of-two-full", true, oneFull},
		{"one-of-two-read-only", true, oneReadOnly},
		{"batch-restore", false, batchRestoreFull},
		{"evidence-full", false, evidenceFull},
		{"ledger-full", true, ledgerFull},
	})
}

// destinationSick makes the destination of the only worker sick and well again, twice.
// It watches that the worker steps aside, which costs no attempt, and goes on by itself:
// I1, I3, I5, I6, I8.
func destinationSick(with ailment) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr, d := diskTrial(t, random)
		tr.start(1)
		r := tr.workers[0]
		d.move(tr, r)
		tr.submit(150)
		for _, from := range []float64{0.1, 0.5} {
			tr.at(from, from+0.3)
			with.begin(tr, d)
			harness.WaitAtMost(t, recovery, "the worker to step aside", func() bool { return !r.Ready(t) })
			if said := r.Said(); !strings.Contains(said, string(with.code)) {
				t.Errorf("the worker does not say %s:\n%s", with.code, tail(said, 2000))
			}
			with.end(t, d)
		}
		tr.finish()
		tr.noTemporaries()
	}
}

// diskTrial is a trial whose root is a small disk.
func diskTrial(t *testing.T, random *rand.Rand) (*trial, *disk) {
	t.Helper()
	tr := newTrial(t, random, 1200, "")
	d := newDisk(t, tr.root, "size=16m,nr_inodes=4000")
	if err := os.CopyFS(d.inside(tr.root), os.DirFS(tr.root)); err != nil {
		t.Fatal(err)
	}
	tr.to, tr.root = tr.root, d.inside(tr.root)
	return tr, d
}

// noTemporaries checks that nothing of exhume's own is left below the root (I8).
func (tr *trial) noTemporaries() {
	tr.Helper()
	left, err := filepath.Glob(filepath.Join(tr.root, ".exhume-*"))
	if err != nil || len(left) > 0 {
		tr.Errorf("I8: below the root are %q, %v", left, err)
	}
}

// oneFull has a worker beside another that cannot write a single file. It watches that
// the one steps aside with its items handed back uncounted, and that the other one does
// everything: I1, I3, I5, I6.
func oneFull(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 1000, "")
	tr.start(2)
	d := newDisk(t, tr.root, "size=1m")
	fill(t, d.ballast())
	sick := tr.workers[1]
	d.move(tr, sick)
	tr.submit(150)
	harness.WaitAtMost(t, recovery, "the worker to step aside", func() bool { return !sick.Ready(t) })
	tr.finish()
	if restored := tr.restoredBy(); restored["w1"] > 0 {
		t.Errorf("restored by worker: %v; w1 could not", restored)
	}
}

// oneReadOnly makes the root read-only for one of two workers, and writable again. It
// watches what oneFull does, and that the worker takes part again: I1, I3, I5, I6.
func oneReadOnly(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 3000, "")
	tr.start(2)
	d := newView(t, tr.root)
	sick := tr.workers[1]
	d.move(tr, sick)
	d.remount(t, "ro")
	tr.submit(100)
	harness.WaitAtMost(t, recovery, "the worker to step aside", func() bool { return !sick.Ready(t) })
	tr.at(0.1, 0.3)
	restored := func() float64 { return sick.Metric(t, "exhume_worker_results_total", `outcome="restored"`) }
	if n := restored(); n > 0 {
		t.Errorf("the sick worker has restored %v items", n)
	}
	readOnly.end(t, d)
	harness.WaitAtMost(t, recovery, "the worker to take part again", func() bool { return restored() > 0 })
	tr.finish()
}

// restoredBy counts the items that are restored by worker.
func (tr *trial) restoredBy() map[string]int {
	tr.Helper()
	n := map[string]int{}
	for _, r := range tr.Results(tr.T, batch) {
		if r.Outcome == schemas.OutcomeRestored {
			n[r.Worker]++
		}
	}
	return n
}

// batchRestoreFull runs batch-restore on a disk that has room for some of the items
// only, and again when there is room. It watches that the command ends with a message
// that says what to do, and that the same command finishes what is missing: I1, I3, I5.
func batchRestoreFull(t *testing.T, random *rand.Rand) {
	tr, d := diskTrial(t, random)
	tr.watch = newWatch(tr)
	run := func() (said string, code int) {
		cmd, _, stderr := tr.Command(t, "batch-restore", "manifest.jsonl", "--by", "tester", "--batch", batch, "--root", tr.to)
		inside := exec.CommandContext(t.Context(), "nsenter", append(d.within(tr.Dir)[1:], cmd.Args...)...)
		inside.Env, inside.Stderr = slices.Concat(cmd.Env, tr.env), stderr
		_ = inside.Run()
		return stderr.String(), inside.ProcessState.ExitCode()
	}
	full.begin(tr, d)
	if err := os.Truncate(d.ballast(), int64((14+random.IntN(2))<<20)); err != nil {
		t.Fatal(err)
	}
	said, code := run()
	t.Logf("exit code %d: %s", code, said)
	if code != 5 || !strings.Contains(said, "free space") || !strings.Contains(said, "run the same command again") {
		t.Errorf("on a full disk: exit code %d\n%s", code, said)
	}
	done := int64(len(harness.FilesBelow(t, filepath.Join(tr.root, "out"))))
	full.end(t, d)
	said, code = run()
	t.Logf("exit code %d: %s", code, said)
	if code != tr.exit() || done == 0 || done >= int64(len(tr.truth)) {
		t.Errorf("%d files of %d items were there, and then: exit code %d\n%s", done, len(tr.truth), code, said)
	}
	tr.watch.stop()
	tr.CheckRecordsOf(t, batch)
	tr.checkTruth()
	tr.noTemporaries()
}

// evidenceFull fills the disk with the collector's evidence, twice; its ledger is
// elsewhere. It watches that the collector stops and says why, instead of losing lines,
// and that nothing is lost or written twice when it goes on: I1, I2, I4.
func evidenceFull(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 1500, "")
	tr.ledger = postgresOf(t)
	tr.start(1)
	d := tr.collectOn(tr.Config.Exhume.EvidenceDir)
	tr.Config.Exhume.EvidenceDir = d.inside(tr.Config.Exhume.EvidenceDir)
	tr.submit(250)
	tr.fillTwice(d)
	tr.finish()
}

// ledgerFull fills the disk with all of the collector's records: as evidenceFull. They
// cannot be looked at there, so that the counters are not watched meanwhile.
func ledgerFull(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 1500, "")
	tr.start(1)
	dir := tr.Path("roles", "collector")
	d := tr.collectOn(dir)
	for _, path := range harness.FilesBelow(t, dir) { // the directory itself is mounted over
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	tr.submit(250)
	tr.fillTwice(d)
	tr.wait()
	tr.settled()
	tr.collector.Stop(t)
	if err := os.CopyFS(dir, os.DirFS(d.inside(dir))); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the watch to read the ledger", func() bool { return tr.watch.progress() == 1 })
	tr.check()
}

// collectOn has the collector, which runs, see a small disk with what is in a directory
// in its place.
func (tr *trial) collectOn(dir string) *disk {
	tr.Helper()
	tr.collector.Stop(tr.T)
	d := newDisk(tr.T, dir, "size=64m")
	if err := os.CopyFS(d.inside(dir), os.DirFS(dir)); err != nil {
		tr.Fatal(err)
	}
	d.move(tr, tr.collector)
	return d
}

// fillTwice fills the collector's disk, which is to end it, and starts it again when
// there is room.
func (tr *trial) fillTwice(d *disk) {
	tr.Helper()
	for _, from := range []float64{0.1, 0.5} {
		tr.at(from, from+0.3)
		fill(tr.T, d.ballast())
		err := tr.collector.Ended(tr.T)
		if said := tr.collector.Said(); err == nil || !strings.Contains(said, "free space there") {
			tr.Errorf("the collector ended with %v and says\n%s", err, tail(said, 2000))
		}
		drop(tr.T, d.ballast())
		tr.collector.Restart(tr.T)
	}
}
