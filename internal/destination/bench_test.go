package destination

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exhume/exhume/schemas"
)

// BenchmarkGroup writes groups of 6 KiB files into fresh directories of eight,
// as a restore does: compare, write, commit.
func BenchmarkGroup(b *testing.B) {
	content := []byte(strings.Repeat("exhumed\n", 768))
	digest := sum(content)
	for _, n := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tree := openTree(b, filepath.Join(b.TempDir(), "root"))
			for round := 0; b.Loop(); round++ {
				g := tree.Group(schemas.Settings{}, n)
				for i := range n {
					output := fmt.Sprintf("r%d/d%d/f%d", round, i/8, i%8)
					if same, _, err := g.Compare(b.Context(), i, output, int64(len(content)), digest); same || err == nil {
						b.Fatal(output, same, err)
					}
				}
				for i := range n {
					output := fmt.Sprintf("r%d/d%d/f%d", round, i/8, i%8)
					err := g.Write(b.Context(), i, output, int64(len(content)), digest, func(w io.Writer) error {
						_, err := w.Write(content)
						return err
					})
					if err != nil {
						b.Fatal(err)
					}
				}
				if codes := commit(g); len(codes) > 0 {
					b.Fatal(codes)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "items/s")
		})
	}
}
