package worker

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/exhume/exhume/schemas"
)

// rates is a limiter in memory.
type rates struct {
	mu     sync.Mutex
	free   map[string]time.Time
	rate   map[string]float64
	broken bool
}

func newRates() *rates { return &rates{free: map[string]time.Time{}, rate: map[string]float64{}} }

func (r *rates) Reserve(_ context.Context, scope string, units, perSecond float64) (at time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return at, errDead
	}
	now := time.Now()
	at = now
	if ahead := r.free[scope].Sub(now); ahead > 0 {
		at = now.Add(time.Duration(float64(ahead) * r.rate[scope] / perSecond))
	}
	r.free[scope], r.rate[scope] = at.Add(time.Duration(units/perSecond*float64(time.Second))), perSecond
	return at, nil
}

func limit(scope string, items float64) schemas.Limit {
	return schemas.Limit{Scope: scope, Items: items}
}

func TestLimitHoldsForTheFleet(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 2, 5} {
		for _, perMessage := range []int{1, 10, 100} {
			t.Run(fmt.Sprint(workers, " workers, ", perMessage, " per message"), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					s, l, r := newShelf(), newRates(), &slow{took: 20 * time.Millisecond}
					s.steer(schemas.Steering{Limits: []schemas.Limit{limit(schemas.ScopeFleet, 200)}})
					s.put(schemas.Batch{ID: "x"}, 20_000, perMessage)
					s.put(schemas.Batch{ID: "y"}, 20_000, perMessage)
					for i := range workers {
						p := s.run(t, Config{Name: fmt.Sprint("w", i), Limiter: l}, r)
						defer p.stop()
					}
					for second := range 30 {
						time.Sleep(time.Second) // of the bubble's clock
						got := float64(r.count("x") + r.count("y"))
						want := 200 * float64(second+1)
						if ahead := float64(workers * 100); got > want+ahead || got < want-ahead {
							t.Fatalf("%g items after %d s, want %g ± %g", got, second+1, want, ahead)
						}
					}
					if x, y := r.count("x"), r.count("y"); x < 2000 || y < 2000 {
						t.Errorf("one batch got %d items and the other %d", x, y)
					}
				})
			})
		}
	}
}

func TestChangedLimitsHoldAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, r := newShelf(), &slow{took: 200 * time.Millisecond}
		s.put(schemas.Batch{ID: "b"}, 100_000, 10)
		s.steer(schemas.Steering{Limits: []schemas.Limit{limit(schemas.ScopeBatch("b"), 0.01)}})
		p := s.run(t, Config{Limiter: newRates()}, r)
		defer p.stop()
		time.Sleep(10 * time.Second)
		if n := r.count("b"); n != 10 {
			t.Errorf("%d items, want one message", n)
		}
		st := p.Status(schemas.WorkerQuestion{})
		if until := time.Until(st.LimitedUntil); st.LimitedBy != "batch-b" || until < 900*time.Second || until > 1000*time.Second {
			t.Errorf("limited by %q for %s", st.LimitedBy, until)
		}
		rate := func(of string, limits ...schemas.Limit) float64 {
			s.steer(schemas.Steering{Limits: limits})
			time.Sleep(2 * time.Second)
			before := r.count(of)
			time.Sleep(10 * time.Second)
			return float64(r.count(of)-before) / 10
		}
		if got := rate("b", limit(schemas.ScopeBatch("b"), 100)); math.Abs(got-100) > 10 {
			t.Errorf("%g items/s, want 100", got)
		}
		if got := rate("b", limit(schemas.ScopeBatch("other"), 1)); got < 2000 {
			t.Errorf("%g items/s without a limit", got)
		}
		if st := p.Status(schemas.WorkerQuestion{}); st.LimitedBy != "" {
			t.Errorf("limited by %q", st.LimitedBy)
		}
		s.put(schemas.Batch{ID: "c"}, 100_000, 10)
		if got := rate("c", limit(schemas.ScopeBackend("sqlite"), 1), limit(schemas.ScopeBatch("c"), 50), limit(schemas.ScopeFleet, 5000)); math.Abs(got-50) > 10 {
			t.Errorf("%g items/s, want 50: the lowest that concerns it", got)
		}
	})
}

// A limit keeps only those waiting whom it concerns.
func TestLimitOfOneBatchHoldsUpNoOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, r := newShelf(), &slow{took: 50 * time.Millisecond}
		s.steer(schemas.Steering{Limits: []schemas.Limit{limit(schemas.ScopeBatch("slow"), 10)}})
		s.put(schemas.Batch{ID: "slow", Terms: schemas.Terms{Priority: schemas.PriorityUrgent}}, 10_000, 1)
		s.put(schemas.Batch{ID: "fast", Terms: schemas.Terms{Priority: schemas.PriorityBulk}}, 100_000, 64)
		defer s.run(t, Config{Limiter: newRates(), Groups: 1}, r).stop()
		time.Sleep(5 * time.Second)
		if n := r.count("fast"); n < 512*50 {
			t.Errorf("%d items of the batch without a limit", n)
		}
		if n := r.count("slow"); n < 40 || n > 60 {
			t.Errorf("%d items in 5 s of a batch with 10 a second", n)
		}
	})
}

