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
