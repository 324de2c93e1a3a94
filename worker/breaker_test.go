package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// below is a batch below a root.
func below(root, id string) schemas.Batch {
	return schemas.Batch{ID: id, Settings: schemas.Settings{Root: root}}
}

// asks is how often messages of a batch have been asked for.
func (s *shelf) asks(batch string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[batch]
}

// taken is how many items of a batch were in somebody's hand in all, counting those
// that came again again.
func (s *shelf) taken(batch string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.msgs[batch] {
		n += m.deliveries * int(m.last-m.first+1)
	}
	return n
}

// firstAttempts makes sure that no item has cost more than one attempt.
func (s *shelf) firstAttempts(t *testing.T) {
	t.Helper()
	for id, r := range s.results {
		if r.Attempts != 1 || r.Outcome != schemas.OutcomeRestored {
			t.Errorf("%s: %s after %d attempts", id, r.Outcome, r.Attempts)
		}
	}
}

// While a destination is away nothing is taken for it, what is in hand is held, and
// the batches of others have all the room.
func TestNothingIsTakenForWhatIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(below("/away", "idle"), 0, 5)
		s.put(below("/there", "other"), 50_000, 50)
		away := newOutage(schemas.CodeDestinationDown, time.Minute)
		var events []schemas.BreakerState
		p := s.run(t, Config{
			GroupSize: 50, Groups: 2, Prober: probes{destination: func(ctx context.Context, _ string) error { return away.probe(ctx) }},
			Tell: func(e schemas.WorkerEvent) { // one at a time
				if e.Worker != "w" || e.Breaker.Of != "/away" || e.At.IsZero() {
					t.Errorf("event %+v", e)
				}
				events = append(events, e.Breaker.State)
			},
		}, restoreTo(func(root string) error {
			if root == "/away" {
				return away.err()
			}
			time.Sleep(10 * time.Millisecond) // of the bubble's clock
			return nil
		}))
		time.Sleep(time.Second)
		s.put(below("/away", "b"), 300, 5)
		time.Sleep(time.Second)
		asked, taken := s.asks("b")+s.asks("idle"), s.taken("b")
		s.put(below("/away", "idle"), 20, 5)
		time.Sleep(55 * time.Second)
		if n := s.asks("b") + s.asks("idle") - asked; n != 0 {
			t.Errorf("asked %d times for messages", n)
		}
		if now := s.taken("b"); now != taken || taken == 0 || taken > 100 || s.taken("idle") != 0 {
			t.Errorf("%d and %d items taken, of them %d in the first seconds", now, s.taken("idle"), taken)
		}
		if n := s.done("other"); n < 30_000 {
			t.Errorf("the other batch got %d items", n)
		}
		time.Sleep(5 * time.Minute)
		p.stop()
		if s.done("b") != 300 || s.done("idle") != 20 || s.done("other") != 50_000 || s.repeated > 0 {
			t.Errorf("%d, %d and %d done, %d repeated", s.done("b"), s.done("idle"), s.done("other"), s.repeated)
		}
		if n := s.taken("b"); n > 300 {
			t.Errorf("300 items were taken %d times", n)
		}
		s.firstAttempts(t)
		if diff := cmp.Diff([]schemas.BreakerState{schemas.BreakerOpen, schemas.BreakerClosed}, events); diff != "" {
			t.Error(diff)
		}
	})
}

// What opens while a group is gathered lets no more come in.
func TestNothingMoreIsTakenOnceOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(schemas.Batch{ID: "b"}, 10, 1)
		h := &hold{shelf: s}
		away := newOutage(schemas.CodeArchiveDown, time.Hour)
		w, err := New(Config{Name: "w", Prober: probes{archive: away.probe}}, h, h, awayUntil{away, &slow{}}, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		defer w.guard.close()
		gathered := w.hands.open(t.Context(), t.Context(), "b")
		defer w.hands.close(gathered)
		gathered.slot = w.slots.acquire(t.Context(), w.slots.join(""), 10)
		stop, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		other := &hand{work: t.Context(), stop: stop, slot: w.slots.acquire(t.Context(), w.slots.join(""), 10)}
		if _, err := w.guard.restore(other, w.restorer, schemas.Settings{}, group(1)); err == nil {
			t.Error("restored in an outage")
		}
		if err := w.fill(t.Context(), gathered, ""); err != nil || s.asks("b") != 0 || len(gathered.msgs) != 0 {
			t.Errorf("%v, asked %d times", err, s.asks("b"))
		}
	})
}

