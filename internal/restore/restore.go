// Package restore restores one group of items: it looks them up, reads and
// decodes their bytes, checks size and SHA-256, and writes them. It knows
// nothing of queues, attempts or evidence.
package restore

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Source is the archive as a restorer sees it.
type Source interface {
	// Lookup finds many tombstones in one statement; unknown ones are absent.
	// Those whose bytes only Open gives are stored Elsewhere.
	Lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error)
	// Blobs reads the stored bytes of many artifacts in one statement. A blob
	// is valid only during the call of each.
	Blobs(ctx context.Context, artifacts []string, each func(id string, blob []byte) error) error
	// Open streams the decoded content of one artifact.
	Open(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error)
}

// Decode decodes a stored blob, appending to dst, to at most one byte more than
// the artifact's size.
type Decode func(a schemas.Artifact, blob, dst []byte) ([]byte, error)

// Group is a set of files that become durable and visible together.
type Group interface {
	// Compare says whether this content stands under output, and since when;
	// fs.ErrNotExist when nothing does. What is the same is the group's from
	// then on, to be made durable by Commit.
	//
	// This and the others end with their context, unless the kernel holds them.
	// Then the group may end before them.
	Compare(ctx context.Context, slot int, output string, size int64, sha256 string) (same bool, modified time.Time, err error)
	// Write stages a file whose content fill writes.
	Write(ctx context.Context, slot int, output string, size int64, sha256 string, fill func(io.Writer) error) error
	// Commit places the staged files and makes all durable. It calls settled once
	// for each file, from several goroutines: without an error it is in its place.
	Commit(ctx context.Context, settled func(slot int, err error))
	// Abort drops them. It ends by itself.
	Abort()
}

// NewGroup begins a group of about n files for the settings of a batch.
type NewGroup func(s schemas.Settings, n int) (Group, error)

// DefaultMemory bounds the bytes of artifacts in memory unless told otherwise.
const DefaultMemory = 256 << 20

// MinMemory is the smallest bound: it holds one stream of the kind that archives
// commonly have, with a window of 8 MiB. One stream at a time may exceed it, by
// what a larger window takes.
const MinMemory = 32 << 20

// Restorer restores groups of items. It is safe for concurrent use; groups that
// run at the same time share its memory.
type Restorer struct {
	source   Source
	decode   Decode
	newGroup NewGroup
	// memory counts the bytes in hand: stored blobs, decoded contents, windows
	// of streams.
	memory   *semaphore.Weighted
	capacity int64
	// small is the largest artifact that is decoded in memory; larger ones are
	// streamed. chunk is how many stored bytes of small ones are read at once.
	small, chunk int64
	threads      int
	fetches      int
	itemTimeout  time.Duration
	synced       func(time.Duration)
}

// Config bounds a restorer. The zero value works.
type Config struct {
	// Memory is how many bytes of artifacts are held at a time (default
	// DefaultMemory; less than MinMemory is raised to it).
	Memory int64
	// Threads is how many items of a group are decoded and written at a time
	// (default: one for each processor).
	Threads int
	// Fetches is how many small artifacts of a group that lie elsewhere are
	// waited for at a time (default DefaultFetches).
	Fetches int
	// ItemTimeout bounds each step of an item that may hang: comparing, streaming,
	// placing it (default DefaultItemTimeout). The item is given up then, alone, and
	// has failed with CodeItemTimeout; waiting for memory does not count. It also
	// bounds what is done for many items together.
	ItemTimeout time.Duration
	// Synced, if set, is told how long it took to make a group durable. It is
	// called by several goroutines and must return at once.
	Synced func(took time.Duration)
}

// New makes a restorer.
func New(source Source, decode Decode, newGroup NewGroup, cfg Config) *Restorer {
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Threads == 0 {
		cfg.Threads = runtime.GOMAXPROCS(0)
	}
	if cfg.Fetches == 0 {
		cfg.Fetches = DefaultFetches
	}
	if cfg.ItemTimeout == 0 {
		cfg.ItemTimeout = DefaultItemTimeout
	}
	if cfg.Synced == nil {
		cfg.Synced = func(time.Duration) {}
	}
	memory := max(cfg.Memory, MinMemory)
	return &Restorer{
		source: source, decode: decode, newGroup: newGroup,
		memory: semaphore.NewWeighted(memory), capacity: memory,
		small: memory / 256, chunk: memory / 16,
		threads: cfg.Threads, fetches: cfg.Fetches, itemTimeout: cfg.ItemTimeout, synced: cfg.Synced,
	}
}

