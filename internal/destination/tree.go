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

	mu     sync.Mutex
	groups int // that have begun and not ended
	places map[volume]*place
	made   []*stage    // all staging directories
	idle   *time.Timer // removes them
}

// place is where files of one volume are staged. It has a lock of its own: a volume
// that hangs must not keep others.
type place struct {
	dir string // the path of a directory on the volume

	mu    sync.Mutex
	stage *stage // nil until it is needed
}

// idleAfter is how long no group must have been under way for the staging
// directories to be removed, so that a worker that waits for work leaves nothing
// in a tree. Sooner would mean to sweep anew for each of many small groups.
const idleAfter = 2 * time.Second

// OpenTree opens the tree below the absolute path root, creating it when there
// is none.
func OpenTree(root string) (*Tree, error) {
	if !filepath.IsAbs(root) {
		return nil, fault.New(schemas.CodePathRefused, "destination root %q: want an absolute path", root)
	}
	if err := makeRoot(filepath.Clean(root)); err != nil {
		return nil, classifyAs("destination root", root, err)
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, classifyAs("destination root", root, err)
	}
	t := &Tree{root: r, places: map[volume]*place{}}
	top, err := t.walk(".")
	if err != nil {
		return nil, errors.Join(classifyAs("destination root", root, err), r.Close())
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

// Close removes the staging directories. Groups must have ended; where the kernel
// holds a call of one, what the call uses stays until the process ends, and the
// staging directories until the next sweep.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle != nil {
		t.idle.Stop()
	}
	if t.groups > 0 {
		return nil
	}
	return errors.Join(t.tidy(), t.root.Close())
}

// tidy removes the staging directories. The caller holds the lock, and no group is
// under way.
func (t *Tree) tidy() error {
	var errs []error
	for _, s := range t.made {
		errs = append(errs, s.close())
	}
	t.made = nil
	for _, p := range t.places {
		p.stage = nil
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
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.groups == 0 {
			_ = t.tidy() // what stays is swept by whoever stages something next
		}
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

// stageFor gives the staging directory on d's volume. It lies in the highest
// directory there that may be written to.
func (t *Tree) stageFor(d *dir) (*stage, error) {
	p := t.placeOf(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage != nil {
		return p.stage, nil
	}
	s, err := makeStage(d)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.stage = s
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

func makeStage(d *dir) (*stage, error) {
	if d.parent != nil && d.parent.volume == d.volume {
		if s, err := makeStage(d.parent); !errors.Is(err, fs.ErrPermission) {
			return s, err
		}
	}
	return newStage(d.fd)
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