// However often what is needed comes and goes, no more is in hand than there is room
// for.
func TestFlappingPilesNothingUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(schemas.Batch{ID: "b"}, 100_000, 10)
		begin := time.Now()
		flapping := func(context.Context) error {
			if time.Since(begin)/(3*time.Second)%2 == 1 {
				return fault.New(schemas.CodeArchiveDown, "refused")
			}
			return nil
		}
		p := s.run(t, Config{GroupSize: 100, Groups: 3, Prober: probes{archive: flapping}}, restorerFunc(func(ctx context.Context, _ schemas.Request) error {
			_ = lasts(ctx, 20*time.Millisecond)
			return flapping(ctx)
		}))
		for range 600 {
			time.Sleep(time.Second)
			if n := p.Status(schemas.WorkerQuestion{}).Items; n > 2*300 {
				t.Fatalf("%d items in hand", n)
			}
		}
		p.stop()
		if s.done("b") < 1000 || s.repeated > 0 {
			t.Errorf("%d done, %d repeated", s.done("b"), s.repeated)
		}
		s.firstAttempts(t)
	})
}

// fullDisk is a destination that a worker cannot write to for a while.
type fullDisk struct {
	mu     sync.Mutex
	full   bool
	tries  int // in vain
	probes int
}

func (d *fullDisk) set(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// count is how often it was tried in vain, and probed.
func (d *fullDisk) count() (tries, probes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tries, d.probes
}

func (d *fullDisk) Restore(_ context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	time.Sleep(10 * time.Millisecond) // of the bubble's clock
	d.mu.Lock()
	defer d.mu.Unlock()
	done := restored(items)
	if s.Root == "/full" && d.full {
		// The first items of a group find room.
		d.tries++
		for i := 3; i < len(done); i++ {
			done[i] = failure(items[i], fault.New(schemas.CodeDestinationFull, "no space left"))
		}
	}
	return done, nil
}

func (d *fullDisk) Archive(context.Context) error { return nil }

func (d *fullDisk) Destination(_ context.Context, root string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.probes++
	if root == "/full" && d.full {
		return fault.New(schemas.CodeDestinationFull, "no space left")
	}
	return nil
}

// A worker that cannot write to a destination gives back what it has in hand for it,
// and goes on with others; other workers go on.
func TestSickWorkerStepsAside(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(below("/full", "b"), 5000, 5)
		s.put(below("/there", "other"), 20_000, 50)
		d := &fullDisk{full: true}
		cfg := Config{Name: "sick", GroupSize: 50, Groups: 4, Prober: d}
		sick := s.run(t, cfg, d)
		well := s.run(t, Config{Name: "well", GroupSize: 50}, &slow{took: 100 * time.Millisecond})
		time.Sleep(2 * time.Second)
		if err := sick.Sick(); !fault.Is(err, schemas.CodeDestinationFull) || well.Sick() != nil {
			t.Errorf("sick: %v, well: %v", err, well.Sick())
		}
		st := sick.Status(schemas.WorkerQuestion{Batch: "b"})
		want := []schemas.BreakerStatus{
			{Of: schemas.BreakerArchive, State: schemas.BreakerClosed},
			{Of: "/full", State: schemas.BreakerOpen, Code: schemas.CodeDestinationFull, Reason: "no space left", Sick: true},
			{Of: "/there", State: schemas.BreakerClosed},
		}
		if diff := cmp.Diff(want, st.Breakers, cmpopts.IgnoreFields(schemas.BreakerStatus{}, "Since", "NextProbe")); diff != "" || len(st.InHand) != 0 {
			t.Errorf("%v in hand; %s", st.InHand, diff)
		}
		time.Sleep(5 * time.Minute)
		well.stop()
		if s.done("b") != 5000 || s.done("other") != 20_000 {
			t.Errorf("%d and %d done", s.done("b"), s.done("other"))
		}
		for id, r := range s.results {
			if r.Batch == "b" && r.Worker == "sick" && r.Index%5 >= 3 {
				t.Errorf("%s by %s", id, r.Worker)
			}
		}
		if tries, _ := d.count(); tries > 8 {
			t.Errorf("tried %d times in vain", tries)
		}
		d.set(false)
		time.Sleep(time.Minute)
		s.put(below("/full", "b2"), 100, 5)
		time.Sleep(time.Minute)
		if s.done("b2") != 100 || sick.Sick() != nil {
			t.Errorf("%d done when there was room again, %v", s.done("b2"), sick.Sick())
		}
		sick.stop()
		s.firstAttempts(t)
	})
}

