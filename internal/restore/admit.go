package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// admit judges what can be judged without the bytes, and gives the items whose
// bytes are wanted. An error means that the destination is away or the context
// has ended.
func (r *run) admit(ctx context.Context, found map[string]schemas.Artifact, lookup float64) (wanted []int, err error) {
	present := make([]int, 0, len(r.done))
	for i := range r.done {
		d := &r.done[i]
		d.Durations.Read = lookup
		a, ok := found[d.Tombstone]
		if !ok {
			fail(d, notFound(d.Tombstone))
			continue
		}
		d.Item, d.Repo, d.Path, d.SHA256, d.Size = a.Item, a.Repo, a.Path, a.SHA256, a.Size
		if a.Stored < 0 {
			fail(d, withoutBytes(a))
			continue
		}
		r.artifacts[i] = a
		present = append(present, i)
	}
	want := make([]bool, len(r.done))
	err = r.each(ctx, present, func(ctx context.Context, i int) (err error) {
		want[i], err = r.wants(ctx, i)
		return err
	})
	for _, i := range present {
		if want[i] {
			wanted = append(wanted, i)
		}
	}
	return wanted, err
}

// wants compares an item with what stands under its output, and says whether it
// is to be written.
func (r *run) wants(ctx context.Context, i int) (bool, error) {
	d, a := &r.done[i], r.artifacts[i]
	d.Outcome = schemas.OutcomeRestored
	if r.overwrite == schemas.OverwriteAlways {
		return true, nil
	}
	same, modified, err := r.compare(ctx, i, d.Output, a)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, fs.ErrNotExist), err == nil && !same && r.overwrite == schemas.OverwriteIfDifferent:
		return true, nil
	case err != nil:
		return false, judge(d, err)
	case !same:
		fail(d, fault.New(schemas.CodeDestinationExists, "output %q: other content stands there", d.Output))
	case modified.Before(d.Published):
		d.Outcome = schemas.OutcomeUnchanged
	}
	return false, nil
}

func (r *run) compare(ctx context.Context, i int, output string, a schemas.Artifact) (same bool, modified time.Time, err error) {
	type standing struct {
		same     bool
		modified time.Time
	}
	s, err := limited(ctx, r.itemTimeout, func(ctx context.Context) (s standing, err error) {
		s.same, s.modified, err = r.group.Compare(ctx, i, output, a.Size, a.SHA256)
		return s, err
	}, func() string {
		return fmt.Sprintf("tombstone %q: comparing its %d bytes with what stands under output %q", a.Tombstone, a.Size, output)
	})
	return s.same, s.modified, err
}

func notFound(tombstone string) error {
	return fault.New(schemas.CodeTombstoneNotFound, "tombstone %q: the archive has no such item", tombstone)
}
