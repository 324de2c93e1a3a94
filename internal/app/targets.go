package app

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
)

// targets are the destinations in use, by root. They are safe for concurrent use.
type targets struct {
	cfg *Config
	// opening has each opened once at a time: who asks for one meanwhile has the
	// same answer, and others are not held up by one that is away.
	opening singleflight.Group

	mu   sync.Mutex
	open map[string]target
}

// target is a destination that is open.
type target interface {
	// begin begins a group of about n items.
	begin(s schemas.Settings, n int) restore.Group
	// Probe says whether it can be written to.
	Probe(ctx context.Context) error
	Close() error
}

type treeTarget struct{ *destination.Tree }

func (t treeTarget) begin(s schemas.Settings, n int) restore.Group { return t.Group(s, n) }

type bucketTarget struct{ *destination.Bucket }

func (b bucketTarget) begin(s schemas.Settings, n int) restore.Group { return b.Group(s, n) }

func (b bucketTarget) Close() error { return nil }

func newTargets(cfg *Config) *targets {
	return &targets{cfg: cfg, open: map[string]target{}}
}

// group begins a group below the root of the settings.
func (t *targets) group(s schemas.Settings, n int) (restore.Group, error) {
	to, err := t.get(s.Root)
	if err != nil {
		return nil, err
	}
	return to.begin(s, n), nil
}

// probe says whether the destination with this root can be written to.
func (t *targets) probe(ctx context.Context, root string) error {
	to, err := t.get(root)
	if err != nil {
		return err
	}
	return to.Probe(ctx)
}

// get gives a destination ready to be used. To make it so sweeps what dead
// processes left there.
func (t *targets) get(root string) (target, error) {
	t.mu.Lock()
	to := t.open[root]
	t.mu.Unlock()
	if to != nil {
		return to, nil
	}
	opened, err, _ := t.opening.Do(root, func() (any, error) {
		to, err := t.openTarget(root)
		if err != nil {
			return nil, err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.open == nil {
			return nil, errors.Join(fmt.Errorf("destination %q: the worker has ended", root), to.Close())
		}
		if known := t.open[root]; known != nil { // since it was asked for
			return known, to.Close()
		}
		t.open[root] = to
		return to, nil
	})
	if err != nil {
		return nil, err
	}
	return opened.(target), nil
}

func (t *targets) openTarget(root string) (target, error) {
	if !isBucket(root) {
		tree, err := destination.OpenTree(root)
		return treeTarget{tree}, err
	}
	name, prefix, err := objects.ParseURL(root)
	if err != nil {
		return nil, err
	}
	store, err := openStore(t.cfg)
	if err != nil {
		return nil, err
	}
	b, err := destination.OpenBucket(store, name, prefix)
	return bucketTarget{b}, err
}

// close closes all; none can be opened then.
func (t *targets) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, to := range t.open {
		errs = append(errs, to.Close())
	}
	t.open = nil
	return errors.Join(errs...)
}
