package console

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers until the test ends, and gives the address.
func serve(t *testing.T, m *Metrics, checks ...Check) string {
	t.Helper()
	s, err := Listen("127.0.0.1:0", m, checks)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Address()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHealth(t *testing.T) {
	var away error
	at := serve(t, NewMetrics(),
		Check{"archive", func(context.Context) error { return away }},
		Check{"broker", func(context.Context) error { return nil }})
	for _, c := range []struct {
		path   string
		away   error
		status int
		want   string
	}{
		{"/livez", nil, 200, `"ok"`},
		{"/readyz", nil, 200, `"ok"`},
		{"/readyz", errors.New("refused"), 503, `{"status":"not ready","checks":{"archive":"refused"}}`},
		{"/livez", errors.New("refused"), 200, `"ok"`},
		{"/other", nil, 404, ""},
	} {
		away = c.away
		if status, body := get(t, at+c.path); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s", c.path, status, body)
		}
	}
}

// A check that never answers keeps nobody from hearing of the others.
func TestHealthIsToldInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		w := httptest.NewRecorder()
		ready(t.Context(), w, []Check{
			{"archive", func(context.Context) error { <-end; return nil }},
			{"broker", func(context.Context) error { return errors.New("refused") }},
			{"ledger", func(context.Context) error { return nil }},
		})
		if got := w.Body.String(); w.Code != 503 || !strings.Contains(got, `{"archive":"no answer within 5s","broker":"refused"}`) {
			t.Errorf("%d %s", w.Code, got)
		}
		close(end)
	})
}

func TestMetrics(t *testing.T) {
	m := NewMetrics()
	at := serve(t, m)
	m.InHand(5)
	m.InHand(-2)
	m.Settled([]schemas.Result{
		{Outcome: schemas.OutcomeRestored, Size: 10, Durations: schemas.Durations{Write: 30}},
		{Outcome: schemas.OutcomeFailed, Size: 7, Code: schemas.CodeTooLarge},
	}, time.Second)
	m.Synced(time.Second)
	m.Retried(schemas.CodeArchiveBusy)
	for _, b := range []schemas.BreakerStatus{
		{Of: "archive", State: schemas.BreakerHalfOpen}, {Of: "/full", State: schemas.BreakerOpen, Sick: true}, {Of: "s3://away", State: schemas.BreakerHalfOpen},
		{Of: "/was-full", State: schemas.BreakerOpen, Sick: true}, {Of: "/was-full", State: schemas.BreakerClosed}, {Of: "/well", State: schemas.BreakerClosed},
	} {
		m.Breaker(b)
	}
	m.Recorded([]schemas.Result{{Outcome: schemas.OutcomeRestored}}, time.Second)
	m.Ended(schemas.StatePartial)
	m.Gauge("exhume_test", "A test.", func() float64 { return 42 })
	_, body := get(t, at+"/metrics")
	for _, want := range []string{
		`exhume_worker_items_in_hand 3`,
		`exhume_worker_results_total{code="",outcome="restored"} 1`,
		`exhume_worker_results_total{code="too_large",outcome="failed"} 1`,
		`exhume_worker_restored_bytes_total 10`,
		`exhume_worker_failed_attempts_total{code="archive_busy"} 1`,
		`exhume_worker_stage_seconds_bucket{stage="write",le="0.05"} 2`,
		`exhume_worker_stage_seconds_bucket{stage="write",le="0.025"} 1`,
		`exhume_group_seconds_count{stage="sync"} 1`,
		`exhume_group_seconds_count{stage="settle"} 1`,
		`exhume_group_seconds_sum{stage="record"} 1`,
		`exhume_worker_breaker_state{of="archive",state="half-open"} 1`,
		`exhume_worker_breaker_state{of="archive",state="open"} 0`,
		`exhume_worker_breaker_state{of="destination",state="open"} 1`,
		`exhume_worker_breaker_state{of="destination",state="closed"} 0`,
		`exhume_worker_sick 1`,
		`exhume_collector_recorded_total{code="",outcome="restored"} 1`,
		`exhume_collector_batches_ended_total{state="partial"} 1`,
		`exhume_test 42`,
		`go_goroutines`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestListenSaysWhatToDo(t *testing.T) {
	s, err := Listen("127.0.0.1:0", NewMetrics(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close() //nolint:errcheck // never served
	if _, err := Listen(s.Address(), NewMetrics(), nil); err == nil || !strings.Contains(err.Error(), "--http-listen") {
		t.Errorf("got error %v", err)
	}
}
