package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// held checks that at least n bytes of the restorer's memory are acquired. As
// no more than its capacity can be, what is in hand is bounded.
func held(t *testing.T, r *Restorer, n int64, what string) {
	t.Helper()
	if rest := r.capacity - n + 1; r.memory.TryAcquire(rest) {
		r.memory.Release(rest)
		t.Errorf("%s: fewer than the %d bytes in hand are acquired", what, n)
	}
}

// A group of 512 items, small and large, with one thread, so that what is in
// hand is known at every moment.
func TestMemoryIsAcquired(t *testing.T) {
	t.Parallel()
	contents := make([][]byte, 512)
	for i := range contents {
		contents[i] = noise(i, 20<<10)
		if i%50 == 7 {
			contents[i] = noise(i, 1<<20)
		}
	}
	s := newShelf(contents...)
	var r *Restorer
	var chunk, largestChunk, chunks int64 // bytes of stored blobs in hand
	s.blobs = func(_ context.Context, ids []string, each func(string, []byte) error) error {
		chunk = 0
		chunks++
		for _, id := range ids {
			must(t, each(id, s.content[id]))
			chunk += int64(len(s.content[id]))
			held(t, r, chunk, "reading")
		}
		largestChunk = max(largestChunk, chunk)
		return nil
	}
	s.open = func(_ context.Context, a schemas.Artifact) (io.ReadCloser, error) {
		held(t, r, a.Size+4<<20, "streaming")
		return io.NopCloser(bytes.NewReader(s.content[a.ID])), nil
	}
	decode := func(a schemas.Artifact, blob, dst []byte) ([]byte, error) {
		held(t, r, chunk+a.Size+1, "decoding")
		return plain(a, blob, dst)
	}
	root := t.TempDir()
	r = New(s, decode, into(t, root), Config{Memory: MinMemory, Threads: 1})
	results, err := r.Restore(t.Context(), schemas.Settings{Root: root}, s.requests())
	must(t, err)
	for i, v := range verdicts(results) {
		if v != restored {
			t.Errorf("item %d: %+v", i, v)
		}
	}
	if chunks < 4 || largestChunk > r.chunk {
		t.Errorf("%d chunks of up to %d bytes, want more of up to %d", chunks, largestChunk, r.chunk)
	}
	if !r.memory.TryAcquire(r.capacity) {
		t.Error("memory was not given back")
	}
}

// Nothing asks for more than there is, which would wait for ever.
func TestCostsFit(t *testing.T) {
	t.Parallel()
	for _, memory := range []int64{0, 1, MinMemory, DefaultMemory, 1 << 40} {
		for _, threads := range []int{1, 4, 10_000} {
			r := run{Restorer: New(nil, nil, nil, Config{Memory: memory, Threads: threads})}
			var chunk [][]int
			for i := range 512 {
				chunk = append(chunk, []int{i})
				r.artifacts = append(r.artifacts, schemas.Artifact{Size: r.small, Stored: r.small})
			}
			if got := r.smallCost(chunk, r.chunk); got > r.capacity || got < r.chunk {
				t.Errorf("memory %d, %d threads: a chunk costs %d of %d", memory, threads, got, r.capacity)
			}
			for _, size := range []int64{-1 << 50, -1, 0, 1, 8 << 20, 1 << 50} {
				if got := r.windowCost(schemas.Artifact{Size: size}); got > r.capacity || got <= 0 {
					t.Errorf("memory %d: a stream of %d bytes costs %d of %d", memory, size, got, r.capacity)
				}
				if got := r.fetchCost(schemas.Artifact{Size: min(size, r.small)}); got > r.capacity || got <= 0 {
					t.Errorf("memory %d: fetching %d bytes costs %d of %d", memory, size, got, r.capacity)
				}
			}
		}
	}
}

// Blobs that are longer than the look-up said do not break the bound: they are
// streamed.
func TestBlobsGrow(t *testing.T) {
	t.Parallel()
	var contents [][]byte
	for i := range 20 {
		contents = append(contents, noise(i, 100+i))
	}
	s := newShelf(contents...)
	for ts, a := range s.artifacts {
		a.Stored = 10
		s.artifacts[ts] = a
	}
	s.artifacts["t3"] = func(a schemas.Artifact) schemas.Artifact { a.Stored = 1000; return a }(s.artifacts["t3"])
	streamed := 0
	s.open = func(_ context.Context, a schemas.Artifact) (io.ReadCloser, error) {
		streamed++
		return io.NopCloser(bytes.NewReader(s.content[a.ID])), nil
	}
	inHand := 0
	decode := func(a schemas.Artifact, blob, dst []byte) ([]byte, error) {
		inHand += len(blob)
		return plain(a, blob, dst)
	}
	root := t.TempDir()
	r := New(s, decode, into(t, root), Config{Memory: MinMemory, Threads: 1})
	results, err := r.Restore(t.Context(), schemas.Settings{Root: root}, s.requests())
	must(t, err)
	want := map[string]string{}
	for i, v := range verdicts(results) {
		if v != restored {
			t.Errorf("item %d: %+v", i, v)
		}
		want[fmt.Sprintf("out/%d", i)] = string(contents[i])
	}
	if diff := cmp.Diff(want, tree(t, root)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if announced := 1000 + 19*10; inHand > announced || streamed == 0 {
		t.Errorf("%d bytes in hand, %d were announced; %d streamed", inHand, announced, streamed)
	}
}
