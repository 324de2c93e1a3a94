package destination

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Tree is a directory tree that files are restored into. It is safe for
// concurrent use.
type Tree struct {
	root *os.Root

	mu     sync.Mutex // held during no call of the system
	groups int        // that have begun and not ended
	places map[volume]*place
	made   []*stage    // all staging directories
	idle   *time.Timer // removes them
	closed bool

	tidying sync.Mutex // comes before mu
}

// place is where files of one volume are staged. It has a lock of its own: a volume
// that hangs must not keep others.
type place struct {
	// dir is the path of a directory on the volume, the one that was staged in last
	// if one was, and wanted says that it was for a file, not only to try that out.
	// The tree's lock guards them.
	dir    string
	wanted bool

	mu    sync.Mutex
	stage *stage // nil until it is needed
}

// idleAfter is how long no group must have been under way for the staging
// directories to be removed, so that a worker that waits for work leaves nothing
// in a tree. Sooner would mean to sweep anew for each of many small groups.
const idleAfter = 2 * time.Second

// closePatience is how long a tree that is closed is waited for.
const closePatience = 15 * time.Second

// OpenTree opens the tree below the absolute path root, creating it when there
// is none.
func OpenTree(root string) (*Tree, error) {
	if !filepath.IsAbs(root) {
		return nil, fault.New(schemas.CodePathRefused, "destination root %q: want an absolute path", root)
	}
	if err := makeRoot(filepath.Clean(root)); err != nil {
		return nil, classifyRoot(root, err)
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, classifyRoot(root, err)
	}
	t := &Tree{root: r, places: map[volume]*place{}}
	top, err := t.walk(".")
	if err != nil {
		return nil, errors.Join(classifyRoot(root, err), r.Close())
	}
	// Everything may be in its place already, so that nothing will be staged.
	sweep(top)
	return t, top.close()
}

// makeRoot makes a directory and those above it where they are missing, and
// makes their names durable.
func makeRoot(p string) error {
	if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(p)
	if err := makeRoot(parent); err != nil {
		return err
	}
	if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(descriptor(f.Fd()).sync(), f.Close())
}

// Moved says whether the root's name leads to another directory than this tree's, or
// to none. The tree goes on with its own; who wants the other one opens it.
func (t *Tree) Moved() bool {
	named, err := os.Stat(t.root.Name())
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	own, err := t.root.Stat(".")
	return err != nil || !os.SameFile(named, own)
}

// Close removes the staging directories, those of groups that are under way when
// the last of them has ended; no more may be begun. Should the kernel hold it, it is
// left behind, and the staging directories stay until the next sweep.
func (t *Tree) Close() error {
	t.mu.Lock()
	t.closed = true
	if t.idle != nil {
		t.idle.Stop()
	}
	t.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- t.tidy() }()
	select {
	case err := <-done:
		return err
	case <-time.After(closePatience):
		return nil
	}
}

// tidy removes the staging directories unless a group is under way, and closes the
// tree if that is wanted. A dead network file system holds it, and nobody else.
func (t *Tree) tidy() error {
	t.tidying.Lock()
	defer t.tidying.Unlock()
	t.mu.Lock()
	if t.groups > 0 {
		t.mu.Unlock()
		return nil
	}
	made, closed := t.made, t.closed
	t.made = nil
	for _, p := range t.places {
		p.stage = nil // its lock guards it among groups, and there is none
	}
	t.mu.Unlock()
	var errs []error
	for _, s := range made {
		errs = append(errs, s.close())
	}
	if closed {
		errs = append(errs, t.root.Close())
	}
	return errors.Join(errs...)
}

// begin and end say how many groups are under way.
func (t *Tree) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups++
	if t.idle != nil {
		t.idle.Stop()
	}
}

func (t *Tree) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.groups--; t.groups > 0 {
		return
	}
	t.idle = time.AfterFunc(idleAfter, func() {
		_ = t.tidy() // what stays is swept by whoever stages something next
	})
}

// walk opens the directory dir, a slash-separated path below the root, following
// symlinks as long as they stay below it.
func (t *Tree) walk(dir string) (descriptor, error) {
	f, err := t.root.OpenFile(dir, dirFlags, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	return own(f)
}

// placeOf is the place of d's volume.
func (t *Tree) placeOf(d *dir) *place {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.places[d.volume]
	if p == nil {
		p = &place{dir: d.path}
		t.places[d.volume] = p
	}
	return p
}

// want says that a file is wanted on d's volume.
func (t *Tree) want(d *dir) {
	p := t.placeOf(d)
	t.mu.Lock()
	defer t.mu.Unlock()
	p.wanted = true
}

// stageFor gives the staging directory on d's volume. It lies in the highest
// directory there that may be written to.
func (t *Tree) stageFor(d *dir) (*stage, error) {
	p := t.placeOf(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage != nil {
		return p.stage, nil
	}
	s, dir, err := makeStage(d)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.stage, p.dir = s, dir
	t.made = append(t.made, s)
	return s, nil
}

// create makes a temporary file on d's volume. Should somebody have removed the
// staging directory, another one is made.
func (t *Tree) create(d *dir, mode uint32) (s *stage, name string, f descriptor, err error) {
	for range 2 {
		if s, err = t.stageFor(d); err != nil {
			return nil, "", 0, err
		}
		name = s.temp()
		f, err = s.dir.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, mode)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		t.forget(d, s)
	}
	return s, name, f, err
}

// makeStage makes a staging directory on d's volume, and says in which directory.
func makeStage(d *dir) (s *stage, in string, err error) {
	if d.parent != nil && d.parent.volume == d.volume {
		if s, in, err = makeStage(d.parent); !errors.Is(err, fs.ErrPermission) {
			return s, in, err
		}
	}
	s, err = newStage(d.fd)
	return s, d.path, err
}

// forget makes sure that a staging directory that is gone is not used again.
func (t *Tree) forget(d *dir, s *stage) {
	p := t.placeOf(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage == s {
		p.stage = nil
	}
}
