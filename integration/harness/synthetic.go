package harness

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path"
	"testing"

	"github.com/exhume/exhume/internal/archive"
)

// Synthetic makes a world with an archive of n small files of random content and a
// manifest for them, and gives the digests by output.
func Synthetic(tb testing.TB, n int) (*World, map[string]string) {
	tb.Helper()
	w := New(tb)
	return w, w.StoreSynthetic(tb, n)
}

// StoreSynthetic fills the world's archive for Synthetic.
func (w *World) StoreSynthetic(tb testing.TB, n int) map[string]string {
	tb.Helper()
	sums := make(map[string]string, n)
	random := rand.NewChaCha8([32]byte{1})
	w.Store(tb, func(yield func(string, []byte) bool) {
		for i := range n {
			content := make([]byte, 100+i%900)
			_, _ = random.Read(content)
			output := Output(i)
			sum := sha256.Sum256(content)
			sums[output] = hex.EncodeToString(sum[:])
			if !yield(output, content) {
				return
			}
		}
	})
	return sums
}

// Output is the path of one of many items, which spread over directories.
func Output(i int) string {
	return path.Join("out", fmt.Sprint(i/500), fmt.Sprint(i/20%25), fmt.Sprintf("%d.bin", i))
}

// Store makes an archive of items, by output, and a manifest for them in their
// order.
func (w *World) Store(tb testing.TB, contents iter.Seq2[string, []byte]) {
	tb.Helper()
	ctx := context.Background()
	wr, err := archive.CreateWriter(ctx, w.Config.Backend.URL)
	if err != nil {
		tb.Fatal(err)
	}
	items := func(yield func(archive.NewItem, error) bool) {
		for output, content := range contents {
			if !yield(archive.NewItem{Repo: "synthetic", Path: output, Commit: "c", By: "test", Content: content}, nil) {
				return
			}
		}
	}
	f, err := os.Create(w.Path("manifest.jsonl"))
	if err != nil {
		tb.Fatal(err)
	}
	out := bufio.NewWriter(f)
	for s, err := range wr.Store(ctx, items, archive.StoreOptions{}) {
		if err != nil {
			tb.Fatal(err)
		}
		line, _ := json.Marshal(Row{s.Tombstone, s.Path})
		_, _ = out.Write(append(line, '\n'))
	}
	if err := errors.Join(out.Flush(), f.Close(), wr.Close()); err != nil {
		tb.Fatal(err)
	}
}

// Row is one item of a manifest.
type Row struct {
	Tombstone string `json:"tombstone"`
	Output    string `json:"output"`
}

// Rows are those of the world's manifest.
func (w *World) Rows(tb testing.TB) (rows []Row) {
	tb.Helper()
	text, err := os.ReadFile(w.Path("manifest.jsonl"))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range Lines(string(text)) {
		var row Row
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			tb.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

// Manifest writes a manifest of n items.
func (w *World) Manifest(tb testing.TB, name string, n int64, row func(index int64) Row) {
	tb.Helper()
	f, err := os.Create(w.Path(name))
	if err != nil {
		tb.Fatal(err)
	}
	out := bufio.NewWriter(f)
	for i := range n {
		line, _ := json.Marshal(row(i))
		_, _ = out.Write(append(line, '\n'))
	}
	if err := errors.Join(out.Flush(), f.Close()); err != nil {
		tb.Fatal(err)
	}
}

// Spread is a row for Manifest: the item at the index has this tombstone, and an
// output of its own, a thousand in a directory.
func Spread(tombstone string, index int64) Row {
	return Row{tombstone, fmt.Sprintf("%d/%d", index/1000, index)}
}
