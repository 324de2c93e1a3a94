package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// restorerFunc is a restorer made of one function for each item.
type restorerFunc func(ctx context.Context, r schemas.Request) error

func (f restorerFunc) Restore(ctx context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	out := make([]schemas.Result, len(items))
	for i, r := range items {
		if err := f(ctx, r); err != nil {
			return nil, err
		}
		out[i] = schemas.Result{Request: r, Outcome: schemas.OutcomeRestored}
	}
	return out, nil
}

func group(n int64) []schemas.Request {
	out := make([]schemas.Request, n)
	for i := range out {
		out[i] = schemas.Request{Batch: "b", Index: int64(i)}
	}
	return out
}

// probes is a prober of functions; one that is nil finds all well.
type probes struct {
	archive     func(context.Context) error
	destination func(context.Context, string) error
}

func (p probes) Archive(ctx context.Context) error {
	if p.archive == nil {
		return nil
	}
	return p.archive(ctx)
}

func (p probes) Destination(ctx context.Context, root string) error {
	if p.destination == nil {
		return nil
	}
	return p.destination(ctx, root)
}

// guarded is a restorer behind a guard.
type guarded struct {
	*guard
	restorer Restorer
	slots    *slots
	share    *share
}

func testGuard(t *testing.T, cfg Config, r Restorer) guarded {
	t.Helper()
	cfg = cfg.withDefaults()
	s := newSlots(cfg.Groups, cfg.GroupSize)
	g := guarded{newGuard(cfg, zerolog.Nop()), r, s, s.join("")}
	g.start(cfg.Tell)
	t.Cleanup(g.close)
	return g
}

func (g guarded) restore(work, stop context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	h := &hand{work: work, stop: stop, slot: g.slots.acquire(stop, g.share, len(items))}
	if h.slot == nil {
		return nil, stop.Err()
	}
	defer h.slot.release()
	return g.guard.restore(h, g.restorer, s, items)
}

// states are the states of the breakers by what they stand before.
func (g guarded) states() map[string]schemas.BreakerState {
	all := map[string]schemas.BreakerState{}
	for _, b := range g.status() {
		all[b.Of] = b.State
	}
	return all
}

// codes are the codes of results, and it is an error that they are of other
// items.
func codes(t *testing.T, results []schemas.Result) map[int64]schemas.Code {
	t.Helper()
	out := map[int64]schemas.Code{}
	for i, r := range results {
		if r.Index != int64(i) {
			t.Errorf("result %d is of item %d", i, r.Index)
		}
		if r.Code != "" {
			out[r.Index] = r.Code
		}
	}
	return out
}

func TestGuardNarrowsDown(t *testing.T) {
	t.Parallel()
	g := testGuard(t, Config{}, restorerFunc(func(_ context.Context, r schemas.Request) error {
		switch r.Index {
		case 3:
			return fault.New(schemas.CodeArchiveCorrupt, "bad page")
		case 17:
			return errors.New("who knows")
		case 30:
			return fault.New(schemas.CodeItemTimeout, "too long")
		}
		return nil
	}))
	done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(50))
	if err != nil || len(done) != 50 {
		t.Fatalf("%d results, %v", len(done), err)
	}
	want := map[int64]schemas.Code{3: schemas.CodeArchiveCorrupt, 17: schemas.CodeInternal, 30: schemas.CodeItemTimeout}
	if diff := cmp.Diff(want, codes(t, done)); diff != "" {
		t.Error(diff)
	}
}

