package producer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
)

// bulk is a manifest with n valid rows.
func bulk(t testing.TB, format string, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeBulk(&b, format, n); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bulkRow is the form of a row, and what stands before, between and after rows.
var bulkRow = map[string][4]string{
	"jsonl": {"", `{"tombstone":"%s","output":"%s","actor":"actor-0"}`, "\n", "\n"},
	"csv":   {"tombstone,output,actor\n", "%s,%s,actor-0", "\n", "\n"},
	"json":  {"{\n  \"items\": [\n", "    {\n      \"tombstone\": \"%s\",\n      \"output\": \"%s\"\n    }", ",\n", "\n  ]\n}\n"},
}

func writeBulk(to io.Writer, format string, n int) error {
	f := bulkRow[format]
	w := bufio.NewWriter(to)
	_, _ = w.WriteString(f[0]) // Flush returns the first error
	for i := range n {
		tombstone := fmt.Sprintf("9039c97b-1acb-4124-a066-%012x", i)
		// Scattered, so that outputs come unsorted.
		output := fmt.Sprintf("out/golang/d%03d/sub%02d/file-%08d.go", i*7919%1000, i%64, i)
		between := f[2]
		if i == n-1 {
			between = f[3]
		}
		_, _ = fmt.Fprintf(w, f[1]+between, tombstone, output)
	}
	return w.Flush()
}

// TestManifestMemory reads a manifest far larger than what may stay in memory.
func TestManifestMemory(t *testing.T) {
	const rows, most = 250_000, 32 << 20
	r, w := io.Pipe()
	go func() {
		err := writeBulk(w, "csv", rows)
		_, _ = io.WriteString(w, tombA+",OUT/golang\n")
		_ = w.CloseWithError(err)
	}()
	m, err := OpenManifest("-", r, ManifestOptions{Actor: "x", Root: "/dest", TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	runtime.GC()
	ctx := &watchedContext{Context: t.Context()}
	ctx.watch()
	before := ctx.peak
	// The last row collides, so it is reported while the outputs are merged.
	c, err := m.Check(ctx, func(Reject) { ctx.watch() })
	if err != nil || c.Valid != rows || c.Rejected != 1 {
		t.Fatal(c, err)
	}
	n := 0
	for _, err := range m.Items(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != rows || ctx.peak > before+most {
		t.Errorf("%d items, heap grew by %d MiB", n, (ctx.peak-before)>>20)
	}
}

// watchedContext looks at the heap whenever the manifest's next block is read.
type watchedContext struct {
	context.Context
	peak uint64
}

func (c *watchedContext) Err() error {
	c.watch()
	return c.Context.Err()
}

func (c *watchedContext) watch() {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	c.peak = max(c.peak, s.HeapAlloc)
}

func BenchmarkManifestCheck(b *testing.B) {
	benchManifest(b, func(b *testing.B, m *Manifest) int64 {
		c, err := m.Check(b.Context(), func(r Reject) { b.Error(r) })
		if err != nil {
			b.Fatal(err)
		}
		return c.Valid
	})
}

func BenchmarkManifestItems(b *testing.B) {
	benchManifest(b, func(b *testing.B, m *Manifest) int64 {
		var n int64
		for _, err := range m.Items(b.Context()) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		return n
	})
}

func benchManifest(b *testing.B, read func(*testing.B, *Manifest) int64) {
	const rows = 200_000
	for _, format := range []string{"jsonl", "csv", "json", "csv.gz"} {
		b.Run(format, func(b *testing.B) {
			var data []byte
			if format == "csv.gz" {
				data = zipped(b, bulk(b, "csv", rows))
			} else {
				data = bulk(b, format, rows)
			}
			m := openManifestOf(b, data, ManifestOptions{Actor: "x"})
			if _, err := m.Check(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if n := read(b, m); n != rows {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkManifestMillions checks the largest manifest that is promised to fit;
// its peak memory is that of the process.
func BenchmarkManifestMillions(b *testing.B) {
	const rows = 5_000_000
	f, err := os.Create(b.TempDir() + "/m")
	if err != nil {
		b.Fatal(err)
	}
	if err := writeBulk(f, "jsonl", rows); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m, err := OpenManifest(f.Name(), nil, ManifestOptions{Root: "/dest", TempDir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		if c, err := m.Check(b.Context(), nil); err != nil || c.Valid != rows {
			b.Fatal(c, err)
		}
		if err := m.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
}
