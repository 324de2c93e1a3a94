package destination

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// TreeView is a directory tree that is looked at and never changed: nothing below
// its root, nor the root itself, is created, written, synced or removed. It is
// safe for concurrent use.
type TreeView struct {
	root string
	tree *Tree // without a use but to walk it; nil where there is no such directory
}

// ViewTree looks at the tree below the absolute path root. Where there is no such
// directory everything below it is new.
func ViewTree(root string) (*TreeView, error) {
	if !filepath.IsAbs(root) {
		return nil, fault.New(schemas.CodePathRefused, "destination root %q: want an absolute path", root)
	}
	v := &TreeView{root: filepath.Clean(root)}
	r, err := os.OpenRoot(v.root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return v, nil
	case err != nil:
		return nil, classifyAs("destination root", root, err)
	}
	v.tree = &Tree{root: r}
	return v, nil
}

// Exists says whether the root is there.
func (v *TreeView) Exists() bool { return v.tree != nil }

// Close ends looking. Looks must have ended.
func (v *TreeView) Close() error {
	if v.tree == nil {
		return nil
	}
	return v.tree.root.Close()
}

// Free is how many bytes the file system of the root, or of the directory that
// it would be made in, has room for; -1 where the system does not say.
func (v *TreeView) Free() int64 {
	for p := v.root; ; p = filepath.Dir(p) {
		free, err := freeBytes(p)
		if err == nil {
			return free
		}
		if !errors.Is(err, fs.ErrNotExist) || p == filepath.Dir(p) {
			return -1
		}
	}
}

// Look begins to look at the outputs of one group.
func (v *TreeView) Look() *TreeLook { return &TreeLook{v, newDirectories(v.tree)} }

// TreeLook looks at the outputs of one group, for which it opens each directory
// once. It is safe for concurrent use; Close comes last.
type TreeLook struct {
	view *TreeView
	dirs *directories
}

// Close closes the directories.
func (l *TreeLook) Close() { l.dirs.close() }

// Compare says whether a regular file with this content (size in bytes, SHA-256
// in hex) stands under output. Where nothing stands the error is fs.ErrNotExist.
func (l *TreeLook) Compare(ctx context.Context, output string, size int64, sha256 string) (same bool, err error) {
	if err := checkOutput(output); err != nil {
		return false, err
	}
	if !l.view.Exists() {
		return false, fs.ErrNotExist
	}
	d, err := l.dirs.get(path.Dir(output))
	if err == nil {
		same, _, err = compare(ctx, d.fd, path.Base(output), size, sha256, false)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, fs.ErrNotExist
	}
	return same, classify(output, err)
}

// Writable says what would keep an output from being written that can be seen
// without writing: a directory has its name already, the directory that it goes
// to may not be written to, or cannot be made.
func (l *TreeLook) Writable(output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	if !l.view.Exists() {
		return classifyAs("destination root", l.view.root, mayMake(l.view.root))
	}
	return classify(output, l.writable(output))
}

func (l *TreeLook) writable(output string) error {
	name, dir := path.Base(output), path.Dir(output)
	d, err := l.dirs.get(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != "." {
		name, dir = path.Base(dir), path.Dir(dir)
		d, err = l.dirs.get(dir)
	}
	if err != nil {
		return err
	}
	// What has the name is the output, or else a directory that was not found.
	if st, err := d.fd.stat(name); err == nil {
		switch kind := st.Mode & unix.S_IFMT; {
		case dir == path.Dir(output) && kind == unix.S_IFDIR:
			return unix.EISDIR
		case dir != path.Dir(output) && kind == unix.S_IFLNK:
			return toNowhere(path.Join(dir, name))
		}
	}
	return mayWrite(int(d.fd), ".")
}

// mayMake says what would keep a directory from being made that is not there,
// and those above it that are missing.
func mayMake(p string) error {
	parent := filepath.Dir(p)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) && parent != p {
		return mayMake(parent)
	} else if err != nil {
		return err
	}
	if _, err := os.Lstat(p); err == nil {
		return toNowhere(p)
	}
	return mayWrite(unix.AT_FDCWD, parent)
}

// mayWrite says whether names may be made in a directory.
func mayWrite(at int, dir string) error {
	return unix.Faccessat(at, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

func toNowhere(dir string) error {
	return fault.New(schemas.CodePathRefused, "directory %q is a symlink to nowhere", dir)
}
