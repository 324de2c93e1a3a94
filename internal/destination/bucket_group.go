package destination

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/schemas"
)

// BucketGroup is a set of objects that become visible together, though not at
// one moment. Compare and Write are safe for concurrent use. Commit or Abort
// comes last, once.
//
// A content is complete, and its SHA-256 checked on both sides, before anything
// is visible under its key: what is small waits in memory for Commit and is put
// in one request, what is large is uploaded in parts that Commit turns into an
// object. The SHA-256 is kept as metadata (x-amz-meta-sha256).
//
// With the policy never, objects are written on the condition that none stands
// there (If-None-Match). On a server that refuses the condition the group looks
// first and writes then, and on one that ignores it, it has looked in Compare;
// there two writers of one key at the same moment may both succeed, and one
// content replace the other.
type BucketGroup struct {
	bucket  *Bucket
	replace bool // whatever stands there

	mu      sync.Mutex
	ended   bool
	found   []int // slots
	written []object
}

// object is a complete content that waits to be made visible: in memory, or at
// the server as an upload.
type object struct {
	slot        int
	output, key string
	size        int64
	digest      string
	content     []byte
	upload      *objects.Upload
}

// Group begins a group of about n objects.
func (b *Bucket) Group(s schemas.Settings, n int) *BucketGroup {
	return &BucketGroup{
		bucket:  b,
		replace: s.Overwrite == schemas.OverwriteIfDifferent || s.Overwrite == schemas.OverwriteAlways,
		written: make([]object, 0, n),
	}
}

// Compare says whether an object with this content (size in bytes, SHA-256 in
// hex) stands under output, and when it was last modified by the server's clock,
// to the second. Where nothing stands the error is fs.ErrNotExist. An object that is
// the same belongs to the group from then on, and Commit has nothing to do for it.
func (g *BucketGroup) Compare(ctx context.Context, slot int, output string, size int64, sha256 string) (same bool, modified time.Time, err error) {
	key, err := g.bucket.key(output)
	if err != nil {
		return false, time.Time{}, err
	}
	same, modified, err = g.bucket.compare(ctx, key, size, sha256)
	if objects.Is(err, objects.Missing) {
		return false, time.Time{}, fs.ErrNotExist
	}
	if same {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.found = append(g.found, slot)
	}
	return same, modified, classifyObject("output", output, err)
}

// Write stages an object for output: fill writes its content, which must have
// the given size and SHA-256. Slot is what Commit calls the object. When fill
// fails the group goes on without the object and the error is fill's own; so it
// does when ctx has ended meanwhile.
func (g *BucketGroup) Write(ctx context.Context, slot int, output string, size int64, sha256 string, fill func(io.Writer) error) error {
	key, err := g.bucket.key(output)
	if err != nil {
		return err
	}
	o := object{slot: slot, output: output, key: key, size: size, digest: sha256}
	in := newIntake(output, size, func(part []byte) error { return g.upload(ctx, &o, part) })
	err = fill(in)
	if err == nil {
		err = in.check(sha256)
	}
	if err == nil {
		err = g.stage(ctx, &o, in.buf)
	}
	if err == nil {
		err = g.add(ctx, o)
	}
	if err != nil {
		drop([]object{o})
		g.release(&o)
	}
	return err
}

// add puts an object into the group unless that has ended, or whoever wanted it has
// given up.
func (g *BucketGroup) add(ctx context.Context, o object) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if g.ended {
		return errEnded
	}
	g.written = append(g.written, o)
	return nil
}

// end ends the group and gives what is in it.
func (g *BucketGroup) end() (found []int, written []object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	return g.found, g.written
}

// stage keeps what is left of a content: in memory if that is all of it and
// there is room, else at the server.
func (g *BucketGroup) stage(ctx context.Context, o *object, rest []byte) error {
	if o.upload == nil && g.bucket.held.TryAcquire(o.size) {
		o.content = rest
		return nil
	}
	return g.upload(ctx, o, rest)
}

// upload sends the next part of a content.
func (g *BucketGroup) upload(ctx context.Context, o *object, part []byte) (err error) {
	if o.upload == nil {
		if o.upload, err = g.bucket.store.Begin(ctx, g.bucket.name, o.key, o.digest); err != nil {
			return classifyObject("output", o.output, err)
		}
	}
	return classifyObject("output", o.output, o.upload.Part(ctx, part))
}

