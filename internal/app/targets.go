package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

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
	open map[string]use
	// restAfter is how long after the last group began a destination is closed, so that
	// its file system can be unmounted.
	restAfter time.Duration
}

// use is a destination that is open, and when it is closed unless somebody needs it;
// nil where nothing is held open.
type use struct {
	target
	rest *time.Timer
}

// needed puts the rest off.
func (u use) needed(after time.Duration) {
	if u.rest != nil {
		u.rest.Reset(after)
	}
}

func (u use) close() error {
	if u.rest != nil {
		u.rest.Stop()
	}
	return u.Close()
}

// target is a destination that is open.
type target interface {
	// begin begins a group of about n items.
	begin(s schemas.Settings, n int) restore.Group
	// Probe says whether it can be written to.
	Probe(ctx context.Context) error
	// Moved says that its root is another one now.
	Moved() bool
	// Close ends its use. A group that is under way goes on.
	Close() error
}

type treeTarget struct{ *destination.Tree }

func (t treeTarget) begin(s schemas.Settings, n int) restore.Group { return t.Group(s, n) }

type bucketTarget struct{ *destination.Bucket }

func (b bucketTarget) begin(s schemas.Settings, n int) restore.Group { return b.Group(s, n) }

func (b bucketTarget) Moved() bool { return false }

func (b bucketTarget) Close() error { return nil }

func newTargets(cfg *Config) *targets {
	return &targets{cfg: cfg, open: map[string]use{}, restAfter: time.Minute}
}

// group begins a group below the root of the settings.
func (t *targets) group(s schemas.Settings, n int) (restore.Group, error) {
	for {
		to, err := t.get(s.Root)
		if err != nil {
			return nil, err
		}
		if g := t.begin(to, s, n); g != nil {
			return g, nil
		}
	}
}

// begin begins a group unless the destination is not the one in use any more.
func (t *targets) begin(to target, s schemas.Settings, n int) restore.Group {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.open[s.Root]
	if u.target != to {
		return nil
	}
	u.needed(t.restAfter)
	return to.begin(s, n)
}

// probe says whether the destination with this root can be written to.
func (t *targets) probe(ctx context.Context, root string) error {
	to, err := t.get(root)
	if err != nil {
		return err
	}
	t.mu.Lock()
	if u := t.open[root]; u.target == to {
		u.needed(t.restAfter) // it alone knows on which file systems files are wanted
	}
	t.mu.Unlock()
	return to.Probe(ctx)
}

// get gives a destination ready to be used. To make it so sweeps what dead
// processes left there. Where somebody has replaced or removed a root it is opened
// anew.
func (t *targets) get(root string) (target, error) {
	t.mu.Lock()
	used := t.open[root].target
	t.mu.Unlock()
	if used != nil && !used.Moved() {
		return used, nil
	}
	opened, err, _ := t.opening.Do(root, func() (any, error) {
		t.forget(root, used)
		to, err := t.openTarget(root)
		if err != nil {
			return nil, err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.open == nil {
			return nil, errors.Join(fmt.Errorf("destination %q: the worker has ended", root), to.Close())
		}
		if known := t.open[root].target; known != nil { // since it was asked for
			_ = to.Close() // what stays of it is swept
			return known, nil
		}
		u := use{target: to}
		if !isBucket(root) {
			u.rest = time.AfterFunc(t.restAfter, func() { t.forget(root, to) })
		}
		t.open[root] = u
		return to, nil
	})
	if err != nil {
		return nil, err
	}
	return opened.(target), nil
}

// forget closes a destination that is in use, if it is. Groups that are under way go
// on there; the next one opens it anew.
func (t *targets) forget(root string, to target) {
	t.mu.Lock()
	u := t.open[root]
	in := to != nil && u.target == to
	if in {
		delete(t.open, root)
	}
	t.mu.Unlock()
	if in {
		_ = u.close() // what stays of it is swept
	}
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
	open := slices.Collect(maps.Values(t.open))
	t.open = nil
	t.mu.Unlock()
	errs := make([]error, len(open))
	var closing sync.WaitGroup
	for i, u := range open { // at the same time, for one may hang
		closing.Go(func() { errs[i] = u.close() })
	}
	closing.Wait()
	return errors.Join(errs...)
}
