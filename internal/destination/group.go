package destination

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"sync"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
	"golang.org/x/sys/unix"
)

// syncAllFrom is the number of files from which one sync of the file system is
// cheaper than one of each file.
const syncAllFrom = 8

// Group is a set of files that become durable and visible together. Compare and
// Write are safe for concurrent use. Commit or Abort comes last, once.
type Group struct {
	tree      *Tree
	overwrite schemas.Overwrite
	mode      uint32
	all       bool // sync whole file systems instead of single files
	dirs      *directories

	mu      sync.Mutex
	found   []entry
	written []entry
}

// entry is a file that stands under its final name already, or a complete
// temporary one that waits for it.
type entry struct {
	slot   int
	dir    *dir
	output string
	size   int64
	digest string
	// Of temporary files.
	stage *stage
	temp  string
}

// Group begins a group of about n files.
func (t *Tree) Group(s schemas.Settings, n int) *Group {
	mode := s.Mode & 0o777
	if mode == 0 {
		mode = 0o644
	}
	t.begin()
	return &Group{
		tree: t, overwrite: s.Overwrite, mode: mode,
		all: canSyncAll && n >= syncAllFrom, dirs: newDirectories(t),
	}
}

// Compare says whether a regular file with this content (size in bytes, SHA-256
// in hex) stands under output, and when it was last modified. Where nothing
// stands the error is fs.ErrNotExist. A file that is the same belongs to the
// group from then on: Commit, which calls it slot, makes it durable.
func (g *Group) Compare(ctx context.Context, slot int, output string, size int64, sha256 string) (same bool, modified time.Time, err error) {
	if err := checkOutput(output); err != nil {
		return false, time.Time{}, err
	}
	d, err := g.dirs.get(path.Dir(output))
	if err == nil {
		same, modified, err = compare(ctx, d.fd, path.Base(output), size, sha256, !g.all)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, time.Time{}, fs.ErrNotExist
	case err != nil:
		return false, modified, classify(output, err)
	case same:
		g.mu.Lock()
		defer g.mu.Unlock()
		g.found = append(g.found, entry{slot: slot, dir: d, output: output})
	}
	return same, modified, nil
}

// Write stages a file for output: fill writes its content, which has the given
// size and SHA-256. Slot is what Commit calls the file. When fill fails the
// group goes on without the file and the error is fill's own.
func (g *Group) Write(slot int, output string, size int64, sha256 string, fill func(io.Writer) error) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	d, err := g.dirs.make(path.Dir(output))
	if err != nil {
		return classify(output, err)
	}
	e := entry{slot: slot, dir: d, output: output, size: size, digest: sha256}
	f, err := g.create(&e)
	if err != nil {
		return classify(output, err)
	}
	if err := g.fill(f, output, fill); err != nil {
		e.discard()
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written = append(g.written, e)
	return nil
}

// create makes the temporary file of e. Should somebody have removed the staging
// directory, another one is made.
func (g *Group) create(e *entry) (f descriptor, err error) {
	for range 2 {
		if e.stage, err = g.tree.stageFor(e.dir); err != nil {
			return 0, err
		}
		e.temp = e.stage.temp()
		f, err = e.stage.dir.open(e.temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, g.mode)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		g.tree.forget(e.dir.volume, e.stage)
	}
	return f, err
}

func (g *Group) fill(f descriptor, output string, fill func(io.Writer) error) error {
	err := fill(f)
	if err == nil && !g.all {
		err = f.sync()
	}
	if cerr := f.close(); err == nil {
		err = cerr
	}
	if _, ok := errors.AsType[unix.Errno](err); ok {
		return classify(output, err)
	}
	return err
}

// Commit makes the staged files durable, gives them their final names and makes
// those durable, together with the files that Compare found. It calls failed for
// each file that could not be placed or made durable; all others are safe when
// it returns.
func (g *Group) Commit(failed func(slot int, err error)) {
	defer g.tree.end()
	defer g.dirs.close()
	settled := g.found
	if err := g.syncData(); err != nil {
		failAll(g.written, err, failed)
		g.discard()
		g.written = nil
	}
	for _, e := range g.written {
		if err := g.place(e); err != nil {
			failed(e.slot, err)
			e.discard()
			continue
		}
		settled = append(settled, e)
	}
	if err := g.syncNames(settled); err != nil {
		failAll(settled, err, failed)
	}
}

// Abort drops the staged files.
func (g *Group) Abort() {
	g.discard()
	g.dirs.close()
	g.tree.end()
}

func failAll(entries []entry, err error, failed func(slot int, err error)) {
	for _, e := range entries {
		failed(e.slot, classify(e.output, err))
	}
}

// place renames one staged file to its final name.
func (g *Group) place(e entry) error {
	from, to, name := e.stage.dir, e.dir.fd, path.Base(e.output)
	if g.overwrite == schemas.OverwriteIfDifferent || g.overwrite == schemas.OverwriteAlways {
		return classify(e.output, unix.Renameat(int(from), e.temp, int(to), name))
	}
	err := renameNew(from, e.temp, to, name)
	if !errors.Is(err, fs.ErrExist) {
		return classify(e.output, err)
	}
	// Somebody was faster. If it was another delivery of the same request,
	// the content is ours and all is well.
	same, _, err := compare(context.Background(), to, name, e.size, e.digest, true)
	if err != nil || !same {
		return Occupied(e.output)
	}
	e.discard()
	return nil
}

// Occupied is the error for an output where other content stands.
func Occupied(output string) error {
	return fault.New(schemas.CodeDestinationExists, "output %q: other content stands there", output)
}

func (g *Group) syncData() error {
	if !g.all {
		return nil // each file was synced when it was written
	}
	return g.syncVolumes(g.written)
}

// syncNames makes names durable, and those of the directories above them, which
// may be as new, whoever made them.
func (g *Group) syncNames(entries []entry) error {
	if g.all {
		return g.syncVolumes(entries)
	}
	done := map[*dir]bool{}
	for _, e := range entries {
		for d := e.dir; d != nil && !done[d]; d = d.parent {
			done[d] = true
			if err := d.fd.sync(); err != nil {
				return err
			}
		}
	}
	return nil
}

// syncVolumes syncs the file systems of the entries. A descriptor reports the
// write-back errors since it was opened, and each once; so it must be one of
// this group's own, opened before anything was written.
func (g *Group) syncVolumes(entries []entry) error {
	done := map[volume]bool{}
	for _, e := range entries {
		v := e.dir.volume
		if done[v] {
			continue
		}
		done[v] = true
		if err := syncAll(g.dirs.first[v].fd); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) discard() {
	for _, e := range g.written {
		e.discard()
	}
}

func (e *entry) discard() { _ = e.stage.dir.unlink(e.temp) }
