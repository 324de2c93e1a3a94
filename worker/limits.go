package worker

import (
	"context"
	"time"

	"github.com/exhume/exhume/schemas"
)

const (
	// limitShare is how much of a limit one group may take, as a time: no more is
	// taken at once than may be used in it, or one message.
	limitShare = 500 * time.Millisecond
	// longestWait bounds how long a gate is shut for what one group has used, which
	// the fleet forgets by then, too.
	longestWait = time.Hour
)

// Limiter shares rates among the workers of a fleet.
type Limiter interface {
	// Reserve takes units of a scope's rate, above 0, and says from when on they
	// may be used. The scope is the limit's, and .items or .bytes.
	Reserve(ctx context.Context, scope string, units, perSecond float64) (at time.Time, err error)
}

// gate is one limit, as this worker keeps it. What goes through is paid for
// afterwards: it is taken from the fleet's rate, and the gate stays shut until that
// time has come at which it would be used up. So everybody takes turns at the rate
// that all have together, and each is ahead by no more than the last group that he
// took. The lock of slots guards it.
type gate struct {
	scope string // of the limit
	key   string // of the rate
	rate  float64
	next  time.Time
	// each is how many units an item is expected to use, 0 when that isn't known.
	each float64
	// owed are units that were used beyond what was expected.
	owed float64
	// busy says that somebody has gone through who has not paid yet.
	busy bool
}

// toll is what one group pays at a gate.
type toll struct {
	*gate
	units float64 // that were expected
	paid  bool
}

// enter shuts gates behind a group.
func enter(gates []*gate) (tolls []toll) {
	for _, g := range gates {
		g.busy = true
		tolls = append(tolls, toll{gate: g})
	}
	return tolls
}

// leave opens the gates at which nothing was paid, for good.
func leave(tolls []toll) {
	for i := range tolls {
		if t := &tolls[i]; !t.paid {
			t.busy, t.paid = false, true
		}
	}
}

// shutUntil says whether any of the gates is shut, and until when; zero when that
// is until somebody has paid.
func shutUntil(gates []*gate, now time.Time) (shut bool, until time.Time) {
	for _, g := range gates {
		switch {
		case g.busy:
			return true, time.Time{}
		case g.next.After(now):
			shut = true
			if g.next.After(until) {
				until = g.next
			}
		}
	}
	return shut, until
}

// atMost is how many of so many items may be taken at once.
func atMost(gates []*gate, items int) int {
	for _, g := range gates {
		if g.each == 0 {
			return 1 // message
		}
		items = min(items, max(1, int(min(g.rate*limitShare.Seconds()/g.each, float64(items)))))
	}
	return items
}

// pay pays for items that are about to be tried. The error is that the context or
// stop has ended.
func (w *Worker) pay(ctx, stop context.Context, s *slot, items int) error {
	for i := range s.tolls {
		t := &s.tolls[i]
		units, rate, known := s.due(t, items)
		if !known {
			continue // one group at a time shows what they are
		}
		at := time.Now()
		if units > 0 {
			err := w.insist(ctx, stop, "reserve a part of a limit", func() (err error) {
				at, err = w.cfg.Limiter.Reserve(ctx, t.key, units, rate)
				return err
			})
			if err != nil {
				return err
			}
		}
		s.pass(t, units, rate, at)
	}
	return nil
}

// due is what must be paid for so many items.
func (s *slot) due(t *toll, items int) (units, rate float64, known bool) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if t.each == 0 {
		return 0, 0, false
	}
	t.units = float64(items) * t.each
	return max(0, t.owed+t.units), t.rate, true
}

// pass ends the payment of units that may be used from at on.
func (s *slot) pass(t *toll, units, rate float64, at time.Time) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	t.owed += t.units - units
	ahead := min(time.Until(at).Seconds()+units/rate, longestWait.Seconds()) * rate / t.rate // which may have changed meanwhile
	t.next = time.Now().Add(time.Duration(ahead * float64(time.Second)))
	t.busy, t.paid = false, true
	s.of.serve()
}

// used tells how many bytes the items that were paid for had.
func (s *slot) used(items int, bytes int64) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	for _, t := range s.tolls {
		if t.key != byteRate(t.scope) || items == 0 {
			continue
		}
		t.owed += float64(bytes) - t.units
		mean := max(1, float64(bytes)/float64(items))
		if t.each > 0 {
			mean = (4*t.each + mean) / 5
		}
		t.each = mean
	}
}

// limited tells when the worker may take items again and which limit keeps it from
// that now, if one does.
func (s *slots) limited() (scope string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, w := range s.waiting {
		var last *gate
		for _, g := range w.share.gates {
			if g.next.After(now) && (last == nil || g.next.After(last.next)) {
				last = g
			}
		}
		if last == nil {
			return "", time.Time{} // it waits for room only
		}
		if until.IsZero() || last.next.Before(until) {
			scope, until = last.scope, last.next
		}
	}
	return scope, until
}

// limits are the gates of all limits that hold.
type limits struct {
	of      *slots
	backend string
	gates   map[string]*gate
}

func itemRate(scope string) string { return scope + ".items" }
func byteRate(scope string) string { return scope + ".bytes" }

// set makes limits those that hold. A gate that stays shut does so for what was
// used, not for a time: how long that is, is for the new limit to say.
func (l *limits) set(all []schemas.Limit) {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	gates := map[string]*gate{}
	add := func(scope, key string, rate, each float64) {
		if rate <= 0 {
			return
		}
		g := l.gates[key]
		if g == nil {
			g = &gate{scope: scope, key: key, rate: rate, each: each}
		}
		if ahead := time.Until(g.next); ahead > 0 && g.rate != rate {
			ahead = time.Duration(min(float64(ahead)*g.rate/rate, float64(longestWait)))
			g.next = time.Now().Add(ahead)
		}
		g.rate = rate
		gates[key] = g
	}
	for _, limit := range all {
		add(limit.Scope, itemRate(limit.Scope), limit.Items, 1)
		add(limit.Scope, byteRate(limit.Scope), float64(limit.Bytes), 0)
	}
	l.gates = gates
}

// on are the gates that a batch must pass.
func (l *limits) on(batch string) (gates []*gate) {
	for _, scope := range []string{schemas.ScopeFleet, schemas.ScopeBackend(l.backend), schemas.ScopeBatch(batch)} {
		for _, key := range []string{itemRate(scope), byteRate(scope)} {
			if g := l.gates[key]; g != nil {
				gates = append(gates, g)
			}
		}
	}
	return gates
}