// Restore restores a group of items of one batch. The results stand in the
// order of the requests; Attempts, Worker, FinishedAt and the durations Queue
// and Total are left to the caller, who also decides whether a failed result is
// final. An error means that the archive could not be read, that the destination
// is away or that the context ended: then nothing was judged, and the whole group
// is to be restored again. Nothing became visible either, unless the destination
// went away while the group was committed: what was visible by then is found the
// next time.
//
// The same content found under an output is unchanged when it is older than the
// request. When it is younger, an earlier delivery of the request wrote it and
// was cut off before it could say so, and the item counts as restored.
func (r *Restorer) Restore(ctx context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	start := time.Now()
	done := make([]schemas.Result, len(items))
	tombstones := make([]string, len(items))
	for i := range items {
		done[i].Request = items[i]
		done[i].Target = target(s.Root, items[i].Output)
		tombstones[i] = items[i].Tombstone
	}
	group, err := r.begin(ctx, s, len(items))
	if err != nil {
		for i := range done {
			if err := judge(&done[i], err); err != nil {
				return nil, err
			}
		}
		return done, nil
	}
	found, err := r.lookup(ctx, tombstones)
	if err != nil {
		abort(group)
		return nil, err
	}
	lookup := since(start)

	run := &run{Restorer: r, group: group, overwrite: s.Overwrite, done: done, artifacts: make([]schemas.Artifact, len(items))}
	wanted, err := run.admit(ctx, found, lookup)
	if err == nil {
		err = run.write(ctx, wanted)
	}
	if err != nil {
		abort(group)
		return nil, err
	}
	commit := time.Now()
	if err := run.commit(ctx); err != nil {
		return nil, err
	}
	r.synced(time.Since(commit))
	written := since(commit)
	for _, i := range wanted {
		done[i].Durations.Write += written
	}
	return done, nil
}

// begin begins a group.
func (r *Restorer) begin(ctx context.Context, s schemas.Settings, n int) (Group, error) {
	return limited(ctx, r.itemTimeout, func(ctx context.Context) (Group, error) {
		g, err := r.newGroup(s, n)
		if err == nil && ctx.Err() != nil { // nobody waits for it any more
			g.Abort()
			return nil, ctx.Err()
		}
		return g, err
	}, func() string { return fmt.Sprintf("opening the destination %q", s.Root) })
}

// lookup finds many tombstones.
func (r *Restorer) lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error) {
	return limited(ctx, r.itemTimeout, func(ctx context.Context) (map[string]schemas.Artifact, error) {
		return r.source.Lookup(ctx, tombstones)
	}, func() string { return fmt.Sprintf("looking %d tombstones up", len(tombstones)) })
}

// target is the whole name of an output: a path, or the URL of an object.
func target(root, output string) string {
	if strings.Contains(root, "://") {
		return strings.TrimSuffix(root, "/") + "/" + output
	}
	return filepath.Join(root, filepath.FromSlash(output))
}

func withoutBytes(a schemas.Artifact) error {
	if strings.HasPrefix(a.URL, "purged://") {
		return fault.New(schemas.CodeArtifactPurged, "tombstone %q: the artifact was purged, its bytes are gone", a.Tombstone)
	}
	return fault.New(schemas.CodeArtifactMissing, "tombstone %q: the archive does not hold the artifact's bytes", a.Tombstone)
}

// judge fails an item with err, unless it is no fault of the item: what the work
// needs is away, or the context has ended. Then it gives err back, which ends the
// group.
func judge(d *schemas.Result, err error) error {
	if fault.CodeOf(err).Class() == schemas.ClassBackendDown || isContextError(err) {
		return err
	}
	fail(d, err)
	return nil
}

func fail(d *schemas.Result, err error) {
	d.Outcome = schemas.OutcomeFailed
	d.Code = fault.CodeOf(err)
	d.Detail = err.Error()
}

func since(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }
