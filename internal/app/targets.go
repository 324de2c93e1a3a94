package app

import (
	"errors"
	"sync"

	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
)

// targets are the destinations in use, by root. They are safe for concurrent use.
type targets struct {
	cfg *Config

	mu      sync.Mutex
	trees   map[string]*destination.Tree
	buckets map[string]*destination.Bucket
}

func newTargets(cfg *Config) *targets {
	return &targets{cfg: cfg, trees: map[string]*destination.Tree{}, buckets: map[string]*destination.Bucket{}}
}

// group begins a group below the root of the settings.
func (t *targets) group(s schemas.Settings, n int) (restore.Group, error) {
	if isBucket(s.Root) {
		b, err := t.bucket(s.Root)
		if err != nil {
			return nil, err
		}
		return b.Group(s, n), nil
	}
	tree, err := t.tree(s.Root)
	if err != nil {
		return nil, err
	}
	return tree.Group(s, n), nil
}

// open makes a root ready, which also sweeps what dead processes left below it.
func (t *targets) open(root string) (err error) {
	if isBucket(root) {
		_, err = t.bucket(root)
	} else {
		_, err = t.tree(root)
	}
	return err
}

func (t *targets) tree(root string) (*destination.Tree, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tree := t.trees[root]; tree != nil {
		return tree, nil
	}
	tree, err := destination.OpenTree(root)
	if err == nil {
		t.trees[root] = tree
	}
	return tree, err
}

func (t *targets) bucket(root string) (*destination.Bucket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := t.buckets[root]; b != nil {
		return b, nil
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
	if err == nil {
		t.buckets[root] = b
	}
	return b, err
}

func (t *targets) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, tree := range t.trees {
		errs = append(errs, tree.Close())
	}
	clear(t.trees)
	clear(t.buckets)
	return errors.Join(errs...)
}