// Timeouts are waited for as often as it takes to find one item that causes them.
func TestGuardLosesPatience(t *testing.T) {
	t.Parallel()
	const n, limit = 512, 10 * time.Minute
	for _, c := range []struct {
		name     string
		hangs    func(index int64) bool
		timeouts int
		failed   func(index int64) bool
	}{
		{"all", func(int64) bool { return true }, 11, func(int64) bool { return true }},
		{"the first", func(i int64) bool { return i == 0 }, 10, func(i int64) bool { return i == 0 }},
		{"the last", func(i int64) bool { return i == n-1 }, 10, func(i int64) bool { return i == n-1 }},
		{"two", func(i int64) bool { return i == 100 || i == 300 }, 11, func(i int64) bool { return i == 100 || i >= 256 }},
	} {
		bubbled(t, c.name, func(t *testing.T) {
			start, timeouts := time.Now(), 0
			g := testGuard(t, Config{}, restorerFunc(func(ctx context.Context, r schemas.Request) error {
				if !c.hangs(r.Index) {
					return nil
				}
				timeouts++
				_ = lasts(ctx, limit)
				return fault.New(schemas.CodeItemTimeout, "given up")
			}))
			done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(n))
			if err != nil || len(done) != n {
				t.Fatalf("%d results, %v", len(done), err)
			}
			got := codes(t, done)
			for i := range int64(n) {
				if (got[i] == schemas.CodeItemTimeout) != c.failed(i) {
					t.Errorf("item %d: %q", i, got[i])
				}
			}
			if timeouts != c.timeouts || time.Since(start) != time.Duration(timeouts)*limit {
				t.Errorf("%d timeouts, want %d, in %s", timeouts, c.timeouts, time.Since(start))
			}
		})
	}
}

func TestGuardWithoutItems(t *testing.T) {
	t.Parallel()
	g := testGuard(t, Config{}, nil) // a call would panic
	if done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, nil); len(done) > 0 || err != nil {
		t.Errorf("got %v, %v", done, err)
	}
}

// short gives one result too few.
type short struct{ restorerFunc }

func (s short) Restore(ctx context.Context, set schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	done, err := s.restorerFunc.Restore(ctx, set, items)
	return done[1:], err
}

func TestGuardTakesNoShortAnswer(t *testing.T) {
	t.Parallel()
	g := testGuard(t, Config{}, short{func(context.Context, schemas.Request) error { return nil }})
	done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(2))
	if err != nil || len(done) != 2 || done[0].Code != schemas.CodeInternal {
		t.Errorf("got %v, %v", done, err)
	}
}

// outage is something that is away for a while.
type outage struct {
	code   schemas.Code
	until  time.Time
	probes atomic.Int64
	atOnce atomic.Int64
	most   atomic.Int64 // at once, while it was away
}

func newOutage(code schemas.Code, d time.Duration) *outage {
	return &outage{code: code, until: time.Now().Add(d)}
}

func (o *outage) err() error {
	if time.Now().Before(o.until) {
		return fault.New(o.code, "refused")
	}
	return nil
}

// probe takes a while.
func (o *outage) probe(ctx context.Context) error {
	o.probes.Add(1)
	if now := o.atOnce.Add(1); o.err() != nil {
		o.most.Store(max(o.most.Load(), now))
	}
	defer o.atOnce.Add(-1)
	_ = lasts(ctx, 100*time.Millisecond)
	return o.err()
}

func TestGuardHoldsWhileTheArchiveIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		away := newOutage(schemas.CodeArchiveDown, time.Minute)
		var tries atomic.Int64
		g := testGuard(t, Config{Prober: probes{archive: away.probe}}, restorerFunc(func(context.Context, schemas.Request) error {
			tries.Add(1)
			return away.err()
		}))
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(10))
				if err != nil || len(done) != 10 || len(codes(t, done)) != 0 {
					t.Errorf("got %v, %v", done, err)
				}
			})
		}
		wg.Wait()
		if late := time.Since(away.until); late > 2*openFor {
			t.Errorf("%s late", late)
		}
		if p := away.probes.Load(); p < 15 || p > 40 || tries.Load() > 30+30*10 {
			t.Errorf("%d probes, %d tries", p, tries.Load())
		}
		if away.most.Load() != 1 {
			t.Errorf("%d probes at a time", away.most.Load())
		}
	})
}

