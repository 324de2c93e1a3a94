package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// What keeps a worker from its work is told, whatever it is.
func TestBreakersAreTold(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	closed := schemas.BreakerStatus{Of: schemas.BreakerArchive, State: schemas.BreakerClosed, Since: at}
	w := schemas.Whereabouts{Batch: "b", State: schemas.StateRunning, Total: 10, Open: 5}
	for _, c := range []struct {
		name    string
		breaker schemas.BreakerStatus
		why     string
		brief   string
	}{
		{
			"open", schemas.BreakerStatus{Of: schemas.BreakerArchive, State: schemas.BreakerOpen, Since: at, Reason: "refused", NextProbe: at.Add(time.Second)},
			"Worker w waits for the archive: its breaker is open since 2026-11-23T10:00:00Z, next probe at 2026-11-23T10:00:01Z: refused.", "archive open",
		},
		{
			"probed", schemas.BreakerStatus{Of: "s3://b/p", State: schemas.BreakerHalfOpen, Since: at, Reason: "refused"},
			"Worker w waits for s3://b/p: its breaker is half-open since 2026-11-23T10:00:00Z: refused.", "s3://b/p half-open",
		},
		{
			"sick", schemas.BreakerStatus{Of: "/srv", State: schemas.BreakerOpen, Since: at, Reason: "no space left", Sick: true, NextProbe: at.Add(10 * time.Second)},
			"Worker w has stepped aside: it cannot write to /srv since 2026-11-23T10:00:00Z, next probe at 2026-11-23T10:00:10Z: no space left.", "/srv sick",
		},
		{
			"slow start", schemas.BreakerStatus{Of: "/srv", State: schemas.BreakerClosed, Since: at, Most: 64},
			"Worker w begins again slowly with /srv, with 64 items at a time.", "/srv at most 64",
		},
	} {
		w.Workers = []schemas.WorkerStatus{{Worker: "w", Breakers: []schemas.BreakerStatus{closed, c.breaker}}}
		if lines := strings.Join(whyLines(w, false, at), "\n"); !strings.Contains(lines, c.why) {
			t.Errorf("%s: %s", c.name, lines)
		}
		if diff := cmp.Diff(c.brief, breakersText(w.Workers[0].Breakers)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if text := waitText(w.Workers); !strings.Contains(text, "1 of them held up: "+c.brief) {
			t.Errorf("%s: %s", c.name, text)
		}
	}
	if got := breakersText([]schemas.BreakerStatus{closed}); got != "closed" {
		t.Errorf("got %q", got)
	}
	if got := waitText([]schemas.WorkerStatus{{Breakers: []schemas.BreakerStatus{closed}}}); got != "" {
		t.Errorf("got %q", got)
	}
}
