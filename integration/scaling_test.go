package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/schemas"
)

// queryDelay is how long the slowed archive of the benchmark takes for whatever
// it is asked.
const queryDelay = 20 * time.Millisecond

// BenchmarkScaling restores a batch from a PostgreSQL archive that needs 20 ms for
// each query with 1, 2, 4 and 8 worker processes, in small groups, so that the
// archive's answers are what the workers wait for. Ratio is the rate of one worker
// times their number against what they reach together; twice is how many items
// were done more than once.
func BenchmarkScaling(b *testing.B) {
	const items = 4_000
	var single float64
	for _, workers := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			var rate, twice float64
			for b.Loop() {
				rate, twice = scale(b, workers, items)
			}
			if workers == 1 {
				single = rate
			}
			b.ReportMetric(rate, "items/s")
			b.ReportMetric(rate/single/float64(workers), "ratio")
			b.ReportMetric(twice, "twice")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// scale restores a batch with so many workers and gives its rate, from the first
// to the last result.
func scale(tb testing.TB, workers, items int) (rate, twice float64) {
	tb.Helper()
	w := harness.New(tb)
	w.Config.Backend.Backend, w.Config.Backend.URL = archive.Postgres, dbtest.PostgresURL(tb)
	w.StoreSynthetic(tb, items)
	url := w.Config.Backend.URL
	env, _ := w.Fleet(tb, 0)
	slowed := harness.NewProxy(tb, harness.Address(tb, url), 1)
	slowed.Set(harness.Break{Delay: queryDelay})
	env = append(env, "EXHUME_GROUP_SIZE=8", "CODEX_ARCHIVE_BATCH_CONCURRENT=1", "CODEX_ARCHIVE_URL="+harness.Via(tb, url, slowed))
	var running []*harness.Role
	for i := range workers {
		running = append(running, w.Start(tb, fmt.Sprint("scaled", i), env, "worker", "--worker-name", fmt.Sprint("s", i)))
	}
	if _, said, code := w.Exhume(tb, env, "submit", "manifest.jsonl", "--by", "bench", "--batch", "b", "--root", memoryDir(tb), "--wait"); code != 0 {
		tb.Fatalf("exit code %d\n%s", code, said)
	}
	var first, last time.Time
	for _, r := range w.Results(tb, "b") {
		if first.IsZero() || r.FinishedAt.Before(first) {
			first = r.FinishedAt
		}
		if r.FinishedAt.After(last) {
			last = r.FinishedAt
		}
	}
	done := 0.0
	for _, r := range running {
		done += r.Metric(tb, "exhume_worker_results_total")
	}
	return float64(items) / last.Sub(first).Seconds(), done - float64(items)
}

// memoryDir is a directory that is kept in memory where the system has such a
// thing, so that the workers do not wait for one disk.
func memoryDir(tb testing.TB) string {
	tb.Helper()
	if _, err := os.Stat("/dev/shm"); err != nil {
		return tb.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "exhume-bench-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// A batch of ten that comes while a batch of 200,000 is under way is done within
// seconds.
func TestSmallBatchOvertakes(t *testing.T) {
	t.Parallel()
	const large, small = 200_000, 10
	w, _ := harness.Synthetic(t, 100)
	rows := w.Rows(t)
	row := func(i int64) harness.Row { return harness.Spread(rows[i%int64(len(rows))].Tombstone, i) }
	w.Manifest(t, "large.jsonl", large, row)
	w.Manifest(t, "small.jsonl", small, row)
	env, _ := w.Fleet(t, 1)
	if _, said, code := w.Exhume(t, env, "submit", "large.jsonl", "--by", "tester", "--batch", "large", "--root", w.Path("large")); code != 0 {
		t.Fatalf("exit code %d\n%s", code, said)
	}
	l := w.Ledger(t)
	for { // until it is under way
		s, _, err := l.Find(t.Context(), "large")
		if err != nil {
			t.Fatal(err)
		}
		if s.Counts.Done() > 0 {
			break
		}
	}
	start := time.Now()
	if _, said, code := w.Exhume(t, env, "submit", "small.jsonl", "--by", "tester", "--batch", "small", "--root", w.Path("small"), "--wait"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, said)
	}
	took := time.Since(start)
	s, _, err := l.Find(t.Context(), "large")
	if err != nil || s.State != schemas.StateRunning {
		t.Fatalf("the large batch is %s, %v: it ended too soon to prove anything", s.State, err)
	}
	t.Logf("the small batch took %s, beside %d of %d items of the large one", took, s.Counts.Done(), large)
	if took > 15*time.Second {
		t.Errorf("the small batch took %s", took)
	}
}
