package worker

import (
	"context"
	"errors"
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

// guarded is a restorer behind a guard.
type guarded struct {
	*guard
	restorer Restorer
}

func testGuard(r Restorer, ping func(context.Context) error) guarded {
	return guarded{newGuard(Config{Ping: ping}.withDefaults(), zerolog.Nop()), r}
}

func (g guarded) restore(ctx, stop context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	return g.guard.restore(ctx, stop, g.restorer, s, items)
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
	g := testGuard(restorerFunc(func(_ context.Context, r schemas.Request) error {
		switch r.Index {
		case 3:
			return fault.New(schemas.CodeArchiveCorrupt, "bad page")
		case 17:
			return errors.New("who knows")
		}
		return nil
	}), nil)
	done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(50))
	if err != nil || len(done) != 50 {
		t.Fatalf("%d results, %v", len(done), err)
	}
	want := map[int64]schemas.Code{3: schemas.CodeArchiveCorrupt, 17: schemas.CodeInternal}
	if diff := cmp.Diff(want, codes(t, done)); diff != "" {
		t.Error(diff)
	}
}

func TestGuardWithoutItems(t *testing.T) {
	t.Parallel()
	g := testGuard(nil, nil) // a call would panic
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
	g := testGuard(short{func(context.Context, schemas.Request) error { return nil }}, nil)
	done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(2))
	if err != nil || len(done) != 2 || done[0].Code != schemas.CodeInternal {
		t.Errorf("got %v, %v", done, err)
	}
}

func TestGuardHoldsWhileTheArchiveIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(time.Minute)
		var tries, pings, atOnce, most atomic.Int64
		away := func() error {
			if time.Now().Before(back) {
				return fault.New(schemas.CodeArchiveDown, "refused")
			}
			return nil
		}
		g := testGuard(restorerFunc(func(context.Context, schemas.Request) error { tries.Add(1); return away() }),
			func(context.Context) error {
				pings.Add(1)
				if now := atOnce.Add(1); away() != nil {
					most.Store(max(most.Load(), now))
				}
				defer atOnce.Add(-1)
				time.Sleep(100 * time.Millisecond) // of the bubble's clock
				return away()
			})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(10))
				if err != nil || len(done) != 10 || len(codes(t, done)) != 0 {
					t.Errorf("got %v, %v", done, err)
				}
			})
		}
		wg.Wait()
		if late := time.Since(back); late > 5*time.Second {
			t.Errorf("%s late", late)
		}
		if pings.Load() > 40 || tries.Load() > 3+30 {
			t.Errorf("%d pings, %d tries", pings.Load(), tries.Load())
		}
		if most.Load() != 1 {
			t.Errorf("%d probes at a time", most.Load())
		}
	})
}

func TestGuardProbeHasADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := true
		g := testGuard(restorerFunc(func(context.Context, schemas.Request) error {
			if away {
				return fault.New(schemas.CodeArchiveDown, "refused")
			}
			return nil
		}), func(ctx context.Context) error {
			if away {
				<-ctx.Done()
				away = false
				return ctx.Err()
			}
			return nil
		})
		start := time.Now()
		if _, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(1)); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 3*(probeTimeout+openFor) {
			t.Errorf("took %s", d)
		}
	})
}

// A worker that is told to stop does not wait for an archive that is away.
func TestGuardStopsWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := fault.New(schemas.CodeArchiveDown, "refused")
		g := testGuard(restorerFunc(func(context.Context, schemas.Request) error { return down }),
			func(context.Context) error { return down })
		stop, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := g.restore(t.Context(), stop, schemas.Settings{}, group(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v", err)
		}
	})
}

// One item that hangs ends as a failed attempt; its neighbours are restored.
func TestGuardHungItem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGuard(restorerFunc(func(ctx context.Context, r schemas.Request) error {
			if r.Index == 5 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}), nil)
		start := time.Now()
		done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(8))
		if err != nil || len(done) != 8 {
			t.Fatalf("got %v, %v", done, err)
		}
		if diff := cmp.Diff(map[int64]schemas.Code{5: schemas.CodeArchiveError}, codes(t, done)); diff != "" {
			t.Error(diff)
		}
		if schemas.CodeArchiveError.Class() != schemas.ClassTransient {
			t.Error("a hung item is not tried again")
		}
		if d := time.Since(start); d > 4*g.timeout {
			t.Errorf("took %s", d)
		}
	})
}

// An archive that hangs altogether is away: nobody's attempt is spent.
func TestGuardHungArchive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(time.Hour)
		hang := func(ctx context.Context) error {
			if time.Now().Before(back) {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		g := testGuard(restorerFunc(func(ctx context.Context, _ schemas.Request) error { return hang(ctx) }), hang)
		done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(8))
		if err != nil || len(codes(t, done)) != 0 || len(done) != 8 {
			t.Errorf("got %v, %v", done, err)
		}
		if late := time.Since(back); late > 2*g.timeout {
			t.Errorf("%s late", late)
		}
	})
}
