package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// run is one call of Restore.
type run struct {
	*Restorer
	group     Group
	overwrite schemas.Overwrite
	done      []schemas.Result
	artifacts []schemas.Artifact
}

// write reads, decodes and stages the wanted items. An error means that the
// archive could not be read or that the destination is away.
//
// What is small is read, decoded and checked once, however many items want it.
func (r *run) write(ctx context.Context, wanted []int) error {
	var chunk, away [][]int
	var large []int
	var stored int64
	for _, wanting := range r.byArtifact(wanted) {
		a := &r.artifacts[wanting[0]]
		if a.Size <= r.small && a.Stored == Elsewhere {
			away = append(away, wanting)
			continue
		}
		if a.Size > r.small || a.Stored > r.small {
			large = append(large, wanting...)
			continue
		}
		if stored+a.Stored > r.chunk {
			grown, err := r.writeSmall(ctx, chunk, stored)
			if err != nil {
				return err
			}
			large = append(large, grown...)
			chunk, stored = chunk[:0], 0
		}
		chunk = append(chunk, wanting)
		stored += a.Stored
	}
	grown, err := r.writeSmall(ctx, chunk, stored)
	if err != nil {
		return err
	}
	if err := spread(ctx, r.fetches, away, r.writeAway); err != nil {
		return err
	}
	return r.each(ctx, append(large, grown...), r.writeLarge)
}

// byArtifact puts the items that want one artifact together.
func (r *run) byArtifact(items []int) [][]int {
	place := make(map[string]int, len(items))
	groups := make([][]int, 0, len(items))
	for at, i := range items {
		if k, ok := place[r.artifacts[i].ID]; ok {
			groups[k] = append(groups[k], i)
			continue
		}
		place[r.artifacts[i].ID] = len(groups)
		groups = append(groups, items[at:at+1:at+1]) // most have one item: no memory of their own
	}
	return groups
}

// writeSmall stages the items of artifacts whose stored bytes, so many in all,
// are read in one statement. It gives back the items whose stored bytes have
// grown since the look-up: there is no room for them here.
func (r *run) writeSmall(ctx context.Context, chunk [][]int, stored int64) (grown []int, err error) {
	if len(chunk) == 0 {
		return nil, nil
	}
	cost := r.smallCost(chunk, stored)
	if err := r.memory.Acquire(ctx, cost); err != nil {
		return nil, err
	}
	memory := lend(func() { r.memory.Release(cost) })
	defer memory.release()

	start := time.Now()
	blobs, tooLong, err := r.readBlobs(ctx, chunk, stored, memory)
	if err != nil {
		return nil, err
	}
	read := since(start)
	fits := make([][]int, 0, len(chunk))
	for _, wanting := range chunk {
		for _, i := range wanting {
			r.done[i].Durations.Read += read
		}
		if tooLong[r.artifacts[wanting[0]].ID] {
			grown = append(grown, wanting...)
		} else {
			fits = append(fits, wanting)
		}
	}
	return grown, spread(ctx, r.threads, fits, func(ctx context.Context, wanting []int) error {
		if blob, ok := blobs[r.artifacts[wanting[0]].ID]; ok {
			return r.writeBlob(ctx, wanting, blob, memory)
		}
		return r.each(ctx, wanting, r.vanished)
	})
}

// smallCost is what a chunk may hold: the stored bytes, and on each thread one
// content with the byte that tells it from a longer one.
func (r *run) smallCost(chunk [][]int, stored int64) int64 {
	var largest int64
	for _, wanting := range chunk {
		largest = max(largest, r.artifacts[wanting[0]].Size)
	}
	return min(stored+int64(min(r.threads, len(chunk)))*(largest+1), r.capacity)
}

// readBlobs reads the stored bytes of artifacts into one buffer of so many bytes,
// which are lent.
func (r *run) readBlobs(ctx context.Context, chunk [][]int, stored int64, lent *loan) (blobs map[string][]byte, tooLong map[string]bool, err error) {
	ids := make([]string, len(chunk))
	for k, wanting := range chunk {
		ids[k] = r.artifacts[wanting[0]].ID
	}
	type bulk struct {
		blobs   map[string][]byte
		tooLong map[string]bool
	}
	lent.share()
	b, err := limited(ctx, r.itemTimeout, func(ctx context.Context) (bulk, error) {
		defer lent.release()
		b := bulk{make(map[string][]byte, len(ids)), map[string]bool{}}
		buf := make([]byte, 0, stored)
		err := r.source.Blobs(ctx, ids, func(id string, blob []byte) error {
			at := len(buf)
			if at+len(blob) > cap(buf) {
				b.tooLong[id] = true
				return nil
			}
			buf = append(buf, blob...)
			b.blobs[id] = buf[at:]
			return nil
		})
		return b, err
	}, func() string { return fmt.Sprintf("reading %d artifacts of %d bytes together", len(ids), stored) })
	return b.blobs, b.tooLong, err
}

// writeBlob stages the items that want one artifact, whose stored bytes are in
// memory that is lent. The error means that the destination is away or the context
// has ended.
func (r *run) writeBlob(ctx context.Context, wanting []int, blob []byte, lent *loan) error {
	start := time.Now()
	buf := buffers.Get().(*[]byte)
	lent.share()
	memory := lend(func() {
		buffers.Put(buf)
		lent.release()
	})
	defer memory.release()
	content, err := r.decode(r.artifacts[wanting[0]], blob, (*buf)[:0])
	if err != nil {
		return r.judge(wanting, err)
	}
	*buf = content
	return r.stage(ctx, wanting, content, start, memory)
}