// A destination that is away is nobody else's: neither the archive's breaker opens
// nor those of others, and their groups have the room of those that are held.
func TestGuardHasABreakerForEachDestination(t *testing.T) {
	bubble(t, func(t *testing.T) {
		away := newOutage(schemas.CodeDestinationDown, time.Minute)
		r := restoreTo(func(root string) error {
			if root == "s3://away" {
				return away.err()
			}
			return nil
		})
		g := testGuard(t, Config{GroupSize: 10, Groups: 1, Prober: probes{destination: func(ctx context.Context, root string) error {
			if root != "s3://away" {
				t.Errorf("%s is probed", root)
			}
			return away.probe(ctx)
		}}}, r)
		var wg sync.WaitGroup
		wg.Go(func() {
			if done, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: "s3://away"}, group(10)); err != nil || len(codes(t, done)) != 0 {
				t.Errorf("got %v, %v", done, err)
			}
			if time.Now().Before(away.until) {
				t.Error("it was restored before its destination was there")
			}
		})
		synctest.Wait()
		for range 5 {
			if _, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: "/there"}, group(10)); err != nil || !time.Now().Before(away.until) {
				t.Errorf("%v at %s", err, time.Now())
			}
		}
		want := map[string]schemas.BreakerState{"archive": schemas.BreakerClosed, "s3://away": schemas.BreakerOpen, "/there": schemas.BreakerClosed}
		if diff := cmp.Diff(want, g.states()); diff != "" {
			t.Error(diff)
		}
		st := g.status()[2]
		if st.Code != schemas.CodeDestinationDown || st.Reason != "refused" || st.Sick || st.NextProbe.Before(time.Now()) {
			t.Errorf("status %+v", st)
		}
		wg.Wait()
	})
}

// restoreTo is a restorer made of one function for each root.
type restoreTo func(root string) error

func (f restoreTo) Restore(_ context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	if err := f(s.Root); err != nil {
		return nil, err
	}
	return restored(items), nil
}

// Items that fail leave the breakers closed, and so do those that are cut off.
func TestGuardBreaksOnlyForWhatIsAway(t *testing.T) {
	t.Parallel()
	for _, code := range []schemas.Code{
		schemas.CodeTombstoneNotFound, schemas.CodeArchiveBusy, schemas.CodeArchiveError, schemas.CodeArchiveCorrupt,
		schemas.CodeDestinationBusy, schemas.CodeDestinationDenied, schemas.CodeItemTimeout, schemas.CodeInternal,
	} {
		g := testGuard(t, Config{}, restorerFunc(func(context.Context, schemas.Request) error { return fault.New(code, "no") }))
		if done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(1)); err != nil || done[0].Code != code {
			t.Errorf("%s: %v, %v", code, done, err)
		}
		want := map[string]schemas.BreakerState{"archive": schemas.BreakerClosed, "": schemas.BreakerClosed}
		if diff := cmp.Diff(want, g.states()); diff != "" {
			t.Errorf("%s: %s", code, diff)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	g := testGuard(t, Config{}, restorerFunc(func(ctx context.Context, _ schemas.Request) error {
		cancel()
		<-ctx.Done()
		return fault.New(schemas.CodeArchiveDown, "%w", ctx.Err())
	}))
	if _, err := g.restore(ctx, t.Context(), schemas.Settings{}, group(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if s := g.states()["archive"]; s != schemas.BreakerClosed {
		t.Errorf("the breaker is %s", s)
	}
}

// A probe that refuses is an answer: what the items come to is for them to say.
func TestGuardTakesARefusalForAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first := true
		g := testGuard(t, Config{Prober: probes{destination: func(context.Context, string) error {
			return fault.New(schemas.CodeDestinationDenied, "forbidden")
		}}}, restorerFunc(func(context.Context, schemas.Request) error {
			if first {
				first = false
				return fault.New(schemas.CodeDestinationDown, "refused")
			}
			return fault.New(schemas.CodeDestinationDenied, "forbidden")
		}))
		done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(1))
		if err != nil || done[0].Code != schemas.CodeDestinationDenied {
			t.Errorf("got %v, %v", done, err)
		}
	})
}

