package destination

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"slices"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/schemas"
)

// probeBytes is how much a probe writes: more than a file system keeps free inside
// of what it has allocated anyway.
const probeBytes = 64 << 10

// Probe says whether files can be written on each volume that files were written to
// before or, where there is none of these any more, in the root, which may be
// read-only with others mounted below it. It stages one there, makes it durable and
// removes it again, for which it needs a free inode too. The error has the code that
// an item would fail with, or says that the destination is away.
//
// A dead network file system holds the call in the kernel, whatever ctx says.
func (t *Tree) Probe(ctx context.Context) error {
	t.begin()
	defer t.end()
	dirs := newDirectories(t)
	defer dirs.close()
	gone := true
	for _, p := range t.staged() {
		err := t.probe(ctx, dirs, p)
		if errors.Is(err, fs.ErrNotExist) && p != "." {
			continue // what was mounted there is gone
		}
		if err != nil {
			return err
		}
		gone = false
	}
	if gone {
		return t.probe(ctx, dirs, ".")
	}
	return nil
}

// staged are directories on all volumes that files were to be staged on.
func (t *Tree) staged() (dirs []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.places {
		if p.wanted && !slices.Contains(dirs, p.dir) {
			dirs = append(dirs, p.dir)
		}
	}
	return dirs
}

// probe says whether files can be written in the directory p.
func (t *Tree) probe(ctx context.Context, dirs *directories, p string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d, err := dirs.get(p)
	if err == nil {
		err = t.tryOut(d)
	}
	return classifyRoot(t.root.Name(), err)
}

func (t *Tree) tryOut(d *dir) error {
	s, name, f, err := t.create(d, 0o600)
	if err != nil {
		return err
	}
	noise := make([]byte, probeBytes) // which no file system can make smaller
	_, _ = rand.Read(noise)
	_, err = f.Write(noise)
	if err == nil {
		err = f.sync()
	}
	if cerr := f.close(); err == nil {
		err = cerr
	}
	_ = s.dir.unlink(name) // what stays is swept
	return err
}

// Probe says whether the bucket's server works, with CodeDestinationDown that it does
// not: it is away, or answers that it is overloaded or broken. It asks for the bucket
// and changes nothing. A refusal is an answer: whether an object may be written is
// for the items to say.
func (b *Bucket) Probe(ctx context.Context) error {
	err := b.store.CheckBucket(ctx, b.name)
	switch where := objects.URL(b.name, b.prefix); {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil:
		return fault.New(schemas.CodeDestinationDown, "destination %q: its server does not answer in time", where)
	case objects.Is(err, objects.Away), objects.Is(err, objects.Failing):
		return fault.New(schemas.CodeDestinationDown, "destination %q: %w", where, err)
	}
	return nil
}
