package faults

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/archive"
)

const (
	// batch is the name of a trial's batch.
	batch = "b"
	// recovery is how soon after the last fault a batch must have ended (I6), and a
	// fleet have tidied up. The longest thing to wait for is a lease of 30 s.
	recovery = 3 * time.Minute
)

// trial is a fleet that restores a batch whose outcome is known, while something
// is broken.
//
// The fleet's parts are chosen by setting fields before start: World.NATS and
// World.Config.Backend. The watch begins with submit and ends with finish, which
// checks all invariants.
type trial struct {
	*harness.World
	*testing.T
	random *rand.Rand
	// items is how many the batch has; root is where they go. The fleet knows it as
	// to where that is not empty: as a bucket, or in mounts of its own.
	items int
	root  string
	to    string
	truth map[string]truth // by output

	// env is what all roles have; ledger is that of the fleet, empty for SQLite.
	env       []string
	ledger    string
	collector *harness.Role
	workers   []*harness.Role
	watch     *watch
	wait      func() int
}

// newTrial makes the archive of a trial: in this database, by its URL; empty means SQLite.
func newTrial(t *testing.T, random *rand.Rand, items int, database string) *trial {
	t.Helper()
	w := harness.New(t)
	if database != "" {
		at, err := archive.ParseURL(database)
		if err != nil {
			t.Fatal(err)
		}
		w.Config.Backend.Backend, w.Config.Backend.URL = at.Backend, database
	}
	tr := &trial{World: w, T: t, random: random, items: items, root: w.Path("root")}
	tr.truth = makeTruth(t, w, random, items, tr.root)
	// Small groups, one at a time: many steps at which something can break.
	tr.env = []string{"EXHUME_GROUP_SIZE=16", "CODEX_ARCHIVE_BATCH_CONCURRENT=1", "EXHUME_REPORT_DIR=off"}
	return tr
}

// start starts a collector and so many workers.
func (tr *trial) start(workers int, env ...string) {
	tr.Helper()
	var roles []*harness.Role
	tr.env, roles = tr.FleetWith(tr.T, tr.ledger, workers, append(tr.env, env...)...)
	tr.collector, tr.workers = roles[0], roles[1:]
}

// join starts another worker, with this added to the environment.
func (tr *trial) join(env ...string) *harness.Role {
	tr.Helper()
	name := fmt.Sprint("w", len(tr.workers))
	r := tr.Start(tr.T, "worker"+name[1:], append(tr.env[:len(tr.env):len(tr.env)], env...), "worker", "--worker-name", name)
	tr.workers = append(tr.workers, r)
	return r
}

// submit has another process submit the batch, at most so many items of which are
// restored in a second (0: no bound), and begins to watch.
func (tr *trial) submit(rate int) {
	tr.Helper()
	if rate > 0 {
		tr.Must(tr.T, tr.env, "limits", "set", "--items", fmt.Sprint(rate))
	}
	tr.watch = newWatch(tr)
	tr.submitting()
}

// submitting has another process submit the batch, again and again while the fleet is
// away.
func (tr *trial) submitting() {
	tr.Helper()
	tr.wait = tr.Submitted(tr.T, tr.env, batch, cmp.Or(tr.to, tr.root), tr.exit())
}

// exit is the exit code of a submission that waits for the batch.
func (tr *trial) exit() int {
	for _, is := range tr.truth {
		if is.code != "" {
			return 3
		}
	}
	return 0
}

// at waits until a share of the items, between these two, is done. A test that comes
// too late for its fault proves nothing, and fails.
func (tr *trial) at(from, to float64) {
	tr.Helper()
	share := from + (to-from)*tr.random.Float64()
	harness.WaitAtMost(tr.T, recovery, fmt.Sprintf("%.0f %% of the items", 100*share), func() bool { return tr.watch.progress() >= share })
	if tr.watch.progress() >= 1 {
		tr.Fatalf("the batch was through before its fault at %.0f %%", 100*share)
	}
	tr.Logf("a fault at %.0f %% of the items", 100*tr.watch.progress())
}

// roles are all that run.
func (tr *trial) roles() []*harness.Role { return append([]*harness.Role{tr.collector}, tr.workers...) }

// any is one of several roles.
func (tr *trial) any(roles []*harness.Role) *harness.Role { return roles[tr.random.IntN(len(roles))] }

// finish waits until the batch has ended and checks everything.
func (tr *trial) finish() {
	tr.Helper()
	ended := make(chan int, 1)
	go func() { ended <- tr.wait() }()
	select {
	case <-ended:
	case <-time.After(recovery):
		tr.Fatalf("I6: the batch has not ended %s after the last fault\n%s", recovery, tr.said())
	}
	tr.settled()
	tr.check()
}

// settled waits until nothing is left in the broker: what a killed collector had in
// hand comes again when its lease ends.
func (tr *trial) settled() {
	tr.Helper()
	js := harness.ConnectNATS(tr.T, tr.NATS)
	deadline := time.After(recovery)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		left := harness.Left(tr.T, js)
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			tr.Fatalf("I8: %s after the end the broker still has %q\n%s", recovery, left, tr.said())
		}
	}
}

// check stops everything and checks all invariants.
func (tr *trial) check() {
	tr.Helper()
	tr.watch.stop()
	harness.StopAll(tr.T, tr.roles())
	if tr.Failed() {
		tr.Log(tr.said())
		return
	}
	if tr.to == "" {
		tr.CheckInvariants(tr.T, batch)
	} else {
		tr.CheckRecordsOf(tr.T, batch)
	}
	tr.checkTruth()
}

// checkTruth checks that of every item has become what must (I1, I3, I5).
func (tr *trial) checkTruth() {
	tr.Helper()
	results := tr.Results(tr.T, batch)
	if len(results) != tr.items {
		tr.Errorf("I1: %d results of %d items", len(results), tr.items)
	}
	for _, r := range results {
		is := tr.truth[r.Output].decided(r)
		tr.truth[r.Output] = is
		if r.Index != is.index || r.Code != is.code || harness.There(r.Outcome) != (is.code == "") || is.code == "" && r.SHA256 != is.sum {
			tr.Errorf("I1: item %d, %s: %s %s (%s) after %d attempts, want code %q", r.Index, r.Output, r.Outcome, r.Code, r.Detail, r.Attempts, is.code)
		}
	}
	tr.watch.visible(tr.truth, true)
}

// said is what is known of the batch, and what the roles say.
func (tr *trial) said() (text string) {
	if tr.collector != nil && tr.collector.Runs() {
		out, said, _ := tr.Exhume(tr.T, tr.env, "batch", "why", batch)
		text = out + said
	}
	for _, r := range tr.roles() {
		text += fmt.Sprintf("--- %s\n%s", r.Name, tail(r.Said(), 4000))
	}
	return text
}

// tail is the end of a text.
func tail(text string, n int) string {
	if len(text) > n {
		return "…" + text[len(text)-n:]
	}
	return text
}
