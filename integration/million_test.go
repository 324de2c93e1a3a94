package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/schemas"
)

// manyItems is how many items TestSteerMany has, unless EXHUME_TEST_ITEMS says it.
// The race detector makes a hundred thousand take a minute.
const manyItems = 30_000

// The tombstones of items that a tally restores, and of those that it does not.
const (
	goodTombstone    = "00000000-0000-4000-8000-000000000001"
	spoiledTombstone = "00000000-0000-4000-8000-00000000dead"
)

// tally is a restorer that restores nothing, says that it has, and counts.
type tally struct {
	// delay is how long it takes for each group.
	delay time.Duration
	// size is how many items a batch has, for through.
	size int64
	// through, if set, is closed when the first batch has no more items.
	through chan struct{}

	mu sync.Mutex
	// items are those of each batch; at is when a group was last taken.
	items map[string]int64
	at    time.Time
	// atThrough are the items when through was closed.
	atThrough map[string]int64
}

// Restore fails what has the spoiled tombstone.
func (y *tally) Restore(_ context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	y.mu.Lock()
	y.at = time.Now()
	y.mu.Unlock()
	if y.delay > 0 {
		<-time.After(y.delay)
	}
	done := make([]schemas.Result, len(items))
	for i, r := range items {
		done[i] = schemas.Result{Request: r, Outcome: schemas.OutcomeRestored, Repo: "none", Path: r.Output, Target: s.Root + "/" + r.Output}
		if r.Tombstone == spoiledTombstone {
			done[i] = schemas.Result{Request: r, Outcome: schemas.OutcomeFailed, Code: schemas.CodeTombstoneNotFound, Detail: "it is spoiled"}
		}
	}
	y.count(items[0].Batch, int64(len(items)))
	return done, nil
}

func (y *tally) count(batch string, n int64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.items == nil {
		y.items = map[string]int64{}
	}
	y.items[batch] += n
	if y.through != nil && y.atThrough == nil && y.items[batch] >= y.size {
		y.atThrough = maps.Clone(y.items)
		close(y.through)
	}
}

// done is how many items of a batch were done, and when the last were taken.
func (y *tally) done(batch string) (n int64, at time.Time) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.items[batch], y.at
}

// tallied is a world for a tally, with a manifest of n items: those at the
// indexes that spoiled names, and no others, are spoiled.
func tallied(tb testing.TB, n int64, spoiled func(index int64) bool) *harness.World {
	tb.Helper()
	w, _ := harness.Synthetic(tb, 1)
	w.Config.Exhume.ArchiveEvents = false // of items that the archive does not have
	w.Config.Exhume.ReportDir = "off"     // comes after the batch
	w.Manifest(tb, "manifest.jsonl", n, func(i int64) harness.Row {
		if spoiled != nil && spoiled(i) {
			return harness.Spread(spoiledTombstone, i)
		}
		return harness.Spread(goodTombstone, i)
	})
	return w
}

