package restore

import (
	"bytes"
	"context"
	"io"
	"math"
	"slices"
	"time"

	"github.com/exhume/exhume/schemas"
)

// Elsewhere is the Stored of an artifact whose bytes lie outside of the archive:
// Open gives them, after a wait, and Blobs does not.
const Elsewhere = math.MaxInt64

// DefaultFetches is how many artifacts of a group are waited for at a time unless
// told otherwise. With 20 ms each that makes 1,600 a second.
const DefaultFetches = 32

// writeAway stages the items that want one small artifact whose bytes lie
// elsewhere. Most of its time is waiting, so it is called by more goroutines than
// there are processors. The error means that the source or the destination is
// away, or that the context has ended.
func (r *run) writeAway(ctx context.Context, wanting []int) error {
	a := r.artifacts[wanting[0]]
	cost := r.fetchCost(a)
	if err := r.memory.Acquire(ctx, cost); err != nil {
		return err
	}
	buf := buffers.Get().(*[]byte)
	memory := lend(func() {
		buffers.Put(buf)
		r.memory.Release(cost)
	})
	defer memory.release()

	start := time.Now()
	content, err := r.fetch(ctx, a, (*buf)[:0], memory)
	read := since(start)
	for _, i := range wanting {
		r.done[i].Durations.Read += read
	}
	if err != nil {
		return r.judge(wanting, err)
	}
	*buf = content
	return r.stage(ctx, wanting, content, time.Now(), memory)
}

// fetchCost is what fetching a small artifact may hold: its stream and its
// content.
func (r *run) fetchCost(a schemas.Artifact) int64 {
	return min(r.windowCost(a)+max(a.Size, 0)+1, r.capacity)
}

// fetch reads the content of a small artifact into dst, which is lent, up to one
// byte more than declared.
func (r *run) fetch(ctx context.Context, a schemas.Artifact, dst []byte, lent *loan) ([]byte, error) {
	var had progress
	lent.share()
	return limited(ctx, r.itemTimeout, func(ctx context.Context) ([]byte, error) {
		defer lent.release()
		// With room for one more read it need not grow to see the end.
		content := bytes.NewBuffer(slices.Grow(dst, int(max(a.Size, 0))+1+bytes.MinRead))
		_, _, err := r.stream(ctx, a, io.MultiWriter(content, &had))
		return content.Bytes(), err
	}, func() string { return had.of(a) })
}