// Sizes are known only afterwards. What was taken too much is made up for.
func TestLimitOfBytes(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for _, c := range []struct {
		name  string
		size  func(index int64) int64
		ahead float64 // in the end, in MB
	}{
		{"alike", func(int64) int64 { return mb }, 40},
		{"large ones after small ones", func(index int64) int64 {
			if index < 500 {
				return mb / 10
			}
			return 10 * mb
		}, 80},
		{"empty", func(int64) int64 { return 0 }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, l, r := newShelf(), newRates(), &slow{took: 20 * time.Millisecond, size: c.size}
				s.steer(schemas.Steering{Limits: []schemas.Limit{{Scope: schemas.ScopeFleet, Bytes: 20 * mb}}})
				s.put(schemas.Batch{ID: "b"}, 20_000, 2)
				for i := range 3 {
					defer s.run(t, Config{Name: fmt.Sprint("w", i), Limiter: l}, r).stop()
				}
				time.Sleep(400 * time.Second)
				r.mu.Lock()
				defer r.mu.Unlock()
				got, want := float64(r.bytes/mb), 20.*400
				if c.name == "empty" {
					if r.items["b"] != 20_000 {
						t.Errorf("%d items", r.items["b"])
					}
				} else if math.Abs(got-want) > c.ahead {
					t.Errorf("%g MB in 400 s, want %g", got, want)
				}
			})
		})
	}
}

func TestLimitedFleetHeedsPriorities(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, l, r := newShelf(), newRates(), &slow{took: 20 * time.Millisecond}
		s.steer(schemas.Steering{Limits: []schemas.Limit{limit(schemas.ScopeFleet, 500)}})
		for _, p := range []schemas.Priority{schemas.PriorityUrgent, schemas.PriorityNormal, schemas.PriorityBulk} {
			s.put(schemas.Batch{ID: string(p), Terms: schemas.Terms{Priority: p}}, 100_000, 8)
		}
		defer s.run(t, Config{Limiter: l}, r).stop()
		time.Sleep(200 * time.Second)
		expectShares(t, r, 100_000)
	})
}

func TestPrioritiesInItems(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, r := newShelf(), &slow{took: 20 * time.Millisecond}
		// Many small groups of one batch count as much as few large ones of another.
		for p, perMessage := range map[schemas.Priority]int{schemas.PriorityUrgent: 100, schemas.PriorityNormal: 7, schemas.PriorityBulk: 1} {
			s.put(schemas.Batch{ID: string(p), Terms: schemas.Terms{Priority: p}}, 200_000, perMessage)
		}
		defer s.run(t, Config{}, r).stop()
		time.Sleep(4 * time.Second)
		expectShares(t, r, 100_000)
	})
}

func expectShares(t *testing.T, r *slow, about int) {
	t.Helper()
	u, n, b := r.count("urgent"), r.count("normal"), r.count("bulk")
	all := u + n + b
	if all < about*8/10 {
		t.Errorf("%d items in all", all)
	}
	for _, c := range []struct{ got, weight int }{{u, 16}, {n, 4}, {b, 1}} {
		if share, want := float64(c.got)/float64(all), float64(c.weight)/21; math.Abs(share-want) > want/10 {
			t.Errorf("%d of %d items, want a share of %d of 21 (%d, %d, %d)", c.got, all, c.weight, u, n, b)
		}
	}
}

// A group that is held keeps nobody waiting who works elsewhere, though nothing is
// known yet of how large items are.
func TestAHeldGroupLeavesTheGateOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.steer(schemas.Steering{Limits: []schemas.Limit{{Scope: schemas.ScopeFleet, Bytes: 1 << 20}}})
		s.put(below("/away", "held"), 1, 1)
		away := newOutage(schemas.CodeDestinationDown, time.Hour)
		defer s.run(t, Config{Limiter: newRates(), Prober: probes{destination: func(ctx context.Context, _ string) error {
			return away.probe(ctx)
		}}}, restoreTo(func(root string) error {
			if root == "/away" {
				return away.err()
			}
			return nil
		})).stop()
		time.Sleep(time.Second)
		s.put(below("/there", "other"), 100, 10)
		time.Sleep(time.Minute)
		if s.done("other") != 100 || s.done("held") != 0 {
			t.Errorf("%d and %d items", s.done("other"), s.done("held"))
		}
		time.Sleep(time.Hour)
		if s.done("held") != 1 {
			t.Errorf("%d items when it was back", s.done("held"))
		}
	})
}

// A limiter that cannot be asked lets nothing through, and nothing is lost by that.
func TestLimiterThatIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, l, r := newShelf(), newRates(), &slow{}
		l.broken = true
		s.steer(schemas.Steering{Limits: []schemas.Limit{limit(schemas.ScopeFleet, 100)}})
		s.put(schemas.Batch{ID: "b"}, 100, 10)
		p := s.run(t, Config{Limiter: l}, r)
		time.Sleep(10 * time.Second)
		if n := r.count("b"); n != 0 {
			t.Errorf("%d items went through", n)
		}
		p.stop()
		l.broken = false
		defer s.run(t, Config{Limiter: l}, r).stop()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := s.done("b"); n != 100 {
			t.Errorf("%d items of 100", n)
		}
	})
}
