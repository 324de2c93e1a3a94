package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/producer"
)

// demoFiles is how many files the demo packs at most.
const demoFiles = 20_000

func (c *cli) demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "demo [DIRECTORY]",
		GroupID: groupRestore,
		Short:   "Pack a directory into an archive, restore it, and compare every byte",
		Long: `Pack the files of a directory (default: exhume's own sources when run among them,
else the current directory) into a fresh archive in a temporary folder, restore
them through the embedded fleet, and compare every byte. The directory itself is
only read.`,
		Example: `  exhume demo
  exhume demo ~/documents`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := sourcesOr(".")
			if len(args) == 1 {
				dir = args[0]
			}
			return c.demo(cmd, dir)
		},
	}
	return cmd
}

// sourcesOr finds exhume's own sources around the current directory.
func sourcesOr(fallback string) string {
	dir, err := os.Getwd()
	for err == nil {
		mod, rerr := os.ReadFile(filepath.Join(dir, "go.mod"))
		if rerr == nil && bytes.Contains(mod, []byte("module github.com/exhume/exhume\n")) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return fallback
}

func (c *cli) demo(cmd *cobra.Command, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "exhume-demo-")
	if err != nil {
		return err
	}
	cfg, err := app.LocalConfig(tmp, nil)
	if err != nil {
		return err
	}
	stored, err := c.demoStore(cmd, cfg, dir, tmp)
	if err != nil {
		return err
	}
	leftOut := map[int64]bool{} // by line of the manifest
	p := newProgress(c.err)
	start := time.Now()
	batch, err := app.BatchRestore(cmd.Context(), cfg, app.BatchOptions{
		Manifest: filepath.Join(tmp, "manifest.jsonl"), Actor: "demo", Root: filepath.Join(tmp, "restored"), Progress: p,
		SkipInvalid: true,
		Rejected: func(r producer.Reject) {
			c.say("left out: %s", r)
			leftOut[r.Line] = true
		},
	}, c.logger(cfg))
	p.finish()
	if err != nil {
		return err
	}
	c.summary(cfg, batch, time.Since(start))
	line := int64(0)
	stored = slices.DeleteFunc(stored, func(string) bool {
		line++
		return leftOut[line]
	})
	different, err := compareTrees(dir, filepath.Join(tmp, "restored"), stored)
	if err != nil {
		return err
	}
	for _, path := range different {
		c.say("different: %s", path)
	}
	if len(different) > 0 || int64(len(stored)) != batch.Counts.Restored {
		return fmt.Errorf("%d of %d files differ, %d were restored", len(different), len(stored), batch.Counts.Restored)
	}
	c.say("Compared: all %d files are equal, byte by byte.", len(stored))
	c.nextSteps(tmp, batch)
	return nil
}

// demoStore packs the directory and gives the paths that were stored.
func (c *cli) demoStore(cmd *cobra.Command, cfg *app.Config, dir, tmp string) ([]string, error) {
	start := time.Now()
	var stored []string
	n, err := app.Store(cmd.Context(), cfg, app.StoreOptions{
		Item:  archive.NewItem{Repo: "demo", Commit: "demo", By: "demo"},
		Paths: []string{dir}, Base: dir, Limit: demoFiles,
		Manifest: filepath.Join(tmp, "manifest.jsonl"),
		Stored: func(s archive.Stored) error {
			stored = append(stored, s.Path)
			return nil
		},
		Failed: func(path string, err error) { c.say("left out: %s: %v", path, err) },
	})
	if err != nil {
		return nil, err
	}
	if n.Stored == 0 {
		return nil, fmt.Errorf("%s: no files to pack; name another directory", dir)
	}
	c.say("Packed %d files (%s) of %s in %.2f s.", n.Stored, bytesText(n.Bytes), dir, time.Since(start).Seconds())
	return stored, nil
}

func (c *cli) nextSteps(tmp string, b app.Batch) {
	again := ""
	if b.Rejected > 0 {
		again = " --on-invalid skip"
	}
	c.say(`
Everything is in %[1]s. Try, from there:
  cd %[1]s
  export CODEX_ARCHIVE_URL=sqlite:///./archive.sqlite
  exhume batch show %[2]s
  exhume batch results latest -o csv | head
  exhume list --limit 5
  exhume batch-restore manifest.jsonl --by me --root restored%[3]s
  tail -n 1 .codex/evidence/archive_ops.jsonl
(exhume stands for 'go run ./cmd/exhume' or the binary that 'make build' puts into bin/.)
Remove it with: rm -r %[1]s`, tmp, b.ID, again)
}

// compareTrees gives the paths whose content is not the same in both trees.
func compareTrees(a, b string, paths []string) (different []string, err error) {
	for _, p := range paths {
		same, err := sameContent(filepath.Join(a, p), filepath.Join(b, p))
		if err != nil {
			return nil, err
		}
		if !same {
			different = append(different, p)
		}
	}
	return different, nil
}

func sameContent(a, b string) (same bool, err error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close() //nolint:errcheck // opened for reading
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close() //nolint:errcheck // opened for reading
	ra, rb := bufio.NewReaderSize(fa, 64<<10), bufio.NewReaderSize(fb, 64<<10)
	bufA, bufB := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		na, ea := io.ReadFull(ra, bufA)
		nb, eb := io.ReadFull(rb, bufB)
		if !bytes.Equal(bufA[:na], bufB[:nb]) {
			return false, nil
		}
		if ended(ea) || ended(eb) {
			return ended(ea) && ended(eb), nil
		}
		if err := errors.Join(ea, eb); err != nil {
			return false, err
		}
	}
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
