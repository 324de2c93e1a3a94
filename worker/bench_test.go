package worker_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// untouched says that it restored what it was given.
type untouched struct{}

func (untouched) Restore(_ context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	out := make([]schemas.Result, len(items))
	for i := range items {
		out[i] = schemas.Result{Request: items[i], Outcome: schemas.OutcomeRestored}
	}
	return out, nil
}

// drained counts the results that are stored, and says when they are all there.
type drained struct {
	queue
	left chan int
}

func (d drained) PublishResults(ctx context.Context, g schemas.ResultGroup) error {
	err := d.queue.PublishResults(ctx, g)
	if err == nil {
		d.left <- len(g.Results)
	}
	return err
}

// BenchmarkWork has a worker take, settle and acknowledge requests that cost
// nothing to restore.
func BenchmarkWork(b *testing.B) {
	const n = 50_000
	br, err := broker.Embed(b.TempDir())
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	must(err)
	defer br.Close() //nolint:errcheck // nothing is to be kept
	must(br.Setup(b.Context()))
	round := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		round++
		id := fmt.Sprint("b", round)
		must(br.Activate(b.Context(), schemas.Batch{ID: id, State: schemas.StateOpen}))
		for first := int64(0); first < n; first += 1000 {
			var rs []schemas.Request
			for i := range int64(1000) {
				rs = append(rs, schemas.Request{Batch: id, Index: first + i, Tombstone: fmt.Sprintf("00000000-0000-4000-8000-%012d", first+i), Output: fmt.Sprint("dir/o", first+i), Actor: "bench"})
			}
			must(br.Publish(b.Context(), rs, 64))
		}
		q := drained{queue{br}, make(chan int, n)}
		w, err := worker.New(worker.Config{Name: "w"}, q, br, untouched{}, zerolog.Nop())
		must(err)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		b.StartTimer()
		go func() { done <- w.Run(ctx) }()
		for got := 0; got < n; {
			got += <-q.left
		}
		b.StopTimer()
		cancel()
		must(<-done)
		must(br.Retire(b.Context(), id))
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(round)/b.Elapsed().Seconds(), "items/s")
}
