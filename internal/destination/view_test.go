package destination

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
)

var (
	_ restore.Look = (*TreeLook)(nil)
	_ restore.Look = (*BucketView)(nil)
)

func viewTree(t testing.TB, root string) *TreeView {
	t.Helper()
	v, err := ViewTree(root)
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	return v
}

// seen is what a look at one output tells.
type seen struct {
	Same      bool
	New       bool
	Compare   schemas.Code
	Unwritten schemas.Code // why it could not be written
}

func lookAt(ctx context.Context, l restore.Look, output string) seen {
	same, err := l.Compare(ctx, output, int64(len(ours)), sum([]byte(ours)))
	s := seen{Same: same, Unwritten: codeOfError(l.Writable(output))}
	if s.New = errors.Is(err, fs.ErrNotExist); !s.New {
		s.Compare = codeOfError(err)
	}
	return s
}

// A look tells what stands under an output and what would refuse it, and changes
// nothing.
func TestTreeLook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	write(t, filepath.Join(root, "d/same"), ours)
	write(t, filepath.Join(root, "other"), strings.ToUpper(ours))
	write(t, filepath.Join(root, "longer"), ours+ours)
	write(t, filepath.Join(dir, "secret"), ours)
	must(t, os.Symlink("d", filepath.Join(root, "inside")))
	must(t, os.Symlink("d/same", filepath.Join(root, "link")))
	must(t, os.Symlink("..", filepath.Join(root, "up")))
	must(t, os.Symlink("nowhere", filepath.Join(root, "dangling")))
	must(t, os.Symlink("loop", filepath.Join(root, "loop")))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	must(t, os.Mkdir(filepath.Join(root, stagePrefix+"00000000"), 0o700)) // of a dead process, to be swept by who writes
	before := snapshot(t, dir)
	refused := seen{Compare: schemas.CodePathRefused, Unwritten: schemas.CodePathRefused}
	look := viewTree(t, root).Look()
	for output, want := range map[string]seen{
		"d/same":       {Same: true},
		"inside/same":  {Same: true},
		"other":        {},
		"longer":       {},
		"link":         {}, // would be replaced
		"fifo":         {},
		"dangling":     {},
		"d":            {Unwritten: schemas.CodeDestinationExists},
		"new":          {New: true},
		"d/new":        {New: true},
		"x/y/z/new":    {New: true},
		"dangling/f":   {New: true, Unwritten: schemas.CodePathRefused},
		"dangling/d/f": {New: true, Unwritten: schemas.CodePathRefused},
		"up/secret":    refused, "up/x/y": refused, "../secret": refused, "/etc/exhume": refused, "": refused, ".": refused,
		"loop/f": refused, "other/f": refused, "other/d/f": refused, "fifo/f": refused, ".exhume-x/f": refused,
		strings.Repeat("n", 256) + "/f": refused,
	} {
		if diff := cmp.Diff(want, lookAt(t.Context(), look, output)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", output, diff)
		}
	}
	look.Close()
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}

// What is not there is new, and stays away.
func TestTreeLookWithoutRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	for root, unwritten := range map[string]schemas.Code{"a/b/c": "", "dangling": schemas.CodePathRefused, "dangling/a": schemas.CodePathRefused} {
		v := viewTree(t, filepath.Join(dir, root))
		look := v.Look()
		if diff := cmp.Diff(seen{New: true, Unwritten: unwritten}, lookAt(t.Context(), look, "d/f")); diff != "" || v.Exists() {
			t.Errorf("%s (-want +got):\n%s", root, diff)
		}
		if got := lookAt(t.Context(), look, "../f"); got.Compare != schemas.CodePathRefused || got.Unwritten != schemas.CodePathRefused {
			t.Errorf("%s: ../f: %+v", root, got)
		}
		if v.Free() <= 0 && canSyncAll {
			t.Errorf("%s: %d bytes are free", root, v.Free())
		}
		look.Close()
	}
	if diff := cmp.Diff(map[string]string{"dangling": "L---------"}, files(t, dir)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	write(t, filepath.Join(dir, "file"), "")
	for _, root := range []string{"relative", filepath.Join(dir, "file"), filepath.Join(dir, "file/d")} {
		if _, err := ViewTree(root); codeOfError(err) != schemas.CodePathRefused {
			t.Errorf("%s: %v", root, err)
		}
	}
}

func TestBucketView(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	b := newBucket(t, srv)
	g := b.Group(schemas.Settings{}, 2)
	for output, content := range map[string]string{"d/same": ours, "other": strings.ToUpper(ours)} {
		must(t, g.Write(t.Context(), 0, output, int64(len(content)), sum([]byte(content)), func(w io.Writer) error {
			_, err := io.WriteString(w, content)
			return err
		}))
	}
	if codes := commit(g); len(codes) > 0 {
		t.Error(codes)
	}
	before := stored(t, srv, b.name)
	v, err := ViewBucket(b.store, b.name, "pre/fix")
	must(t, err)
	refused := seen{Compare: schemas.CodePathRefused, Unwritten: schemas.CodePathRefused}
	for output, want := range map[string]seen{
		"d/same": {Same: true}, "other": {}, "new": {New: true}, "../x": refused, "": refused, ".exhume-x": refused,
		strings.Repeat("n", 1020): refused,
	} {
		if diff := cmp.Diff(want, lookAt(t.Context(), v, output)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", output, diff)
		}
	}
	if diff := cmp.Diff(before, stored(t, srv, b.name)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	if _, err := ViewBucket(b.store, "nowhere", ""); codeOfError(err) != schemas.CodeDestinationMissing {
		t.Error(err)
	}
}

// snapshot is everything below dir with its mode, time of change and content.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := files(t, dir)
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		found[path] = info.Mode().String() + info.ModTime().String()
		return err
	}))
	return found
}
