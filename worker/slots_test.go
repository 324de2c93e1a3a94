package worker

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

// contest has batches take groups in turn. Now and then a slot becomes free just
// in the moment in which a batch, having taken a group, does not wait yet.
func contest(t *testing.T, groups, size, rounds int, batches map[string]schemas.Priority, used func(batch string) int) (items map[string]int) {
	t.Helper()
	s := newSlots(groups, size)
	items = map[string]int{}
	shares := map[string]*share{}
	waiting := map[string]*waiter{}
	for b, p := range batches {
		shares[b] = s.join(p)
	}
	var held []*slot
	away := map[string]bool{}
	for granted := 0; granted < rounds; {
		for b := range batches {
			if waiting[b] == nil && !away[b] {
				waiting[b] = s.enqueue(shares[b], size)
			}
		}
		if len(held) > 0 {
			i := rand.IntN(len(held))
			held[i].release()
			held = append(held[:i], held[i+1:]...)
		}
		clear(away)
		for b, w := range waiting {
			select {
			case got := <-w.given:
				n := used(b)
				got.fit(n)
				items[b] += n
				granted++
				held = append(held, got)
				away[b] = rand.IntN(20) == 0
				delete(waiting, b)
			default:
			}
		}
		var inUse int64
		for _, h := range held {
			inUse += h.held
		}
		if s.free < 0 || inUse+s.free > s.size { // who is further on has been given the rest
			t.Fatalf("%d in use and %d free of %d", inUse, s.free, s.size)
		}
	}
	return items
}

func TestSlotsAreSharedByPriority(t *testing.T) {
	t.Parallel()
	const u, n, b = schemas.PriorityUrgent, schemas.PriorityNormal, schemas.PriorityBulk
	many := map[string]schemas.Priority{"n": "", "b": b}
	for i := range 100 {
		many[fmt.Sprint("u", i)] = u
	}
	for _, c := range []struct {
		name    string
		batches map[string]schemas.Priority
		want    map[byte]float64 // shares by the first letter
	}{
		{"one of each", map[string]schemas.Priority{"u": u, "n": n, "b": b}, map[byte]float64{'u': 16. / 21, 'n': 4. / 21, 'b': 1. / 21}},
		{"two classes", map[string]schemas.Priority{"n": n, "b": b}, map[byte]float64{'n': 4. / 5, 'b': 1. / 5}},
		{"many urgent ones", many, map[byte]float64{'u': 16. / 21, 'n': 4. / 21, 'b': 1. / 21}},
		{"equals", map[string]schemas.Priority{"x": n, "y": n, "z": n}, map[byte]float64{'x': 1. / 3, 'y': 1. / 3, 'z': 1. / 3}},
	} {
		for _, groups := range []int{1, 2, 8} {
			for _, size := range []string{"whole", "part"} {
				t.Run(fmt.Sprint(c.name, " ", groups, " ", size), func(t *testing.T) {
					t.Parallel()
					sum := 0
					got := map[byte]float64{}
					each := contest(t, groups, 512, 2000, c.batches, func(batch string) int {
						if size == "part" && batch[0] == 'u' {
							return 400 + rand.IntN(100) // its messages are large
						}
						return 512
					})
					for b, n := range each {
						got[b[0]] += float64(n)
						sum += n
					}
					for b, want := range c.want {
						if share := got[b] / float64(sum); math.Abs(share-want) > want/10+0.002 {
							t.Errorf("%c has %.4f, want %.4f", b, share, want)
						}
					}
					if len(each) != len(c.batches) {
						t.Errorf("%d of %d batches were served", len(each), len(c.batches))
					}
				})
			}
		}
	}
}

// Who was not there cannot make up for it.
func TestSlotsForgetWhoWasAway(t *testing.T) {
	t.Parallel()
	s := newSlots(2, 100)
	old, late := s.join(schemas.PriorityNormal), s.join(schemas.PriorityUrgent)
	one := func(sh *share) { s.acquire(t.Context(), sh, 100).release() }
	for range 1000 {
		one(old)
	}
	full := []*slot{s.acquire(t.Context(), old, 100), s.acquire(t.Context(), old, 100)}
	waitsOld := s.enqueue(old, 100)
	turns := 0
	for turns < 1000 {
		waits := s.enqueue(late, 100)
		full[0].release()
		select {
		case full[0] = <-waits.given:
			turns++
			continue
		case full[0] = <-waitsOld.given:
		}
		break
	}
	if turns > 60 {
		t.Errorf("the other one waited for %d turns", turns)
	}
}

func TestSlotsSerial(t *testing.T) {
	t.Parallel()
	s := newSlots(1, 512)
	sh := s.join("")
	first := s.acquire(t.Context(), sh, 512)
	first.fit(1)
	second := s.enqueue(sh, 1)
	if len(second.given) != 0 {
		t.Error("two groups at a time")
	}
	first.release()
	if len(second.given) != 1 {
		t.Error("the second group is not served")
	}
}

// Nobody who gives up takes anything along, and who needs much is not overtaken
// for ever.
func TestSlotsWhenContextsEnd(t *testing.T) {
	t.Parallel()
	s := newSlots(2, 100)
	large := s.join("")
	hold := s.acquire(t.Context(), s.join(""), 100)
	small := s.acquire(t.Context(), s.join(""), 10)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan *slot)
	go func() { gone <- s.acquire(ctx, large, 200) }()
	for waiting := 0; waiting == 0; {
		s.mu.Lock()
		waiting = len(s.waiting)
		s.mu.Unlock()
	}
	behind := s.enqueue(s.join(""), 10)
	if len(behind.given) != 0 {
		t.Error("the large one is overtaken")
	}
	cancel()
	if got := <-gone; got != nil {
		t.Error("got a slot although the context has ended")
	}
	(<-behind.given).release()
	hold.release()
	small.release()
	if s.free != 200 || len(s.waiting) != 0 {
		t.Errorf("%d free, %d waiting", s.free, len(s.waiting))
	}
}

func TestSlotsUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSlots(3, 50)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			sh := s.join([]schemas.Priority{schemas.PriorityUrgent, schemas.PriorityNormal, schemas.PriorityBulk}[i%3])
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(20*time.Millisecond))
				if got := s.acquire(ctx, sh, 1+rand.IntN(60)); got != nil {
					got.fit(rand.IntN(50))
					s.set(sh, schemas.PriorityBulk, nil)
					got.release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if s.free != s.size || len(s.waiting) != 0 {
		t.Errorf("%d free of %d, %d waiting", s.free, s.size, len(s.waiting))
	}
}

// A batch that becomes urgent while it waits is served as such.
func TestSlotsChangeOfPriority(t *testing.T) {
	t.Parallel()
	s := newSlots(1, 100)
	bulk, normal := s.join(schemas.PriorityBulk), s.join("")
	for range 10 {
		s.acquire(t.Context(), bulk, 100).release()
		s.acquire(t.Context(), normal, 100).release()
	}
	hold := s.acquire(t.Context(), normal, 100)
	behind, first := s.enqueue(normal, 100), s.enqueue(bulk, 100)
	s.set(bulk, schemas.PriorityUrgent, nil)
	hold.release()
	if len(first.given) != 1 || len(behind.given) != 0 {
		t.Error("it waits as before")
	}
}