// One that is the only worker does not take again and again what it gives back.
func TestLoneSickWorkerWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(below("/full", "b"), 1000, 5)
		d := &fullDisk{full: true}
		p := s.run(t, Config{GroupSize: 50, Prober: d}, d)
		time.Sleep(time.Second)
		asked, taken := s.asks("b"), s.taken("b")
		time.Sleep(10 * time.Minute)
		tries, probes := d.count()
		if probes < 40 || probes > 85 {
			t.Errorf("%d probes in ten minutes", probes)
		}
		if s.asks("b") != asked || s.taken("b") != taken || tries > 2 {
			t.Errorf("asked %d times, took %d items, tried %d times in vain", s.asks("b")-asked, s.taken("b")-taken, tries)
		}
		d.set(false)
		time.Sleep(time.Minute)
		p.stop()
		if s.done("b") != 1000 {
			t.Errorf("%d done", s.done("b"))
		}
		s.firstAttempts(t)
	})
}

// What is held for a destination that was away goes back when the worker turns out
// to be unable to write there.
func TestHeldItemsOfASickWorkerGoBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begin := time.Now()
		g := testGuard(t, Config{Prober: probes{destination: func(context.Context, string) error {
			if time.Since(begin) < 20*time.Second {
				return fault.New(schemas.CodeDestinationDown, "refused")
			}
			return fault.New(schemas.CodeDestinationReadOnly, "read-only")
		}}}, restoreTo(func(string) error { return fault.New(schemas.CodeDestinationDown, "refused") }))
		done, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: "/d"}, group(4))
		if err != nil || len(done) != 4 || len(codes(t, done)) != 4 || done[0].Code != schemas.CodeDestinationReadOnly {
			t.Errorf("%v, %v", done, err)
		}
		if d := time.Since(begin); d > 30*time.Second {
			t.Errorf("after %s", d)
		}
	})
}

// While a breaker is open its reason is the last probe's, and that it is trouble of
// another kind now is told as well.
func TestReasonsAreRenewed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const reasons = 4
		begin := time.Now()
		events := make(chan schemas.BreakerStatus, 10)
		g := testGuard(t, Config{
			Name: "w", Tell: func(e schemas.WorkerEvent) { events <- e.Breaker },
			Prober: probes{destination: func(context.Context, string) error {
				minute := int(time.Since(begin) / time.Minute)
				switch code := schemas.CodeDestinationDown; {
				case minute >= reasons:
					return nil
				case minute >= 2:
					code = schemas.CodeDestinationReadOnly
					fallthrough
				default:
					return fault.New(code, "reason %d", minute)
				}
			}},
		}, restoreTo(func(string) error { return fault.New(schemas.CodeDestinationDown, "reason 0") }))
		go func() { _, _ = g.restore(t.Context(), t.Context(), schemas.Settings{Root: "/d"}, group(4)) }()
		for i := range reasons {
			time.Sleep(59 * time.Second) // of the bubble's clock
			if st := g.status()[1]; st.Reason != fmt.Sprint("reason ", i) || st.Sick != (i >= 2) {
				t.Errorf("%+v, want reason %d", st, i)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		var got []string
		for len(events) > 0 {
			e := <-events
			got = append(got, fmt.Sprint(e.State, " ", e.Code))
		}
		if diff := cmp.Diff([]string{"open destination_down", "open destination_read_only", "closed "}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// Whoever is told of breakers may hang: that holds nobody up.
func TestTellingHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		over := make(chan struct{})
		told := 0
		away := newOutage(schemas.CodeDestinationDown, time.Minute)
		g := testGuard(t, Config{
			Tell:   func(schemas.WorkerEvent) { told++; <-over },
			Prober: probes{destination: func(context.Context, string) error { return away.err() }},
		}, restoreTo(func(string) error { return away.err() }))
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 2 * mostEvents {
			wg.Go(func() {
				if _, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: fmt.Sprint("/", i)}, group(1)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > time.Minute+2*openFor {
			t.Errorf("it took %s", took)
		}
		if told != 1 {
			t.Errorf("told %d times at once", told)
		}
		close(over)
		synctest.Wait()
		if told < mostEvents || told > mostEvents+1 {
			t.Errorf("told %d times", told)
		}
	})
}

// Watches that are lost are begun anew: what is not shown then is not worked on any
// more, and what is new is.
func TestLostWatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(schemas.Batch{ID: "gone"}, 10, 1)
		s.put(schemas.Batch{ID: "stays"}, 10, 1)
		p := s.run(t, Config{}, &slow{})
		time.Sleep(time.Second)
		s.change(func() {
			delete(s.batches, "gone")
			close(s.lost)
		})
		time.Sleep(30 * time.Second)
		s.change(func() { s.lost = make(chan struct{}) })
		for _, id := range []string{"gone", "stays", "new"} {
			s.put(schemas.Batch{ID: id}, 20, 1)
			if id == "gone" {
				s.change(func() { delete(s.batches, "gone") })
			}
		}
		time.Sleep(30 * time.Second)
		p.stop()
		if s.done("gone") != 10 || s.done("stays") != 20 || s.done("new") != 20 {
			t.Errorf("%d, %d and %d done", s.done("gone"), s.done("stays"), s.done("new"))
		}
	})
}