// controls opens the world's control API, by a connection of its own where a
// fleet works.
func controls(tb testing.TB, w *harness.World) *app.Controls {
	tb.Helper()
	waiting := func(owner string) { tb.Logf("the controls wait for %s", owner) }
	c, err := app.OpenControls(tb.Context(), w.Config, waiting, zerolog.Nop())
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func closed(tb testing.TB, c *app.Controls) {
	tb.Helper()
	if err := c.Close(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

// command is one by the test.
func command() schemas.Command { return schemas.Command{ID: uuid.NewString(), Actor: "tester"} }

// change pauses, resumes or cancels a batch, and gives how long that took.
func change(tb testing.TB, c *app.Controls, id string, on schemas.Change) time.Duration {
	tb.Helper()
	begun := time.Now()
	if _, err := c.Change(tb.Context(), schemas.BatchChange{BatchRef: schemas.BatchRef{Ref: id}, Command: command(), Change: on}); err != nil {
		tb.Fatalf("%s %s: %v", on, id, err)
	}
	return time.Since(begun)
}

// asked asks why a batch is not done, naming a hundred open items,
// which must be answered soon however many are open.
func asked(t *testing.T, c *app.Controls, id string) (schemas.Whereabouts, time.Duration) {
	t.Helper()
	begun := time.Now()
	why, err := c.Why(t.Context(), schemas.WhyQuery{BatchRef: schemas.BatchRef{Ref: id}, Items: 100})
	took := time.Since(begun)
	if err != nil {
		t.Fatal(err)
	}
	if took > 2*time.Second {
		t.Errorf("why took %s with %d items open", took, why.Open)
	}
	return why, took
}

// heldBy is how many items workers have in hand.
func heldBy(workers []schemas.WorkerStatus) (n int64) {
	for _, w := range workers {
		n += w.Items
	}
	return n
}

// soundly checks that ledger, evidence and queue agree on a batch.
func soundly(t *testing.T, c *app.Controls, id string) {
	t.Helper()
	a, err := c.Audit(t.Context(), id)
	if err != nil || len(a.Problems) > 0 {
		t.Errorf("audit of %s: %v, %q", id, err, a.Problems)
	}
}

// A large batch is held after its sample, resumed, paused, resumed and cancelled,
// and each of these takes effect at once, however many items are open. It runs
// alone: it measures.
func TestSteerMany(t *testing.T) {
	n := int64(manyItems)
	if more := os.Getenv("EXHUME_TEST_ITEMS"); more != "" {
		var err error
		if n, err = strconv.ParseInt(more, 10, 64); err != nil || n < 10_000 {
			t.Fatalf("EXHUME_TEST_ITEMS is %q: want a number of at least 10000", more)
		}
	}
	canary := &schemas.Canary{Size: n / 100}
	const failing, id = 5, "many"
	w := tallied(t, n, func(i int64) bool { return i%(n/failing) == 99 })
	// A million are not held up by this, and few do not end before they are steered.
	y := &tally{delay: 6 * time.Second * time.Duration(2*w.Config.Exhume.GroupSize) / time.Duration(n)}
	restore := func() (app.Batch, error) {
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute) // one that hangs is interrupted
		defer stop()
		return w.RestoreContext(ctx, t, "manifest.jsonl", func(o *app.BatchOptions) {
			o.Name, o.Trial.Restorer = id, y
			o.Terms = func(int64) (schemas.Terms, error) { return schemas.Terms{Canary: canary}, nil }
		})
	}

	// The sample holds the batch.
	_, err := restore()
	held, ok := errors.AsType[*app.PausedError](err)
	if !ok {
		t.Fatalf("the batch is not held: %v", err)
	}
	s := held.Summary
	if s.Reason != schemas.ReasonCanaryFailed || s.Counts.Done() != canary.Size || s.Counts.Failed != failing || s.Total != n {
		t.Fatalf("held: %s (%s), %d items, %+v", s.State, s.Reason, s.Total, s.Counts)
	}
	for _, r := range w.Results(t, id) {
		if !canary.Has(r.Index, n) {
			t.Fatalf("item %d has a result (%s) and is not in the sample", r.Index, r.Outcome)
		}
	}
	if did, _ := y.done(id); did != canary.Size {
		t.Errorf("%d items were tried, want the %d of the sample", did, canary.Size)
	}
	t.Logf("%d items, a sample of %d: held %s after the batch was opened", n, canary.Size, s.Since.Sub(s.CreatedAt))

	c := controls(t, w)
	if !c.Local() {
		t.Fatal("a fleet works although its batch has stopped")
	}
	why, took := asked(t, c, id)
	if why.State != schemas.StatePaused || why.Open != n-canary.Size || why.Waiting == 0 || why.InHand != 0 || len(why.Items) != 100 {
		t.Errorf("why: %s (%s), %d open, %d messages waiting, %d in hand, %d items", why.State, why.Reason, why.Open, why.Waiting, why.InHand, len(why.Items))
	}
	t.Logf("why, of a batch that is held with %d items open: %s", why.Open, took)
	soundly(t, c, id)
	t.Logf("resumed in %s", change(t, c, id, schemas.ChangeResume))
	closed(t, c)

	// Paused, it stops.
	type outcome struct {
		app.Batch
		err error
		at  time.Time
	}
	ended := make(chan outcome, 1)
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // if the test fails, the end of its context ends it
	running.Go(func() {
		b, err := restore()
		ended <- outcome{b, err, time.Now()}
	})
	reaches := func(want int64) {
		harness.WaitFor(t, fmt.Sprint(want, " items"), func() bool { did, _ := y.done(id); return did >= want })
	}
	reaches(canary.Size + 1)
	c = controls(t, w)
	if c.Local() {
		t.Fatal("the controls do not find the fleet")
	}
	reaches(n / 4)
	begun, did, at := time.Now(), int64(0), time.Time{}
	t.Logf("paused in %s", change(t, c, id, schemas.ChangePause))
	harness.WaitFor(t, "what is in hand", func() bool {
		if did, at = y.done(id); at.Sub(begun) > 2*time.Second {
			t.Fatalf("items were taken %s after the pause", at.Sub(begun))
		}
		why, took = asked(t, c, id)
		return heldBy(why.Workers) == 0 && why.Open == n-did
	})
	t.Logf("the last items were taken %s after the pause; idle and recorded after %s, with %d items open", max(0, at.Sub(begun)), time.Since(begun), why.Open)
	t.Logf("why, of a batch that is paused: %s", took)
	if why.State != schemas.StatePaused || why.Reason != schemas.ReasonPaused {
		t.Errorf("why: %s (%s)", why.State, why.Reason)
	}
	soundly(t, c, id)
	if now, _ := y.done(id); now != did || did == n {
		t.Errorf("%d items were tried when the batch stood still, %d of %d later", did, now, n)
	}

	// Cancelled, it ends.
	t.Logf("resumed in %s", change(t, c, id, schemas.ChangeResume))
	reaches(n / 2)
	begun = time.Now()
	t.Logf("cancelled in %s", change(t, c, id, schemas.ChangeCancel))
	closed(t, c)
	b := <-ended
	if b.err != nil {
		t.Fatalf("cancelled: %v", b.err)
	}
	did, at = y.done(id)
	if b.State != schemas.StateCancelled || b.Counts.Restored+b.Counts.Failed != did || did+b.Counts.Cancelled != n || b.Counts.Done() != n || did == n {
		t.Errorf("cancelled: %s (%s), %d items were tried, %+v", b.State, b.Reason, did, b.Counts)
	}
	t.Logf("the last items were taken %s after the cancel; ended after %s with %d items cancelled; all was closed after %s",
		max(0, at.Sub(begun)), b.EndedAt.Sub(begun), b.Counts.Cancelled, b.at.Sub(begun))

	c = controls(t, w)
	soundly(t, c, id)
	closed(t, c)
	if lines, err := evidence.Verify(app.EvidencePath(w.Config)); err != nil || lines.Lines < n {
		t.Errorf("evidence: %d lines for %d items, %v", lines.Lines, n, err)
	}
	w.CheckNothingLeft(t)
}

// BenchmarkFairness measures what batches that all begin at once have been given
// when the first of them is through: of each priority, and alike ones. And what a
// limit on the fleet comes to when workers join.
func BenchmarkFairness(b *testing.B) {
	b.Run("priorities", func(b *testing.B) {
		share(b, schemas.PriorityUrgent, schemas.PriorityNormal, schemas.PriorityBulk)
	})
	b.Run("alike", func(b *testing.B) { share(b, schemas.PriorityNormal, schemas.PriorityNormal) })
	b.Run("limit", limited)
}

// share has one worker work on batches of these priorities.
func share(b *testing.B, priorities ...schemas.Priority) {
	const size = 60_000
	var got map[string]int64
	for b.Loop() {
		got = together(b, size, priorities)
	}
	var items, weights int64
	for i, p := range priorities {
		items += got[batchName(i, p)]
		weights += p.Weight()
	}
	for i, p := range priorities {
		name := batchName(i, p)
		b.ReportMetric(float64(got[name]), name+"-items")
		b.ReportMetric(100*float64(got[name])/float64(items), name+"-%")
		b.ReportMetric(100*float64(p.Weight())/float64(weights), name+"-wanted-%")
	}
	b.ReportMetric(0, "ns/op")
}

func batchName(i int, p schemas.Priority) string { return fmt.Sprint(p, i+1) }

// together lets batches of so many items begin at once, and gives what was done of
// each when the first was through.
func together(tb testing.TB, size int64, priorities []schemas.Priority) map[string]int64 {
	tb.Helper()
	w := tallied(tb, size, nil)
	// As long as small files take, so that there is always somebody waiting for room.
	y := &tally{delay: 20 * time.Millisecond, size: size, through: make(chan struct{})}
	ctx, stop := context.WithCancel(tb.Context())
	defer stop()
	restore := func(i int, o app.BatchOptions) error {
		o.Manifest, o.Actor, o.Name, o.Trial.Restorer = w.Path("manifest.jsonl"), "tester", batchName(i, priorities[i]), y
		o.Terms = func(int64) (schemas.Terms, error) { return schemas.Terms{Priority: priorities[i]}, nil }
		_, err := app.BatchRestore(ctx, w.Config, o, zerolog.Nop())
		return err
	}
	// All but the last wait to be resumed, everything for the end of a pause.
	last := len(priorities) - 1
	for i := range last {
		if err := restore(i, app.BatchOptions{Hold: true, Progress: harness.Quiet{}}); !isPaused(err) {
			tb.Fatalf("held: %v", err)
		}
	}
	c := controls(tb, w)
	steerFleet(tb, c, schemas.FleetChange{Pause: new(true)})
	closed(tb, c)
	ended, submitted := make(chan error, 1), &submission{all: make(chan struct{})}
	go func() { ended <- restore(last, app.BatchOptions{Progress: submitted}) }()
	select {
	case <-submitted.all:
	case err := <-ended:
		tb.Fatalf("it ended before it began: %v", err)
	}
	c = controls(tb, w)
	for i := range last {
		change(tb, c, batchName(i, priorities[i]), schemas.ChangeResume)
	}
	steerFleet(tb, c, schemas.FleetChange{Pause: new(false)})
	closed(tb, c)
	select {
	case <-y.through:
	case <-time.After(time.Minute):
		tb.Error("no batch was through within a minute")
	}
	stop()
	if err := <-ended; err != nil && !errors.Is(err, app.ErrInterrupted) {
		tb.Error(err)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.atThrough
}

func isPaused(err error) bool {
	_, ok := errors.AsType[*app.PausedError](err)
	return ok
}

func steerFleet(tb testing.TB, c *app.Controls, q schemas.FleetChange) {
	tb.Helper()
	q.Command = command()
	if _, err := c.ChangeFleet(tb.Context(), q); err != nil {
		tb.Fatal(err)
	}
}

// submission closes all when everything is published.
type submission struct {
	harness.Quiet
	once sync.Once
	all  chan struct{}
}

func (s *submission) Submitting(published, total int64) {
	if published == total {
		s.once.Do(func() { close(s.all) })
	}
}

// limited has one worker restore small files under a limit on the fleet, and then
// two others join it, one after the other.
func limited(b *testing.B) {
	// So long each number of workers is measured, in items.
	const limit, window, most = 2_000, 20_000, 3
	rates := make([]float64, most+1)
	for b.Loop() {
		w, root := tombstoned(b, 2*most*window), memoryDir(b)
		env, _ := w.Fleet(b, 0)
		succeed(b, w, env, "limits", "set", "--items", fmt.Sprint(limit))
		succeed(b, w, env, "submit", "manifest.jsonl", "--by", "tester", "--batch", "b", "--root", root)
		var workers []*harness.Role
		did := func() (n float64) {
			for _, r := range workers {
				n += r.Metric(b, "exhume_worker_results_total")
			}
			return n
		}
		for len(workers) < most {
			name := fmt.Sprint("w", len(workers)+1)
			joined := w.Start(b, name, env, "worker", "--worker-name", name)
			workers = append(workers, joined)
			harness.WaitFor(b, "the first results of "+name, func() bool { return joined.Metric(b, "exhume_worker_results_total") > 0 })
			before, begun := did(), time.Now()
			var now float64
			harness.WaitFor(b, "the window", func() bool { now = did(); return now >= before+window })
			rates[len(workers)] = (now - before) / time.Since(begun).Seconds()
		}
	}
	for n, rate := range rates[1:] {
		b.ReportMetric(rate, fmt.Sprintf("%d-workers-items/s", n+1))
	}
	b.ReportMetric(limit, "limit-items/s")
	b.ReportMetric(0, "ns/op")
}

// tombstoned is a world with one small artifact and a manifest that wants it n
// times.
func tombstoned(tb testing.TB, n int64) *harness.World {
	tb.Helper()
	w, _ := harness.Synthetic(tb, 1)
	tombstone := w.Rows(tb)[0].Tombstone
	w.Manifest(tb, "manifest.jsonl", n, func(i int64) harness.Row { return harness.Spread(tombstone, i) })
	return w
}

// succeed runs a command that must succeed.
func succeed(tb testing.TB, w *harness.World, env []string, args ...string) {
	tb.Helper()
	if out, said, code := w.Exhume(tb, env, args...); code != 0 {
		tb.Fatalf("%q: exit code %d\n%s%s", args, code, out, said)
	}
}
