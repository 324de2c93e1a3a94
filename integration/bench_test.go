package integration

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// benchFiles is how many real files the benchmarks restore.
const benchFiles = 20_000

// BenchmarkBatch restores a batch of real files (of the Go distribution and the
// module cache, 300 kB at most) from a SQLite archive through the whole
// pipeline, durably: manifest, queue, workers, results, ledger, evidence and
// archive events.
//
// Each run has a fresh copy of the archive, a fresh state and a fresh
// destination; the figures are medians of the runs.
func BenchmarkBatch(b *testing.B) {
	dir := benchWorld(b)
	var rates []rate
	for b.Loop() {
		b.StopTimer()
		run := freshDir(b, dir)
		cfg := testConfig(b, run)
		copyFile(b, filepath.Join(dir, "archive.sqlite"), filepath.Join(run, "archive.sqlite"))
		b.StartTimer()
		start := time.Now()
		batch, err := app.BatchRestore(b.Context(), cfg, app.BatchOptions{
			Manifest: filepath.Join(dir, "manifest.jsonl"), Actor: "bench", Root: filepath.Join(run, "out"), Progress: quiet{},
		}, zerolog.Nop())
		if err != nil {
			b.Fatal(err)
		}
		if batch.Counts.Restored != batch.Total {
			b.Fatalf("restored %d of %d", batch.Counts.Restored, batch.Total)
		}
		rates = append(rates, newRate(batch.Counts.Restored, batch.Counts.Bytes, start))
	}
	report(b, rates)
}

// bench is the benchmarks' common world, which is removed when all have run:
// file systems are slow for a while after a mass delete.
var bench struct {
	once   sync.Once
	dir    string
	stored bool
}

// benchWorld stores the benchmarks' files, once.
func benchWorld(b *testing.B) string {
	b.Helper()
	bench.once.Do(func() {
		dir, err := os.MkdirTemp("", "exhume-bench-")
		if err != nil {
			b.Fatal(err)
		}
		bench.dir = dir
		_, err = app.Store(b.Context(), testConfig(b, dir), app.StoreOptions{
			Item:     archive.NewItem{Repo: "bench", Commit: "bench", By: "bench"},
			Paths:    realFiles(b, benchFiles),
			Manifest: filepath.Join(dir, "manifest.jsonl"),
			Stored:   func(archive.Stored) error { return nil },
			Failed:   func(path string, err error) { b.Errorf("%s: %v", path, err) },
		})
		if err != nil {
			b.Fatal(err)
		}
		bench.stored = true
	})
	if !bench.stored {
		b.Fatal("no archive to restore from")
	}
	return bench.dir
}

// realFiles finds n files of the Go distribution and the module cache.
func realFiles(b *testing.B, n int) []string {
	b.Helper()
	var files []string
	for _, top := range []string{runtime.GOROOT(), moduleCache()} { //nolint:staticcheck // the test binary runs where it was built
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || len(files) == n {
				return fs.SkipAll
			}
			if info, err := d.Info(); err == nil && d.Type().IsRegular() && info.Size() <= 300_000 {
				files = append(files, path)
			}
			return nil
		})
	}
	if len(files) < n {
		b.Fatalf("found %d files, want %d; run 'go mod download' first", len(files), n)
	}
	return files
}

func moduleCache() string {
	if dir := os.Getenv("GOMODCACHE"); dir != "" {
		return dir
	}
	if dir := os.Getenv("GOPATH"); dir != "" {
		return filepath.Join(dir, "pkg", "mod")
	}
	home, _ := os.UserHomeDir()
	return filepath.Join(home, "go", "pkg", "mod")
}

// quiet hears of progress and says nothing.
type quiet struct{}

func (quiet) Waiting(string)            {}
func (quiet) Checking(int64)            {}
func (quiet) Submitting(_, _ int64)     {}
func (quiet) Restoring(schemas.Summary) {}

// BenchmarkRaw restores the same files with the same checks and the same
// durability, but without a queue, results, ledger or evidence: the loop that
// BenchmarkBatch is to be held against, in one run.
func BenchmarkRaw(b *testing.B) {
	dir := benchWorld(b)
	source, err := archive.OpenReader(b.Context(), filepath.Join(dir, "archive.sqlite"))
	if err != nil {
		b.Fatal(err)
	}
	defer source.Close() //nolint:errcheck // opened for reading
	requests := manifestRequests(b, filepath.Join(dir, "manifest.jsonl"))
	var rates []rate
	for b.Loop() {
		start := time.Now()
		tree, err := destination.OpenTree(filepath.Join(freshDir(b, dir), "out"))
		if err != nil {
			b.Fatal(err)
		}
		newGroup := func(s schemas.Settings, n int) (restore.Group, error) { return tree.Group(s, n), nil }
		r := restore.New(source, archive.Decode, newGroup, restore.Config{Threads: runtime.NumCPU()})
		var bytes atomic.Int64
		var g errgroup.Group
		g.SetLimit(2) // as many groups as a worker has in hand
		for group := range slices.Chunk(requests, 512) {
			g.Go(func() error {
				done, err := r.Restore(b.Context(), schemas.Settings{}, group)
				for i := range done {
					if done[i].Outcome != schemas.OutcomeRestored {
						b.Errorf("%s: %s", done[i].Output, done[i].Detail)
					}
					bytes.Add(done[i].Size)
				}
				return err
			})
		}
		if err := errors.Join(g.Wait(), tree.Close()); err != nil {
			b.Fatal(err)
		}
		rates = append(rates, newRate(int64(len(requests)), bytes.Load(), start))
	}
	report(b, rates)
}

// rate is what one run did, a second.
type rate struct{ items, megabytes float64 }

func newRate(items, bytes int64, start time.Time) rate {
	seconds := time.Since(start).Seconds()
	return rate{float64(items) / seconds, float64(bytes) / 1e6 / seconds}
}

// report reports the median run.
func report(b *testing.B, rates []rate) {
	b.Helper()
	slices.SortFunc(rates, func(x, y rate) int { return cmp.Compare(x.items, y.items) })
	median := rates[len(rates)/2]
	b.ReportMetric(median.items, "items/s")
	b.ReportMetric(median.megabytes, "MB/s")
	if peak, err := memoryPeak(os.Getpid()); err == nil {
		b.ReportMetric(float64(peak)/1e6, "peak-MB")
	}
	b.ReportMetric(0, "ns/op")
}

// copyFile copies a file and waits until it is on disk, so that no run pays for
// its own preparation.
func copyFile(b *testing.B, from, to string) {
	b.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		b.Fatal(err)
	}
}

func freshDir(b *testing.B, parent string) string {
	b.Helper()
	dir, err := os.MkdirTemp(parent, "out-")
	if err != nil {
		b.Fatal(err)
	}
	return dir
}

// manifestRequests reads a manifest as requests.
func manifestRequests(b *testing.B, path string) []schemas.Request {
	b.Helper()
	m, err := producer.OpenManifest(path, nil, producer.ManifestOptions{Actor: "bench", Root: "/"})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close() //nolint:errcheck // temporaries only
	if _, err := m.Check(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	var requests []schemas.Request
	for r, err := range m.Items(b.Context()) {
		if err != nil {
			b.Fatal(err)
		}
		requests = append(requests, r)
	}
	return requests
}