// stage checks a content, whose decoding began at start and whose memory is lent,
// and stages it for each item that wants it. The error means that the destination is
// away or the context has ended.
func (r *run) stage(ctx context.Context, wanting []int, content []byte, start time.Time, lent *loan) error {
	sum := sha256.Sum256(content)
	decode := since(start)
	return r.each(ctx, wanting, func(ctx context.Context, i int) error {
		d, a := &r.done[i], r.artifacts[i]
		if err := check(a, int64(len(content)), sum[:]); err != nil {
			fail(d, err)
			return nil
		}
		d.Durations.Decode = decode
		start, output := time.Now(), d.Output
		lent.share()
		_, err := limited(ctx, r.itemTimeout, func(ctx context.Context) (struct{}, error) {
			defer lent.release()
			return struct{}{}, r.group.Write(ctx, i, output, a.Size, a.SHA256, func(w io.Writer) error {
				_, err := w.Write(content)
				return err
			})
		}, func() string { return fmt.Sprintf("tombstone %q: writing its %d bytes", a.Tombstone, a.Size) })
		d.Durations.Write = since(start)
		if err != nil {
			return judge(d, err)
		}
		return nil
	})
}

// judge judges each of the items that want one artifact, which cannot be had.
func (r *run) judge(wanting []int, err error) error {
	for _, i := range wanting {
		if err := judge(&r.done[i], err); err != nil {
			return err
		}
	}
	return nil
}

// windowCost is what streaming one artifact may hold: the decoder's window,
// which is never larger than 64 MiB, and buffers.
func (r *run) windowCost(a schemas.Artifact) int64 {
	return min(min(max(a.Size, 0), 64<<20)+4<<20, r.capacity)
}

// writeLarge stages one item as a stream. An error means that the archive or the
// destination is away, or that the context has ended.
func (r *run) writeLarge(ctx context.Context, i int) error {
	d, a := &r.done[i], r.artifacts[i]
	cost := r.windowCost(a)
	if err := r.memory.Acquire(ctx, cost); err != nil {
		return err
	}
	var had progress
	start, output := time.Now(), d.Output
	reading, err := limited(ctx, r.itemTimeout, func(ctx context.Context) (reading time.Duration, err error) {
		defer r.memory.Release(cost)
		err = r.group.Write(ctx, i, output, a.Size, a.SHA256, func(w io.Writer) error {
			h := sha256.New()
			n, took, err := r.stream(ctx, a, io.MultiWriter(w, h, &had))
			reading = took
			if err != nil {
				return err
			}
			return check(a, n, h.Sum(nil))
		})
		return reading, err
	}, func() string { return had.of(a) })
	d.Durations.Decode = float64(reading.Microseconds()) / 1000
	d.Durations.Write = since(start) - d.Durations.Decode
	switch {
	case err == nil:
		return nil
	case fault.Is(err, schemas.CodeArtifactMissing) && a.URL == "":
		return r.vanished(ctx, i)
	}
	return judge(d, err)
}

// stream copies the content of an artifact to w, up to one byte more than
// declared, and says how long its reads took.
func (r *run) stream(ctx context.Context, a schemas.Artifact, w io.Writer) (n int64, reading time.Duration, err error) {
	content, err := r.source.Open(ctx, a)
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		if cerr := content.Close(); err == nil {
			err = cerr
		}
	}()
	n, err = io.Copy(w, io.LimitReader(&timed{ctx: ctx, r: content, spent: &reading}, a.Size+1))
	return n, reading, err
}

// vanished fails an item whose bytes went away after the look-up, for the reason
// that another look-up gives.
func (r *run) vanished(ctx context.Context, i int) error {
	d := &r.done[i]
	found, err := r.lookup(ctx, []string{d.Tombstone})
	if err != nil {
		return judge(d, err)
	}
	switch a, ok := found[d.Tombstone]; {
	case !ok:
		fail(d, notFound(d.Tombstone))
	case a.Stored < 0:
		fail(d, withoutBytes(a))
	default:
		fail(d, fault.New(schemas.CodeArchiveError, "tombstone %q: the archive changed while the artifact was read", d.Tombstone))
	}
	return nil
}

// each calls f for each of the items on as many goroutines as there are threads.
func (r *run) each(ctx context.Context, items []int, f func(context.Context, int) error) error {
	return spread(ctx, r.threads, items, f)
}

// spread calls f for each of the items on up to n goroutines, until one fails.
func spread[T any](ctx context.Context, n int, items []T, f func(context.Context, T) error) error {
	if len(items) == 1 { // as most calls have it
		return f(ctx, items[0])
	}
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(n, len(items)) {
		g.Go(func() error {
			for {
				k := int(next.Add(1)) - 1
				if k >= len(items) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(ctx, items[k]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// check compares decoded content with what the archive declares.
func check(a schemas.Artifact, size int64, sum []byte) error {
	switch got := hex.EncodeToString(sum); {
	case size > a.Size:
		return fault.New(schemas.CodeIntegrityMismatch, "tombstone %q: content is longer than the %d bytes declared", a.Tombstone, a.Size)
	case size < a.Size:
		return fault.New(schemas.CodeIntegrityMismatch, "tombstone %q: content is %d bytes, %d are declared", a.Tombstone, size, a.Size)
	case got != a.SHA256:
		return fault.New(schemas.CodeIntegrityMismatch, "tombstone %q: content has SHA-256 %s, %s is declared", a.Tombstone, got, a.SHA256)
	}
	return nil
}
