package destination

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"sync"
	"time"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
	"golang.org/x/sys/unix"
)

// syncAllFrom is the number of files from which one sync of the file system is
// cheaper than one of each file.
const syncAllFrom = 8

// Group is a set of files that become durable and visible together. Compare and
// Write are safe for concurrent use. Commit or Abort comes last, once.
//
// A call that the kernel holds, as it does when a network file system is dead, may
// be left behind by whoever made it: the group can end meanwhile, and what the call
// does when it is let go changes nothing any more.
type Group struct {
	tree      *Tree
	overwrite schemas.Overwrite
	mode      uint32
	all       bool // sync whole file systems instead of single files
	dirs      *directories

	mu      sync.Mutex
	users   int // calls under way, and the group until it ends
	ended   bool
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
		all: canSyncAll && n >= syncAllFrom, dirs: newDirectories(t), users: 1,
	}
}

// enter begins a call; leave ends it. The last one closes what calls use.
func (g *Group) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return errEnded
	}
	g.users++
	return nil
}

func (g *Group) leave() {
	g.mu.Lock()
	g.users--
	last := g.users == 0
	g.mu.Unlock()
	if last {
		g.dirs.close()
		g.tree.end()
	}
}

// end ends the group and gives what is in it. leave comes after it.
func (g *Group) end() (found, written []entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	return g.found, g.written
}

// add puts a file into the group unless that has ended, or whoever wanted it has
// given up.
func (g *Group) add(ctx context.Context, to *[]entry, e entry) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if g.ended {
		return errEnded
	}
	*to = append(*to, e)
	return nil
}

// errEnded is for calls that come, or come back, after the end of their group.
var errEnded = errors.New("the group has ended")

// Compare says whether a regular file with this content (size in bytes, SHA-256
// in hex) stands under output, and when it was last modified. Where nothing
// stands the error is fs.ErrNotExist. A file that is the same belongs to the
// group from then on: Commit, which calls it slot, makes it durable.
func (g *Group) Compare(ctx context.Context, slot int, output string, size int64, sha256 string) (same bool, modified time.Time, err error) {
	if err := checkOutput(output); err != nil {
		return false, time.Time{}, err
	}
	if err := g.enter(); err != nil {
		return false, time.Time{}, err
	}
	defer g.leave()
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
		err = g.add(ctx, &g.found, entry{slot: slot, dir: d, output: output})
	}
	return same && err == nil, modified, err
}

// Write stages a file for output: fill writes its content, which has the given
// size and SHA-256. Slot is what Commit calls the file. When fill fails the
// group goes on without the file and the error is fill's own; so it does when ctx
// has ended meanwhile.
func (g *Group) Write(ctx context.Context, slot int, output string, size int64, sha256 string, fill func(io.Writer) error) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	if err := g.enter(); err != nil {
		return err
	}
	defer g.leave()
	d, err := g.dirs.make(path.Dir(output))
	if err != nil {
		return classify(output, err)
	}
	e := entry{slot: slot, dir: d, output: output, size: size, digest: sha256}
	g.tree.want(d)
	var f descriptor
	e.stage, e.temp, f, err = g.tree.create(d, g.mode)
	if err != nil {
		return classify(output, err)
	}
	if err = g.fill(f, output, fill); err == nil {
		err = g.add(ctx, &g.written, e)
	}
	if err != nil {
		e.discard()
	}
	return err
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
// those durable, together with the files that Compare found. It calls settled once
// for each of them: without an error those are safe. When ctx ends, what has not got
// its final name never gets it.
func (g *Group) Commit(ctx context.Context, settled func(slot int, err error)) {
	defer g.leave()
	placed, written := g.end()
	failpoint.Here("destination.written")
	unsynced := g.syncData(written)
	failpoint.Here("destination.synced")
	for _, e := range written {
		err := cmp.Or(unsynced, ctx.Err())
		if err == nil {
			err = g.place(ctx, e)
		}
		if err != nil {
			e.discard()
			settled(e.slot, classify(e.output, err))
			continue
		}
		placed = append(placed, e)
	}
	failpoint.Here("destination.renamed")
	err := g.syncNames(placed)
	failpoint.Here("destination.committed")
	for _, e := range placed {
		settled(e.slot, classify(e.output, err))
	}
}

// Abort drops the staged files.
func (g *Group) Abort() {
	defer g.leave()
	_, written := g.end()
	for _, e := range written {
		e.discard()
	}
}

// place renames one staged file to its final name.
func (g *Group) place(ctx context.Context, e entry) error {
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
	same, _, err := compare(ctx, to, name, e.size, e.digest, true)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil || !same:
		return Occupied(e.output)
	}
	e.discard()
	return nil
}

// Occupied is the error for an output where other content stands.
func Occupied(output string) error {
	return fault.New(schemas.CodeDestinationExists, "output %q: other content stands there", output)
}

func (g *Group) syncData(written []entry) error {
	if !g.all {
		return nil // each file was synced when it was written
	}
	return g.syncVolumes(written)
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
		if err := syncAll(g.dirs.firstOn(v)); err != nil {
			return err
		}
	}
	return nil
}

func (e *entry) discard() { _ = e.stage.dir.unlink(e.temp) }
