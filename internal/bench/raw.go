package bench

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// rawGroup is how many items the raw loop restores together, and rawGroups how
// many groups at a time: as a worker does.
const rawGroup, rawGroups = 512, 2

// bare measures what a run is held against; nil where there is no such thing.
func (w *world) bare(ctx context.Context) (*Rate, error) {
	switch w.Mode {
	case Restore, Large:
		return w.rawRestore(ctx)
	case Noop:
		return w.rawQueue(ctx, true)
	case Submit:
		return w.rawQueue(ctx, false)
	case ManyBatches:
		one := *w
		one.Batches = 1
		m, err := one.queued(ctx)
		w.drop = one.drop
		return &m.Rate, err
	}
	return nil, nil
}

// newRate is the rate of what was done since start.
func newRate(items, bytes int64, took time.Duration) Rate {
	s := took.Seconds()
	return Rate{Items: float64(items) / s, Megabytes: float64(bytes) / 1e6 / s, Seconds: s}
}

// requests reads the manifest as requests.
func (w *world) requests(ctx context.Context) (requests []schemas.Request, err error) {
	m, err := producer.OpenManifest(w.corpus.manifest, nil, producer.ManifestOptions{Actor: "bench", Root: w.dir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if _, err := m.Check(ctx, nil); err != nil {
		return nil, err
	}
	for r, err := range m.Items(ctx) {
		if err != nil {
			return nil, err
		}
		r.Batch = "bench"
		requests = append(requests, r)
	}
	return requests, nil
}

// rawRestore restores all items without queue and bookkeeping.
func (w *world) rawRestore(ctx context.Context) (_ *Rate, err error) {
	requests, err := w.requests(ctx)
	if err != nil {
		return nil, err
	}
	source, err := archive.OpenReader(ctx, w.archive)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	dir, _, err := w.place(ctx)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	tree, err := destination.OpenTree(filepath.Join(dir, "out"))
	if err != nil {
		return nil, err
	}
	newGroup := func(s schemas.Settings, n int) (restore.Group, error) { return tree.Group(s, n), nil }
	r := restore.New(source, archive.Decode, newGroup, restore.Config{Threads: runtime.NumCPU()})
	group := rawGroup
	if w.Mode == Large {
		group = 1
	}
	var bytes atomic.Int64
	var g errgroup.Group
	g.SetLimit(rawGroups)
	for items := range slices.Chunk(requests, group) {
		g.Go(func() error {
			done, err := r.Restore(ctx, schemas.Settings{}, items)
			for i := range done {
				if done[i].Outcome != schemas.OutcomeRestored {
					return errors.New("raw loop: " + done[i].Output + ": " + done[i].Detail)
				}
				bytes.Add(done[i].Size)
			}
			return err
		})
	}
	if err := errors.Join(g.Wait(), tree.Close()); err != nil {
		return nil, err
	}
	rate := newRate(int64(len(requests)), bytes.Load(), time.Since(start))
	return &rate, nil
}

// rawQueue publishes all requests and, unless that is all, takes and acknowledges
// them.
func (w *world) rawQueue(ctx context.Context, take bool) (_ *Rate, err error) {
	requests, err := w.requests(ctx)
	if err != nil {
		return nil, err
	}
	dir, _, err := w.place(ctx)
	if err != nil {
		return nil, err
	}
	b, err := broker.Embed(filepath.Join(dir, "broker"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.Setup(ctx); err != nil {
		return nil, err
	}
	if err := b.Activate(ctx, schemas.Batch{ID: "bench"}); err != nil {
		return nil, err
	}
	const together, perMessage = 4096, 64
	start := time.Now()
	for part := range slices.Chunk(requests, together) {
		if err := b.Publish(ctx, part, perMessage); err != nil {
			return nil, err
		}
	}
	for left := (len(requests) + perMessage - 1) / perMessage; take && left > 0; {
		got, err := b.Requests(ctx, "bench", rawGroup/perMessage, time.Second)
		if err != nil {
			return nil, err
		}
		for _, m := range got {
			if err := m.Ack(); err != nil {
				return nil, err
			}
		}
		left -= len(got)
	}
	rate := newRate(int64(len(requests)), 0, time.Since(start))
	return &rate, nil
}
