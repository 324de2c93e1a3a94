package worker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// What fails items with errors that may pass is asked whether it works at all: only
// where it does are the items to blame.
func TestGuardHoldsWhileEverythingFails(t *testing.T) {
	for _, tt := range []struct {
		failed, down schemas.Code
		prober       func(*outage) probes
	}{
		{schemas.CodeArchiveError, schemas.CodeArchiveDown, func(o *outage) probes { return probes{archive: o.probe} }},
		{schemas.CodeDestinationBusy, schemas.CodeDestinationDown, func(o *outage) probes {
			return probes{destination: func(ctx context.Context, _ string) error { return o.probe(ctx) }}
		}},
		{schemas.CodeItemTimeout, schemas.CodeArchiveDown, func(o *outage) probes { return probes{archive: o.probe} }},
		{schemas.CodeItemTimeout, schemas.CodeDestinationDown, func(o *outage) probes {
			return probes{destination: func(ctx context.Context, _ string) error { return o.probe(ctx) }}
		}},
	} {
		bubbled(t, fmt.Sprintf("%s, %s", tt.failed, tt.down), func(t *testing.T) {
			away := newOutage(tt.down, time.Minute)
			g := testGuard(t, Config{Prober: tt.prober(away)}, restoreEach(func(r schemas.Request) schemas.Code {
				if r.Index == 3 || away.err() != nil && r.Index%2 == 0 {
					return tt.failed
				}
				return ""
			}))
			done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(10))
			if got := codes(t, done); err != nil || len(done) != 10 || len(got) != 1 || got[3] != tt.failed {
				t.Errorf("got %v, %v", got, err)
			}
			if time.Now().Before(away.until) || time.Since(away.until) > 3*openFor {
				t.Errorf("done %s after the end", time.Since(away.until))
			}
		})
	}
}

// A group that takes too long as a whole, because nobody answers, costs no attempt, and
// is not halved either.
func TestGuardHoldsWhatTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		away := newOutage(schemas.CodeArchiveDown, time.Minute)
		tries := 0
		g := testGuard(t, Config{Prober: probes{archive: away.probe}}, restorerFunc(func(ctx context.Context, r schemas.Request) error {
			if r.Index == 0 {
				tries++
			}
			if away.err() == nil {
				return nil
			}
			_ = lasts(ctx, 3*time.Second)
			return fault.New(schemas.CodeItemTimeout, "given up")
		}))
		done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(8))
		if got := codes(t, done); err != nil || len(done) != 8 || len(got) != 0 || tries != 2 {
			t.Errorf("%d tries: got %v, %v", tries, got, err)
		}
	})
}

// hanging times out with whatever it is given, and keeps which items that were.
type hanging struct{ tried map[int64]bool }

func (h hanging) Restore(ctx context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	for _, r := range items {
		h.tried[r.Index] = true
	}
	_ = lasts(ctx, 3*time.Second)
	return nil, fault.New(schemas.CodeItemTimeout, "given up")
}

// While work begins slowly, no item fails with the timeout of others before it was tried.
func TestGuardFailsOnlyWhatWasTried(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hanging{map[int64]bool{}}
		g := testGuard(t, Config{}, h)
		g.archive.most = 8
		done, err := g.restore(t.Context(), t.Context(), schemas.Settings{}, group(64))
		if err != nil || len(done) != 64 {
			t.Fatalf("%d results, %v", len(done), err)
		}
		if len(h.tried) != 64 {
			t.Errorf("%d items were tried", len(h.tried))
		}
	})
}

// A destination that answers more slowly than a first probe waits is found to be there.
func TestASlowDestinationComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		failed := false
		g := testGuard(t, Config{Prober: probes{destination: func(ctx context.Context, _ string) error { return lasts(ctx, 6*time.Second) }}},
			restorerFunc(func(context.Context, schemas.Request) error {
				if !failed {
					failed = true
					return fault.New(schemas.CodeDestinationDown, "refused")
				}
				return nil
			}))
		soon, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := g.restore(t.Context(), soon, schemas.Settings{}, group(1)); err != nil {
			t.Error(err)
		}
	})
}
