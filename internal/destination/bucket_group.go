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
// to the second. Where nothing stands the error is fs.ErrNotExist.
func (g *BucketGroup) Compare(ctx context.Context, _ int, output string, size int64, sha256 string) (same bool, modified time.Time, err error) {
	key, err := g.bucket.key(output)
	if err != nil {
		return false, time.Time{}, err
	}
	same, modified, err = g.bucket.compare(ctx, key, size, sha256)
	if objects.Is(err, objects.Missing) {
		return false, time.Time{}, fs.ErrNotExist
	}
	return same, modified, classifyObject("output", output, err)
}

// Write stages an object for output: fill writes its content, which must have
// the given size and SHA-256. Slot is what Commit calls the object. When fill
// fails the group goes on without the object and the error is fill's own.
func (g *BucketGroup) Write(slot int, output string, size int64, sha256 string, fill func(io.Writer) error) error {
	key, err := g.bucket.key(output)
	if err != nil {
		return err
	}
	o := object{slot: slot, output: output, key: key, size: size, digest: sha256}
	in := newIntake(output, size, func(part []byte) error { return g.upload(&o, part) })
	err = fill(in)
	if err == nil {
		err = in.check(sha256)
	}
	if err == nil {
		err = g.stage(&o, in.buf)
	}
	if err != nil {
		g.discard(&o)
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written = append(g.written, o)
	return nil
}

// stage keeps what is left of a content: in memory if that is all of it and
// there is room, else at the server.
func (g *BucketGroup) stage(o *object, rest []byte) error {
	if o.upload == nil && g.bucket.held.TryAcquire(o.size) {
		o.content = rest
		return nil
	}
	return g.upload(o, rest)
}

// upload sends the next part of a content.
func (g *BucketGroup) upload(o *object, part []byte) (err error) {
	ctx := context.Background() // each request ends by itself when nothing moves
	if o.upload == nil {
		if o.upload, err = g.bucket.store.Begin(ctx, g.bucket.name, o.key, o.digest); err != nil {
			return classifyObject("output", o.output, err)
		}
	}
	return classifyObject("output", o.output, o.upload.Part(ctx, part))
}

// Commit makes the staged objects visible. It calls failed for each that could
// not be; all others are stored when it returns. A server that is away is not
// asked again for each of the others, which fail like the first.
func (g *BucketGroup) Commit(failed func(slot int, err error)) {
	errs := make([]error, len(g.written))
	var away atomic.Pointer[fault.Error]
	g.each(func(i int) {
		if down := away.Load(); down != nil {
			errs[i] = down
		} else if errs[i] = g.place(&g.written[i]); fault.Is(errs[i], schemas.CodeDestinationDown) {
			down, _ := errors.AsType[*fault.Error](errs[i])
			away.Store(down)
		}
		g.discard(&g.written[i])
	})
	for i, err := range errs {
		if err != nil {
			failed(g.written[i].slot, err)
		}
	}
}

// Abort drops the staged objects.
func (g *BucketGroup) Abort() {
	g.each(func(i int) { g.discard(&g.written[i]) })
}

// each calls f for each staged object, for several at a time, but for those of
// one key in their order.
func (g *BucketGroup) each(f func(i int)) {
	byKey := make(map[string][]int, len(g.written))
	for i := range g.written {
		byKey[g.written[i].key] = append(byKey[g.written[i].key], i)
	}
	var group errgroup.Group
	group.SetLimit(requests)
	for _, staged := range byKey {
		group.Go(func() error {
			for _, i := range staged {
				f(i)
			}
			return nil
		})
	}
	_ = group.Wait()
}

// place makes one staged object visible.
func (g *BucketGroup) place(o *object) error {
	ctx := context.Background()
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

// discard drops what a staged object holds.
func (g *BucketGroup) discard(o *object) {
	if o.upload != nil {
		o.upload.Abort()
		o.upload = nil
	}
	if o.content != nil {
		o.content = nil
		g.bucket.held.Release(o.size)
	}
}
