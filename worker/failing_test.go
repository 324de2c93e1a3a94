package worker

import (
	"context"
	"testing"
	"time"

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
	} {
		bubbled(t, string(tt.failed), func(t *testing.T) {
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
