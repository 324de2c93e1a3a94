package worker

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// mostGroups is how many small groups share the place of whole ones.
const mostGroups = 16

// slots bound how many items are worked on at a time.
type slots struct {
	free *semaphore.Weighted
	size int64
	// least is what a group takes however small it is.
	least int64
}

// newSlots makes room for so many groups of so many items each; room for one
// group takes one, whatever its size.
func newSlots(groups, size int) *slots {
	all := int64(groups) * int64(size)
	s := &slots{semaphore.NewWeighted(all), all, max(1, all/mostGroups)}
	if groups == 1 {
		s.least = all
	}
	return s
}

// slot is room for one group.
type slot struct {
	of   *slots
	held int64
}

// acquire waits for room for so many items, nil when the context ends before.
func (s *slots) acquire(ctx context.Context, items int) *slot {
	n := s.room(items)
	if s.free.Acquire(ctx, n) != nil {
		return nil
	}
	return &slot{s, n}
}

// room is what so many items take.
func (s *slots) room(items int) int64 { return min(max(int64(items), s.least), s.size) }

// fit gives up what so many items do not need.
func (s *slot) fit(items int) *slot {
	if n := s.of.room(items); n < s.held {
		s.of.free.Release(s.held - n)
		s.held = n
	}
	return s
}

func (s *slot) release() { s.of.free.Release(s.held) }