// A probe that heeds its deadline, and one that hangs in spite of it: both say that
// nobody answers, and what hangs is not asked again meanwhile.
func TestGuardProbeHasADeadline(t *testing.T) {
	t.Parallel()
	for _, heeds := range []bool{true, false} {
		bubbled(t, fmt.Sprint("heeds it: ", heeds), func(t *testing.T) {
			const hangs = time.Minute
			back := time.Now().Add(hangs)
			var begun, atOnce atomic.Int64
			g := testGuard(t, Config{Prober: probes{archive: func(ctx context.Context) error {
				begun.Add(1)
				if n := atOnce.Add(1); n > 1 {
					t.Errorf("%d probes at a time", n)
				}
				defer atOnce.Add(-1)
				if !heeds {
					ctx = context.Background()
				}
				return lasts(ctx, time.Until(back))
			}}}, restorerFunc(func(context.Context, schemas.Request) error {
				if time.Now().Before(back) {
					return fault.New(schemas.CodeArchiveDown, "refused")
				}
				return nil
			}))
			if _, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(1)); err != nil {
				t.Error(err)
			}
			if late := time.Since(back); late < 0 || late > probeTimeout+2*openFor {
				t.Errorf("%s late", late)
			}
			if n := begun.Load(); heeds && n < 5 || !heeds && n > 2 {
				t.Errorf("%d probes", n)
			}
		})
	}
}

// bubbled is a subtest with a false clock.
func bubbled(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { bubble(t, test) })
}

// A worker that is told to stop does not wait for an archive that is away.
func TestGuardStopsWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		away := newOutage(schemas.CodeArchiveDown, 24*time.Hour)
		g := testGuard(t, Config{Prober: probes{archive: away.probe}}, restorerFunc(func(context.Context, schemas.Request) error { return away.err() }))
		stop, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := g.restore(t.Context(), stop, schemas.Settings{}, group(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v", err)
		}
	})
}

// However long a try lasts, it goes on as long as archive and destination answer.
func TestWatchdogLetsTheSlowGoOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		away := newOutage(schemas.CodeArchiveDown, 0)
		tries := 0
		g := testGuard(t, Config{Prober: probes{archive: away.probe}}, restorerFunc(func(ctx context.Context, _ schemas.Request) error {
			tries++
			return lasts(ctx, time.Hour)
		}))
		if done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(1)); err != nil || len(codes(t, done)) != 0 || tries != 1 {
			t.Errorf("%v, %v after %d tries", done, err, tries)
		}
		if n := away.probes.Load(); n < 200 || n > 240 {
			t.Errorf("%d probes in an hour", n)
		}
	})
}

// What hangs, and does not answer a probe either, is away: the try ends, its items
// are held, and nobody's attempt is spent.
func TestWatchdogEndsWhatHangs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, of      string
		heeds, silent bool
	}{
		{"archive", "archive", true, true},
		{"destination", "/d", true, true},
		{"archive that refuses probes", "archive", true, false},
		{"destination, and neither try nor probe can be ended", "/d", false, true},
	} {
		bubbled(t, c.name, func(t *testing.T) {
			back := time.Now().Add(10 * time.Minute)
			hang := func(ctx context.Context) error {
				if !c.heeds {
					ctx = context.Background()
				}
				return lasts(ctx, time.Until(back))
			}
			probe := func(ctx context.Context) error {
				if !c.silent && time.Now().Before(back) {
					return fault.New(schemas.CodeArchiveDown, "refused")
				}
				return hang(ctx)
			}
			p := probes{archive: probe}
			if c.of != "archive" {
				p = probes{destination: func(ctx context.Context, _ string) error { return probe(ctx) }}
			}
			var tries atomic.Int64
			g := testGuard(t, Config{Prober: p}, restorerFunc(func(ctx context.Context, _ schemas.Request) error {
				tries.Add(1)
				return hang(ctx)
			}))
			var wg sync.WaitGroup
			wg.Go(func() {
				done, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: "/d"}, group(1))
				if err != nil || len(done) != 1 || len(codes(t, done)) != 0 {
					t.Errorf("got %v, %v", done, err)
				}
			})
			within := probeTimeout
			if c.of != "archive" {
				within = besideTimeout
			}
			time.Sleep(watchAfter + within + patience + time.Second) // of the bubble's clock
			synctest.Wait()
			want := map[string]bool{"archive": c.of == "archive", "/d": c.of == "/d"}
			for of, state := range g.states() {
				if (state != schemas.BreakerClosed) != want[of] {
					t.Errorf("the breaker of %s is %s", of, state)
				}
			}
			wg.Wait()
			if late := time.Since(back); late < 0 || late > probeTimeout+2*openFor || tries.Load() != 2 {
				t.Errorf("%s late, after %d tries", late, tries.Load())
			}
		})
	}
}

