package destination

import (
	"errors"
	"io/fs"
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// directories are the directories that one group has opened, so that each is
// looked for once. They are safe for concurrent use; close comes last.
type directories struct {
	tree *Tree

	mu    sync.Mutex
	known map[string]*dir
	first map[volume]*dir // the first one opened on each volume
}

// dir is a directory below the root.
type dir struct {
	path   string
	parent *dir // nil for the root

	mu      sync.Mutex
	open    bool
	missing bool // it was not there when it was looked for
	// Set once open.
	fd     descriptor
	volume volume
}

func newDirectories(t *Tree) *directories {
	return &directories{tree: t, known: map[string]*dir{}, first: map[volume]*dir{}}
}

// get opens the directory p, a clean path below the root. One that is missing
// is remembered as such until it is made.
func (ds *directories) get(p string) (*dir, error) {
	d := ds.dir(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d, ds.openLocked(d)
}

// make is get for a directory that is created where it is missing.
func (ds *directories) make(p string) (*dir, error) {
	d := ds.dir(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d, ds.makeLocked(d)
}

func (ds *directories) close() {
	for _, d := range ds.known {
		if d.open {
			_ = d.fd.close()
		}
	}
}

// dir is the entry of the directory p and, on the way, of those above it.
func (ds *directories) dir(p string) *dir {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.dirLocked(p)
}

func (ds *directories) dirLocked(p string) *dir {
	d := ds.known[p]
	if d == nil {
		d = &dir{path: p}
		if p != "." {
			d.parent = ds.dirLocked(path.Dir(p))
		}
		ds.known[p] = d
	}
	return d
}

func (ds *directories) openLocked(d *dir) error {
	if d.open {
		return nil
	}
	if d.missing {
		return unix.ENOENT
	}
	fd, err := ds.openBelow(d)
	d.missing = errors.Is(err, fs.ErrNotExist)
	if err != nil {
		return err
	}
	v, err := volumeOf(fd)
	if err != nil {
		return errors.Join(err, fd.close())
	}
	ds.opened(d, fd, v)
	return nil
}

func (ds *directories) opened(d *dir, fd descriptor, v volume) {
	d.open, d.fd, d.volume = true, fd, v
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.first[v] == nil {
		ds.first[v] = d
	}
}

// firstOn is the first directory opened on a volume.
func (ds *directories) firstOn(v volume) descriptor {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.first[v].fd
}

// openBelow opens a directory by one name below its parent, which saves the
// walk from the root. Symlinks take the walk, which confines them.
func (ds *directories) openBelow(d *dir) (descriptor, error) {
	if d.parent == nil {
		return ds.tree.walk(d.path)
	}
	parent, err := ds.get(d.parent.path)
	if err != nil {
		return 0, err
	}
	fd, err := parent.fd.open(path.Base(d.path), dirFlags, 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return fd, err
	}
	return ds.tree.walk(d.path)
}

func (ds *directories) makeLocked(d *dir) error {
	err := ds.openLocked(d)
	if !errors.Is(err, fs.ErrNotExist) || d.parent == nil {
		return err
	}
	parent, err := ds.make(d.parent.path)
	if err != nil {
		return err
	}
	name := path.Base(d.path)
	err = parent.fd.mkdir(name, 0o755)
	if err == nil {
		// A new directory lies where its parent does.
		fd, err := parent.fd.open(name, dirFlags, 0)
		if err == nil {
			ds.opened(d, fd, parent.volume)
		}
		return err
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	d.missing = false // somebody else has just made it
	if err = ds.openLocked(d); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if st, e := parent.fd.stat(name); e == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return toNowhere(d.path)
	}
	return err
}
