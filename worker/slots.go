package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/exhume/exhume/schemas"
)

// mostGroups is how many small groups share the place of whole ones.
const mostGroups = 16

// slots bound how many items are worked on at a time, and divide the room among
// the batches that wait for it: among the priorities by their weights, and evenly
// among the batches of one priority. What is divided is items, not groups, and
// only what was used counts. Batches that a limit holds up are passed over.
type slots struct {
	size int64
	// least is what a group takes however small it is.
	least int64

	mu      sync.Mutex
	free    int64
	lenders []*lender // who want their room back, as they came
	waiting []*waiter // as they came
	classes map[schemas.Priority]*class
	clock   float64     // the most that a class had used when its turn came
	alarm   *time.Timer // rings when the next gate opens
}

// class are the batches of one priority.
type class struct {
	weight float64
	// used is how many items they were given, by weight. Of all that wait, those
	// come first whose class has used least, and of these that whose own share has.
	used  float64
	clock float64 // the most that a share had used when its turn came
}

// share is what one batch is given.
type share struct {
	class *class
	used  float64
	gates []*gate
}

// waiter waits for room for so many items.
type waiter struct {
	share *share
	items int
	given chan *slot
}

// newSlots makes room for so many groups of so many items each; room for one
// group takes one, whatever its size.
func newSlots(groups, size int) *slots {
	all := int64(groups) * int64(size)
	s := &slots{size: all, least: max(1, all/mostGroups), free: all, classes: map[schemas.Priority]*class{}}
	if groups == 1 {
		s.least = all
	}
	return s
}

// join begins a batch's share.
func (s *slots) join(p schemas.Priority) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.class(p)
	return &share{class: c, used: c.clock}
}

// set changes the priority of a batch and its gates.
func (s *slots) set(sh *share, p schemas.Priority, gates []*gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.class(p)
	sh.used += c.clock - sh.class.clock
	sh.class, sh.gates = c, gates
	s.serve()
}

func (s *slots) class(p schemas.Priority) *class {
	if p == "" {
		p = schemas.PriorityNormal
	}
	c := s.classes[p]
	if c == nil {
		c = &class{weight: float64(p.Weight())}
		s.classes[p] = c
	}
	return c
}

// acquire waits for room for so many items, or fewer where a limit wants it, and
// for the batch's gates to open. It is nil when the context ends before.
func (s *slots) acquire(ctx context.Context, sh *share, items int) *slot {
	if ctx.Err() != nil {
		return nil
	}
	w := s.enqueue(sh, items)
	select {
	case got := <-w.given:
		return got
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *waiter) bool { return other == w })
	s.serve() // whom it stood before
	s.mu.Unlock()
	select {
	case got := <-w.given:
		got.giveBack()
	default:
	}
	return nil
}

func (s *slots) enqueue(sh *share, items int) *waiter {
	w := &waiter{share: sh, items: items, given: make(chan *slot, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, w)
	s.serve()
	return w
}

// serve gives room to those who wait, as long as there is enough for whose turn it
// is. Nobody overtakes because he needs less: whoever needs much would wait for
// ever. Serve and what follows is called with the lock held.
func (s *slots) serve() {
	// Whoever has something in hand comes first.
	for len(s.lenders) > 0 {
		l := s.lenders[0]
		if l.room > s.free {
			return
		}
		s.free -= l.room
		s.lenders = s.lenders[1:]
		close(l.served)
	}
	if len(s.waiting) == 0 {
		return
	}
	now := time.Now()
	for {
		w, opens := s.first(now)
		if w != nil {
			items := atMost(w.share.gates, w.items)
			if room := s.room(items); room <= s.free {
				s.give(w, items, room)
				continue
			}
		}
		if s.alarm != nil {
			s.alarm.Stop()
			s.alarm = nil
		}
		if !opens.IsZero() {
			s.alarm = time.AfterFunc(opens.Sub(now), s.wake)
		}
		return
	}
}

func (s *slots) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve()
}

// first is whose turn it is, nil for nobody's; opens is when the next gate opens
// by itself, zero when none will.
func (s *slots) first(now time.Time) (first *waiter, opens time.Time) {
	for _, w := range s.waiting {
		if shut, until := shutUntil(w.share.gates, now); shut {
			if !until.IsZero() && (opens.IsZero() || until.Before(opens)) {
				opens = until
			}
			continue
		}
		if first == nil || s.before(w.share, first.share) {
			first = w
		}
	}
	return first, opens
}

func (s *slots) before(a, b *share) bool {
	if a.class == b.class {
		return s.usedBy(a) < s.usedBy(b)
	}
	if x, y := s.usedByClass(a.class), s.usedByClass(b.class); x != y {
		return x < y
	}
	return a.class.weight > b.class.weight
}

// usedByClass is what a class has used. One that was not there for long may not
// make up for that: it is at most the size of all slots behind. So much it is
// left, since a batch that has just taken a group does not wait for a moment.
func (s *slots) usedByClass(c *class) float64 { return max(c.used, s.clock-float64(s.size)) }

// usedBy is the same for a share, among those of its class.
func (s *slots) usedBy(sh *share) float64 { return max(sh.used, sh.class.clock-float64(s.size)) }

func (s *slots) give(w *waiter, items int, room int64) {
	sh, c := w.share, w.share.class
	c.used, sh.used = s.usedByClass(c), s.usedBy(sh)
	s.clock, c.clock = max(s.clock, c.used), max(c.clock, sh.used)
	given := &slot{of: s, share: sh, class: c, items: items, held: room, tolls: enter(sh.gates)}
	given.charge(items)
	s.free -= room
	s.waiting = slices.DeleteFunc(s.waiting, func(other *waiter) bool { return other == w })
	w.given <- given
}

// room is what so many items take.
func (s *slots) room(items int) int64 { return min(max(int64(items), s.least), s.size) }

// slot is room for one group.
type slot struct {
	of    *slots
	share *share
	class *class
	items int
	held  int64
	lent  int64 // of what was held
	tolls []toll
}

func (s *slot) charge(items int) {
	s.share.used += float64(items)
	s.class.used += float64(items) / s.class.weight
}

// fit gives up what so many items do not need, and has them count. They may be
// more than there was to be room for: messages are not divided.
func (s *slot) fit(items int) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.charge(items - s.items)
	s.items = items
	if n := s.of.room(items); n < s.held {
		s.of.free += s.held - n
		s.held = n
	}
	s.of.serve()
}

// lender waits for room that is his.
type lender struct {
	room   int64
	served chan struct{}
}

// lend lets others have the room while the group cannot use it, and go through the
// gates behind which it has kept them waiting.
func (s *slot) lend() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.free += s.held
	s.lent, s.held = s.held, 0
	leave(s.tolls)
	s.of.serve()
}

// takeBack waits for the room that was lent. The error is the context's.
func (s *slot) takeBack(ctx context.Context) error {
	l := &lender{room: s.lent, served: make(chan struct{})}
	s.of.mu.Lock()
	s.of.lenders = append(s.of.lenders, l)
	s.of.serve()
	s.of.mu.Unlock()
	var err error
	select {
	case <-l.served:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.lenders = slices.DeleteFunc(s.of.lenders, func(other *lender) bool { return other == l })
	select {
	case <-l.served:
		s.held, s.lent, err = s.lent, 0, nil
	default:
		s.of.serve() // whom it stood before
	}
	return err
}

func (s *slot) release() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.free += s.held
	leave(s.tolls)
	s.of.serve()
}

// giveBack releases a slot that was not used.
func (s *slot) giveBack() {
	s.fit(0)
	s.release()
}