// Failed attempts are told together with results, before they are counted, and all
// that before requests are published again and messages leave the hand.
func TestOrderOfSettling(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(schemas.Batch{ID: "b"}, 10, 5)
		tries := map[int64]int{}
		p := s.run(t, Config{Retry: RetryPolicy{MaxAttempts: 3, Initial: time.Second, Jitter: func() float64 { return 1 }}},
			restoreEach(func(r schemas.Request) schemas.Code {
				tries[r.Index]++
				if r.Index == 2 && tries[2] == 1 || r.Index == 7 {
					return schemas.CodeArchiveBusy
				}
				return ""
			}))
		time.Sleep(500 * time.Millisecond)
		s.mu.Lock()
		if diff := cmp.Diff([]string{"publish", "count", "count", "requeue", "ack", "ack"}, s.steps[:6]); diff != "" {
			t.Error(diff)
		}
		s.mu.Unlock()
		time.Sleep(time.Minute)
		p.stop()
		failed := func(index int64, number int) schemas.Failure {
			return schemas.Failure{
				Batch: "b", Index: index, Tombstone: "t", Output: fmt.Sprint(index), Number: number,
				Attempt: schemas.Attempt{Worker: "w", Code: schemas.CodeArchiveBusy, Detail: "because"},
			}
		}
		want := []schemas.Failure{failed(2, 1), failed(7, 1), failed(7, 2)}
		if diff := cmp.Diff(want, s.failures, cmpopts.IgnoreFields(schemas.Failure{}, "At", "NextTry")); diff != "" {
			t.Error(diff)
		}
		for _, f := range s.failures {
			if wait := f.NextTry.Sub(f.At); wait != time.Second<<(f.Number-1) {
				t.Errorf("attempt %d of item %d: the next one after %s", f.Number, f.Index, wait)
			}
		}
		if s.done("b") != 10 || s.results["b:7"].Attempts != 3 || s.results["b:2"].Attempts != 2 {
			t.Errorf("results %+v", s.results)
		}
	})
}

// restoreEach is a restorer made of one function that gives each item its code.
type restoreEach func(schemas.Request) schemas.Code

func (f restoreEach) Restore(_ context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	done := restored(items)
	for i := range items {
		if code := f(items[i]); code != "" {
			done[i] = failure(items[i], fault.New(code, "because"))
		}
	}
	return done, nil
}

// Where there is no room for a request that is to be tried again, its message goes
// back as a whole, and nobody holds what others wait for.
func TestRetriesInAFullQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.full = true
		s.put(schemas.Batch{ID: "b"}, 20, 10)
		failed := false
		p := s.run(t, Config{}, restoreEach(func(r schemas.Request) schemas.Code {
			if r.Index == 4 && !failed {
				failed = true
				return schemas.CodeArchiveBusy
			}
			return ""
		}))
		time.Sleep(time.Minute)
		p.stop()
		if s.done("b") != 20 || s.results["b:4"].Attempts != 2 || slices.Contains(s.steps, "requeue") {
			t.Errorf("%d done, item 4 with %d attempts; %v", s.done("b"), s.results["b:4"].Attempts, s.steps)
		}
	})
}
