package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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
	dir := tb.TempDir()
	w := &world{dir: dir, cfg: testConfig(tb, dir)}
	w.cfg.Backend.Backend, w.cfg.Backend.URL = archive.Postgres, dbtest.PostgresURL(tb)
	w.storeSynthetic(tb, items)
	url := w.cfg.Backend.URL
	env, _ := w.fleet(tb, 0)
	env = append(env, "EXHUME_GROUP_SIZE=8", "CODEX_ARCHIVE_BATCH_CONCURRENT=1", "CODEX_ARCHIVE_URL="+slowed(tb, url))
	var running []*role
	for i := range workers {
		running = append(running, w.start(tb, fmt.Sprint("scaled", i), env, "worker", "--worker-name", fmt.Sprint("s", i)))
	}
	if _, said, code := w.exhume(tb, env, "submit", "manifest.jsonl", "--by", "bench", "--batch", "b", "--root", memoryDir(tb), "--wait"); code != 0 {
		tb.Fatalf("exit code %d\n%s", code, said)
	}
	var first, last time.Time
	for _, r := range w.results(tb, "b") {
		if first.IsZero() || r.FinishedAt.Before(first) {
			first = r.FinishedAt
		}
		if r.FinishedAt.After(last) {
			last = r.FinishedAt
		}
	}
	done := 0.0
	for _, r := range running {
		done += r.metric(tb, "exhume_worker_results_total")
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

// slowed gives the URL of a proxy that makes a database slow.
func slowed(tb testing.TB, url string) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	head, rest, _ := strings.Cut(url, "@")
	server, database, _ := strings.Cut(rest, "/")
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { forward(c, server) })
		}
	})
	tb.Cleanup(func() { _ = l.Close(); all.Wait() })
	return head + "@" + l.Addr().String() + "/" + database
}

// forward passes on what a client asks, late, and what the server answers.
func forward(client net.Conn, server string) {
	defer client.Close() //nolint:errcheck // it may be gone
	s, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer s.Close() //nolint:errcheck // it may be gone
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(client, s)
		_ = client.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			break
		}
		<-time.After(queryDelay) // the archive thinks
		if _, err := s.Write(buf[:n]); err != nil {
			break
		}
	}
	_ = s.Close()
	<-done
}

// metric is the sum of a metric over its labels, or over those that begin as
// name tells, as a role says.
func (r *role) metric(tb testing.TB, name string) (sum float64) {
	tb.Helper()
	if !strings.Contains(name, "{") {
		name += "{"
	}
	for line := range strings.Lines(r.get(tb, "/metrics")) {
		if strings.HasPrefix(line, name) {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			if err != nil {
				tb.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// ready says whether a role says that it can work.
func (r *role) ready(tb testing.TB) bool {
	tb.Helper()
	return strings.Contains(r.get(tb, "/readyz"), `"status":"ok"`)
}

// get asks a role over HTTP.
func (r *role) get(tb testing.TB, path string) string {
	tb.Helper()
	resp, err := http.Get(r.http + path)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		tb.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return string(text)
}

// A batch of ten that comes while a batch of 200,000 is under way is done within
// seconds.
func TestSmallBatchOvertakes(t *testing.T) {
	t.Parallel()
	const large, small = 200_000, 10
	w, _ := synthetic(t, 100)
	tombstones := w.tombstones(t)
	w.manifest(t, "large.jsonl", tombstones, large)
	w.manifest(t, "small.jsonl", tombstones, small)
	env, _ := w.fleet(t, 1)
	if _, said, code := w.exhume(t, env, "submit", "large.jsonl", "--by", "tester", "--batch", "large", "--root", w.path("large")); code != 0 {
		t.Fatalf("exit code %d\n%s", code, said)
	}
	l := w.ledger(t)
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
	if _, said, code := w.exhume(t, env, "submit", "small.jsonl", "--by", "tester", "--batch", "small", "--root", w.path("small"), "--wait"); code != 0 {
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

// tombstones are those of the world's manifest.
func (w *world) tombstones(t *testing.T) (found []string) {
	t.Helper()
	text, err := os.ReadFile(w.path("manifest.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range lines(string(text)) {
		var row struct{ Tombstone string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		found = append(found, row.Tombstone)
	}
	return found
}

// manifest writes a manifest of n items that share the tombstones.
func (w *world) manifest(t *testing.T, name string, tombstones []string, n int) {
	t.Helper()
	f, err := os.Create(w.path(name))
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(f)
	for i := range n {
		_, _ = fmt.Fprintf(out, `{"tombstone":%q,"output":"%d/%d"}`+"\n", tombstones[i%len(tombstones)], i/1000, i)
	}
	if err := errors.Join(out.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