// A disk that a try makes slow answers a probe late, which does not end the try.
func TestWatchdogWaitsForASlowDestination(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var tries atomic.Int64
		g := testGuard(t, Config{Prober: probes{destination: func(ctx context.Context, _ string) error {
			return lasts(ctx, 6*time.Second)
		}}}, restorerFunc(func(ctx context.Context, _ schemas.Request) error {
			tries.Add(1)
			return lasts(ctx, 40*time.Second)
		}))
		start := time.Now()
		done, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: "/d"}, group(1))
		if err != nil || len(codes(t, done)) != 0 || tries.Load() != 1 || time.Since(start) != 40*time.Second {
			t.Errorf("%v, %v after %d tries and %s", done, err, tries.Load(), time.Since(start))
		}
	})
}

// Who has more patience than the one whose probe he waits for asks again.
func TestProbesOfDifferentPatience(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := testGuard(t, Config{Prober: probes{destination: func(ctx context.Context, _ string) error {
			return lasts(ctx, 8*time.Second)
		}}}, nil)
		b := g.needs("/d")[1]
		var short, long error
		var wg sync.WaitGroup
		wg.Go(func() { short = g.ask(t.Context(), b, probeTimeout) })
		synctest.Wait()
		wg.Go(func() { long = g.ask(t.Context(), b, besideTimeout) })
		wg.Wait()
		if !fault.Is(short, schemas.CodeDestinationDown) || short.Error() != "/d: no answer to a probe within 5s" || long != nil {
			t.Errorf("got %v and %v", short, long)
		}
	})
}

// A try that ends while it is looked what it works with leaves nothing behind that
// would begin a probe after the guard's end.
func TestNothingIsProbedAfterTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for range 200 {
			var closed atomic.Bool
			g := testGuard(t, Config{Prober: probes{archive: func(context.Context) error {
				if closed.Load() {
					t.Error("probed after the end")
				}
				return nil
			}}}, restorerFunc(func(ctx context.Context, _ schemas.Request) error { return lasts(ctx, watchAfter) }))
			if _, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(1)); err != nil {
				t.Error(err)
			}
			g.close()
			closed.Store(true)
		}
	})
}

// What cannot be ended holds nobody up for ever who is told to stop.
func TestGuardLeavesBehindWhatDoesNotEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		done := make(chan struct{})
		g := testGuard(t, Config{}, restorerFunc(func(context.Context, schemas.Request) error { <-done; return nil }))
		defer close(done)
		work, abort := context.WithTimeout(t.Context(), time.Minute)
		defer abort()
		start := time.Now()
		if _, err := g.restore(work, t.Context(), schemas.Settings{}, group(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v", err)
		}
		if d := time.Since(start); d != time.Minute+patience {
			t.Errorf("after %s", d)
		}
	})
}

// After an outage few items are tried at first, and then more and more.
func TestSlowStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const size = 64
		away := newOutage(schemas.CodeArchiveDown, 10*time.Second)
		var mu sync.Mutex
		var atOnce []int
		now := 0
		r := restoreFunc(func(ctx context.Context, items []schemas.Request) {
			mu.Lock()
			now += len(items)
			atOnce = append(atOnce, now)
			mu.Unlock()
			_ = lasts(ctx, time.Second)
			mu.Lock()
			now -= len(items)
			mu.Unlock()
		})
		g := testGuard(t, Config{GroupSize: size, Groups: 4, Prober: probes{archive: away.probe}}, awayUntil{away, r})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 4 {
					if done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(size)); err != nil || len(done) != size {
						t.Errorf("%d results, %v", len(done), err)
					}
				}
			})
		}
		time.Sleep(10*time.Second + 2*openFor)
		synctest.Wait()
		if st := g.status()[0]; st.State != schemas.BreakerClosed || st.Most == 0 {
			t.Errorf("status %+v", st)
		}
		wg.Wait()
		if len(atOnce) < 4 || atOnce[0] > size/8 || slices.Max(atOnce[:2]) > 2*size/8 || slices.Max(atOnce) != 4*size {
			t.Errorf("items at once: %v", atOnce)
		}
		if st := g.status()[0]; st.Most != 0 {
			t.Errorf("in the end at most %d", st.Most)
		}
	})
}

