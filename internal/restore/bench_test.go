package restore

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/schemas"
)

// BenchmarkRestore restores groups of 512 small files, eight a directory, from
// an archive of 4,000.
func BenchmarkRestore(b *testing.B) {
	const files, group = 4000, 512
	contents := make([][]byte, files)
	for i := range contents {
		contents[i] = fmt.Appendf(noise(i, 1000), "%s", strings.Repeat(fmt.Sprintf("line %d\n", i), 600))
	}
	path, tombstones := newArchive(b, contents...)
	root := filepath.Join(b.TempDir(), "root")
	r := New(openArchive(b, path), archive.Decode, into(b, root), Config{})
	b.ReportAllocs()
	for round := 0; b.Loop(); round++ {
		items := make([]schemas.Request, group)
		for i := range items {
			items[i] = schemas.Request{
				Batch: "b", Index: int64(i), Tombstone: tombstones[(round*group+i)%files],
				Output: fmt.Sprintf("r%d/d%d/f%d", round, i/8, i%8), Published: time.Now(),
			}
		}
		results, err := r.Restore(b.Context(), schemas.Settings{Root: root}, items)
		if err != nil {
			b.Fatal(err)
		}
		for i := range results {
			if results[i].Outcome != schemas.OutcomeRestored {
				b.Fatal(results[i])
			}
		}
	}
	b.ReportMetric(float64(group*b.N)/b.Elapsed().Seconds(), "items/s")
}
