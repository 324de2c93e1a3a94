package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/schemas"
)

// worker connects and answers as the worker of that name.
func worker(t testing.TB, url, name string, items int64) (stop func()) {
	t.Helper()
	stop, err := connect(t, Options{URL: url}).AnswerStatus(func(q schemas.WorkerQuestion) schemas.WorkerStatus {
		s := schemas.WorkerStatus{Worker: name, Items: items}
		if q.Batch != "" {
			for i := range items {
				s.InHand = append(s.InHand, schemas.InHand{Batch: q.Batch, First: i, Last: i, Attempt: 1})
			}
		}
		return s
	})
	must(t, err)
	return stop
}

// patience is longer than any test asks workers for.
const patience = 30 * time.Second

func TestWorkers(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{})
	start := time.Now()
	if got, err := b.Workers(t.Context(), schemas.WorkerQuestion{}, patience); len(got) > 0 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if d := time.Since(start); d > patience/4 {
		t.Errorf("it took %s to see that there are no workers", d)
	}

	var stops []func()
	var want []schemas.WorkerStatus
	for i := range int64(8) {
		name := fmt.Sprint("w", (i*5)%8)
		stops = append(stops, worker(t, "nats://"+b.Address(), name, 0))
		want = append(want, schemas.WorkerStatus{Worker: fmt.Sprint("w", i)})
	}
	// One hangs, and one is of another version.
	_, err := b.nc.Subscribe(schemas.SubjectWorkerStatus, func(*nats.Msg) {})
	must(t, err)
	_, err = b.nc.Subscribe(schemas.SubjectWorkerStatus, func(m *nats.Msg) { must(t, m.Respond([]byte("nonsense"))) })
	must(t, err)
	start = time.Now()
	const wait = 12 * time.Second
	got, err := b.Workers(t.Context(), schemas.WorkerQuestion{}, wait)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if d := time.Since(start); d < wait/4 || d > wait*3/4 {
		t.Errorf("it took %s", d)
	}
	for _, stop := range stops {
		stop()
	}
	if got, err = b.Workers(t.Context(), schemas.WorkerQuestion{}, 10*time.Millisecond); len(got) > 0 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestWorkersTellOfOneBatch(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{})
	worker(t, "nats://"+b.Address(), "w", 2)
	for batch, want := range map[string][]schemas.InHand{
		"": nil, "b": {{Batch: "b", First: 0, Last: 0, Attempt: 1}, {Batch: "b", First: 1, Last: 1, Attempt: 1}},
	} {
		got, err := b.Workers(t.Context(), schemas.WorkerQuestion{Batch: batch}, time.Second)
		must(t, err)
		if diff := cmp.Diff([]schemas.WorkerStatus{{Worker: "w", Items: 2, InHand: want}}, got); diff != "" {
			t.Error(diff)
		}
	}
	msg, err := b.nc.Request(schemas.SubjectWorkerStatus, []byte("nonsense"), 10*time.Millisecond)
	if err == nil {
		t.Errorf("nonsense was answered: %s", msg.Data)
	}
}

// What a worker has in hand is cut where the server would not take it.
func TestWorkerWithVeryMuchInHand(t *testing.T) {
	t.Parallel()
	s := startServer(t, "max_payload: 64KB")
	b := connect(t, Options{URL: s.url()})
	worker(t, s.url(), "w", 10_000)
	got, err := b.Workers(t.Context(), schemas.WorkerQuestion{Batch: "b"}, 4*time.Second)
	must(t, err)
	if len(got) != 1 || got[0].Items != 10_000 || len(got[0].InHand) < 100 {
		t.Errorf("got %d answers", len(got))
	}
}
