package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
)

const (
	// maxSize is the largest mean size of a made-up file: one is held in memory
	// while it is packed.
	maxSize = 512 << 20
	// maxFile is the largest file of a directory that is packed.
	maxFile = 300_000
)

// corpus is what is restored.
type corpus struct {
	manifest string
	bytes    int64
}

// pack fills the archive of a configuration and writes the manifest of it.
func (w *world) pack(ctx context.Context, cfg *app.Config) (c corpus, err error) {
	c.manifest = filepath.Join(w.dir, "manifest.jsonl")
	if w.Size == 0 && w.Files == "" {
		return c, w.writeManifest(c.manifest)
	}
	if w.Files != "" {
		c.bytes, err = w.packFiles(ctx, cfg, c.manifest)
	} else {
		c.bytes, err = w.packMadeUp(ctx, cfg, c.manifest)
	}
	debug.FreeOSMemory() // which is not to count as the measured work's
	return c, err
}

// writeManifest writes a manifest of items that no archive has.
func (w *world) writeManifest(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	for i := range w.Items {
		_, _ = fmt.Fprintf(out, `{"tombstone":"00000000-0000-4000-8000-%012x","output":"%03d/%03d/file-%d.txt"}`+"\n", i, i/1_000_000, i/1000%1000, i)
	}
	return errors.Join(out.Flush(), f.Close())
}

// packFiles packs files of a directory.
func (w *world) packFiles(ctx context.Context, cfg *app.Config, manifest string) (int64, error) {
	paths, err := findFiles(w.Files, w.Items)
	if err != nil {
		return 0, err
	}
	var failed error
	n, err := app.Store(ctx, cfg, app.StoreOptions{
		Item: archive.NewItem{Repo: "bench", Commit: "bench", By: "bench"}, Paths: paths, Manifest: manifest,
		Stored: func(archive.Stored) error { return nil },
		Failed: func(path string, err error) { failed = errors.Join(failed, fmt.Errorf("%s: %w", path, err)) },
	})
	return n.Bytes, errors.Join(err, failed)
}

// findFiles finds n files below some directories, with colons between.
func findFiles(dirs string, n int) (paths []string, err error) {
	for _, dir := range filepath.SplitList(dirs) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if len(paths) == n {
				return fs.SkipAll
			}
			if info, err := d.Info(); err == nil && d.Type().IsRegular() && info.Size() <= maxFile {
				paths = append(paths, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(paths) < n {
		return nil, fmt.Errorf("%s: found %d files of at most %d bytes, want %d: name more directories, with colons between, or fewer items",
			dirs, len(paths), maxFile, n)
	}
	return paths, nil
}

// packMadeUp packs files of made-up text.
func (w *world) packMadeUp(ctx context.Context, cfg *app.Config, manifest string) (bytes int64, err error) {
	wr, err := archive.CreateWriter(ctx, cfg.Backend.URL)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, wr.Close()) }()
	f, err := os.Create(manifest)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriter(f)
	defer func() { err = errors.Join(err, out.Flush(), f.Close()) }()
	items := func(yield func(archive.NewItem, error) bool) {
		text := newText()
		for i := range w.Items {
			path := fmt.Sprintf("%03d/%03d/file-%d.txt", i/10_000, i/100%100, i)
			if !yield(archive.NewItem{Repo: "bench", Path: path, Commit: "bench", By: "bench", Content: text.next(w.Size, w.Mode == Large)}, nil) {
				return
			}
		}
	}
	for s, err := range wr.Store(ctx, items, archive.StoreOptions{}) {
		if err != nil {
			return bytes, err
		}
		bytes += s.Size
		line, err := json.Marshal(map[string]string{"tombstone": s.Tombstone, "output": s.Path})
		if err != nil {
			return bytes, err
		}
		_, _ = out.Write(append(line, '\n'))
	}
	return bytes, nil
}

// text makes up text that compresses about as well as program sources: words,
// the frequent ones much more frequent than the others.
type text struct {
	random *rand.Rand
	words  []string
}

func newText() *text {
	t := &text{random: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // repeatable, guards nothing
	for range 4096 {
		var word strings.Builder
		for range 1 + t.random.IntN(11) {
			word.WriteByte(byte('a' + t.random.IntN(26)))
		}
		t.words = append(t.words, word.String())
	}
	return t
}

// next makes up a text of the size, or, unless it is exact, of one around it, as
// sizes of files are distributed: most are smaller, some much larger.
func (t *text) next(size int64, exact bool) []byte {
	n := int(size)
	if !exact {
		n = int(min(float64(size)*math.Exp(t.random.NormFloat64()-0.5), 30*float64(size)))
	}
	out := make([]byte, 0, n+16)
	for len(out) < n {
		u := t.random.Float64()
		out = append(out, t.words[int(u*u*u*float64(len(t.words)))]...)
		out = append(out, " \n"[t.random.IntN(12)/11])
	}
	return out[:n]
}