// Tries that began before the outage and go on for hours keep nobody from being
// tried after it.
func TestOldTriesKeepNobodyOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		start := time.Now()
		failed := false
		r := restoreFunc(func(ctx context.Context, items []schemas.Request) {
			if len(items) == 100 {
				_ = lasts(ctx, 2*time.Hour)
			}
		})
		g := testGuard(t, Config{}, restoreOnce{&failed, r})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: "/long"}, group(100)); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second) // of the bubble's clock
		if _, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: "/other"}, group(50)); err != nil || !failed {
			t.Error(err)
		}
		if took := time.Since(start); took > 3*openFor {
			t.Errorf("after %s", took)
		}
		wg.Wait()
		if b := g.archive; b.trying != 0 || time.Since(start) != 2*time.Hour {
			t.Errorf("%d being tried after %s", b.trying, time.Since(start))
		}
	})
}

// restoreOnce is a restorer to which the archive is away once, for a small group.
type restoreOnce struct {
	failed *bool
	Restorer
}

func (r restoreOnce) Restore(ctx context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	if len(items) < 100 && !*r.failed {
		*r.failed = true
		return nil, fault.New(schemas.CodeArchiveDown, "refused")
	}
	return r.Restorer.Restore(ctx, s, items)
}

// awayUntil is a restorer in an outage.
type awayUntil struct {
	*outage
	Restorer
}

func (a awayUntil) Restore(ctx context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	if err := a.err(); err != nil {
		return nil, err
	}
	return a.Restorer.Restore(ctx, s, items)
}

// Workers that have waited for the same probe it at different times, and begin again
// one after the other.
func TestWorkersBeginAgainApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const workers = 40
		away := newOutage(schemas.CodeArchiveDown, time.Minute)
		probed, begun := make([]time.Time, workers), make([]time.Duration, workers)
		var next []time.Duration
		var wg sync.WaitGroup
		for i := range workers {
			g := testGuard(t, Config{Prober: probes{archive: func(context.Context) error {
				probed[i] = time.Now()
				return away.err()
			}}}, restorerFunc(func(context.Context, schemas.Request) error {
				begun[i] = time.Since(probed[i])
				return away.err()
			}))
			wg.Go(func() { _, _ = g.restore(t.Context(), t.Context(), schemas.Settings{}, group(1)) })
			synctest.Wait()
			next = append(next, time.Until(g.status()[0].NextProbe))
		}
		wg.Wait()
		for _, times := range [][]time.Duration{next, begun} {
			slices.Sort(times)
			if spread := times[workers*3/4] - times[workers/4]; spread < openFor/8 {
				t.Errorf("all at once: %s", times)
			}
		}
		if next[0] < openFor/2 || next[workers-1] > 2*openFor || begun[workers-1] > openFor/2 {
			t.Errorf("they probe after %s, and begin after %s", next, begun)
		}
	})
}

// Of destinations of which nothing is known no breaker is kept for ever.
func TestGuardForgetsDestinations(t *testing.T) { bubble(t, testGuardForgetsDestinations) }

func testGuardForgetsDestinations(t *testing.T) {
	g := testGuard(t, Config{Prober: probes{destination: func(context.Context, string) error { return fault.New(schemas.CodeDestinationDown, "refused") }}},
		restoreTo(func(root string) error {
			if root == "/away" {
				return fault.New(schemas.CodeDestinationDown, "refused")
			}
			return nil
		}))
	stop, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = g.restore(t.Context(), stop, schemas.Settings{Root: "/away"}, group(1)) })
	synctest.Wait()
	for i := range 10 * manyBreakers {
		if _, err := g.restore(t.Context(), t.Context(), schemas.Settings{Root: fmt.Sprint("/", i)}, group(1)); err != nil {
			t.Error(err)
		}
	}
	if n := len(g.states()); n > manyBreakers+2 {
		t.Errorf("%d breakers", n)
	}
	if g.states()["/away"] == "" {
		t.Error("one that is open was forgotten")
	}
	cancel()
	wg.Wait()
}
