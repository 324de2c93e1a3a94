package destination

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/schemas"
)

func TestOutputsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	write(t, filepath.Join(root, "file"), "a file")
	write(t, filepath.Join(dir, "secret"), ours)
	must(t, os.Symlink("..", filepath.Join(root, "up")))
	must(t, os.Symlink(dir, filepath.Join(root, "away")))
	must(t, os.Symlink("nowhere", filepath.Join(root, "dangling")))
	must(t, os.Symlink("loop", filepath.Join(root, "loop")))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	before := files(t, dir)
	tree := openTree(t, root)
	for _, output := range []string{
		"", ".", "..", "/", "/etc/exhume", "../secret", "../x/y", "a/..", "a/../../secret", "a/../b", "./a", "a//b", "a/", "a/.",
		"a\x00b", "a\x00/b", ".exhume-12345678/1", "a/.exhume-x", strings.Repeat("n", 256), strings.Repeat("n", 256) + "/f",
		"up/secret", "away/secret", "away/x/y", "dangling/f", "loop/f", "file/f", "file/d/f", "fifo/f",
	} {
		for _, n := range groupSizes {
			g := tree.Group(schemas.Settings{Overwrite: schemas.OverwriteAlways}, n)
			same, _, err := g.Compare(t.Context(), 0, output, int64(len(ours)), sum([]byte(ours)))
			if same || codeOfError(err) != schemas.CodePathRefused && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("compare %q: same %v, %v", output, same, err)
			}
			code := codeOfError(put(g, 1, output, "evil"))
			if code == "" {
				code = commit(g)[1] // some are known only when they are placed
			} else {
				g.Abort()
			}
			if code != schemas.CodePathRefused {
				t.Errorf("write %q: code %q", output, code)
			}
		}
	}
	if diff := cmp.Diff(before, visible(t, dir)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}

func TestSymlinksInside(t *testing.T) {
	t.Parallel()
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(root, "real/deep"), 0o755))
			must(t, os.Symlink("real", filepath.Join(root, "link")))
			must(t, os.Symlink("../../link", filepath.Join(root, "real/deep/back")))
			g := openTree(t, root).Group(schemas.Settings{}, n)
			must(t, put(g, 0, "link/new/f", ours))
			must(t, put(g, 1, "real/deep/back/g", ours))
			if codes := commit(g); len(codes) > 0 {
				t.Error(codes)
			}
			want := map[string]string{"link": "L---------", "real/deep/back": "L---------", "real/new/f": ours, "real/g": ours}
			if diff := cmp.Diff(want, visible(t, root)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// An adversary turns a directory and a file into symlinks and FIFOs, and back,
// all the time.
func TestNamesSwappedAllTheTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	write(t, filepath.Join(outside, "d/f"), "precious")
	write(t, filepath.Join(root, "d/f"), "old")
	ctx, stop := context.WithCancel(t.Context())
	var adversary sync.WaitGroup
	defer adversary.Wait()
	defer stop()
	adversary.Go(func() {
		in := func(name string) string { return filepath.Join(root, name) }
		for i := 0; ctx.Err() == nil; i++ {
			_ = os.Rename(in("d"), in(fmt.Sprintf("aside%d", i)))
			_ = os.Symlink(filepath.Join(outside, "d"), in("d"))
			_ = os.Remove(in("d"))
			_ = unix.Mkfifo(in("d"), 0o600)
			_ = os.Remove(in("d"))
			_ = os.Rename(in(fmt.Sprintf("aside%d", i)), in("d"))
			_ = os.WriteFile(in("harmless"), []byte("harmless"), 0o600) // as long as what is outside
			_ = os.Rename(in("harmless"), in("d/f"))
			_ = os.Remove(in("d/f"))
			_ = os.Symlink(filepath.Join(outside, "d/f"), in("d/f"))
			_ = os.Remove(in("d/f"))
			_ = unix.Mkfifo(in("d/f"), 0o600)
			_ = os.Remove(in("d/f"))
		}
	})
	tree := openTree(t, root)
	for i := range 400 {
		n := 1 + i%2*7
		g := tree.Group(schemas.Settings{Overwrite: schemas.OverwriteIfDifferent}, n)
		for range 50 {
			if same, _, _ := g.Compare(t.Context(), 1, "d/f", int64(len("precious")), sum([]byte("precious"))); same {
				t.Fatal("read the file outside")
			}
		}
		_ = put(g, 0, "d/f", ours)
		_ = put(g, 1, "d/sub/f", ours)
		commit(g)
	}
	stop()
	adversary.Wait()
	if diff := cmp.Diff(map[string]string{"d/f": "precious"}, files(t, outside)); diff != "" {
		t.Errorf("outside (-want +got):\n%s", diff)
	}
}