// Commit makes the staged objects visible. It calls settled once for each, and for
// those found, as soon as it is stored or could not be, for several at a time. A server that is away is
// not asked again for each of the others, which fail like the first.
func (g *BucketGroup) Commit(ctx context.Context, settled func(slot int, err error)) {
	found, written := g.end()
	for _, slot := range found {
		settled(slot, nil)
	}
	var away atomic.Pointer[fault.Error]
	each(written, func(o *object) {
		var err error
		if down := away.Load(); down != nil {
			err = down
		} else if err = g.place(ctx, o); fault.Is(err, schemas.CodeDestinationDown) {
			down, _ := errors.AsType[*fault.Error](err)
			away.Store(down)
		}
		g.release(o)
		settled(o.slot, err)
	})
	drop(written)
}

// Abort drops the staged objects.
func (g *BucketGroup) Abort() {
	_, written := g.end()
	for i := range written {
		g.release(&written[i])
	}
	drop(written)
}

// each calls f for each object, for several at a time, but for those of one key in
// their order.
func each(all []object, f func(o *object)) {
	byKey := make(map[string][]*object, len(all))
	for i := range all {
		byKey[all[i].key] = append(byKey[all[i].key], &all[i])
	}
	var group errgroup.Group
	group.SetLimit(requests)
	for _, staged := range byKey {
		group.Go(func() error {
			for _, o := range staged {
				f(o)
			}
			return nil
		})
	}
	_ = group.Wait()
}

// place makes one staged object visible.
func (g *BucketGroup) place(ctx context.Context, o *object) error {
	failpoint.Here("destination.uploaded")
	err := g.send(ctx, o)
	taken := errors.Is(err, fs.ErrExist) || objects.Is(err, objects.Taken)
	if !taken && !objects.Is(err, objects.Gone) {
		return classifyObject("output", o.output, err)
	}
	// Somebody was faster. If it was another delivery of the same request, or an
	// earlier try of this one whose answer was lost, all is well.
	same, _, err := g.bucket.compare(ctx, o.key, o.size, o.digest)
	switch {
	case same:
		return nil
	case err == nil && taken:
		return Occupied(o.output)
	case err == nil || objects.Is(err, objects.Missing):
		return fault.New(schemas.CodeDestinationBusy, "output %q: somebody else changes it at the same time", o.output)
	}
	return classifyObject("output", o.output, err)
}

// send makes one staged object visible as far as the policy allows; the error is
// objects.Taken or fs.ErrExist where it does not.
func (g *BucketGroup) send(ctx context.Context, o *object) error {
	b := g.bucket
	if g.replace {
		return g.finish(ctx, o, false)
	}
	if !b.unconditional.Load() {
		err := g.finish(ctx, o, true)
		if !objects.Is(err, objects.Unsupported) {
			return err
		}
		b.unconditional.Store(true)
	}
	_, err := b.store.Stat(ctx, b.name, o.key)
	switch {
	case err == nil:
		return fs.ErrExist
	case !objects.Is(err, objects.Missing):
		return err
	}
	return g.finish(ctx, o, false)
}

func (g *BucketGroup) finish(ctx context.Context, o *object, onlyNew bool) error {
	if o.upload == nil {
		return g.bucket.store.Put(ctx, g.bucket.name, o.key, o.content, o.digest, onlyNew)
	}
	err := o.upload.Complete(ctx, onlyNew)
	if err == nil {
		o.upload = nil // nothing is left to be dropped
	}
	return err
}

// release gives back the memory of a content.
func (g *BucketGroup) release(o *object) {
	if o.content != nil {
		o.content = nil
		g.bucket.held.Release(o.size)
	}
}

// drop ends the uploads of objects that were not made visible, as far as their
// server takes notice of it within a while: Sweep does the rest another day.
func drop(all []object) {
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	each(all, func(o *object) {
		if o.upload != nil && ctx.Err() == nil {
			o.upload.Abort(ctx)
			o.upload = nil
		}
	})
}
