// Package app puts exhume together: configuration, and the roles opened and run,
// together in one process or apart. It is the only place where the packages below
// meet.
package app

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// Packages of one floor do not know each other; here is where their types meet.

// workerQueue is the broker as a worker sees it.
type workerQueue struct{ *broker.Broker }

func (q workerQueue) Requests(ctx context.Context, batch string, n int, wait time.Duration) ([]worker.Message, error) {
	got, err := q.Broker.Requests(ctx, batch, n, wait)
	msgs := make([]worker.Message, len(got))
	for i, d := range got {
		msgs[i] = d
	}
	return msgs, err
}

// prober looks for a worker whether archive and destinations are there.
type prober struct {
	*source
	*targets
}

func (p prober) Archive(ctx context.Context) error { return p.Ping(ctx) }

func (p prober) Destination(ctx context.Context, root string) error { return p.probe(ctx, root) }

// collectorQueue is the broker as a collector sees it.
type collectorQueue struct{ *broker.Broker }

func (q collectorQueue) Results(ctx context.Context, n int, wait time.Duration) ([]collector.Message, error) {
	got, err := q.Broker.Results(ctx, n, wait)
	msgs := make([]collector.Message, len(got))
	for i, d := range got {
		msgs[i] = d
	}
	return msgs, err
}

// bookLedger is the ledger as a collector's book sees it.
type bookLedger struct {
	*ledger.Ledger
	log zerolog.Logger
}

func (l bookLedger) Record(
	ctx context.Context, results []schemas.Result, failures []schemas.Failure, note collector.NoteFresh,
) ([]schemas.Summary, error) {
	rec, err := l.Ledger.Record(ctx, results, failures, note)
	if n := len(rec.Strays); n > 0 {
		l.log.Error().Int("results", n).Str("first", rec.Strays[0].ID()).Msg("results of no known item; dropped")
	}
	if n := len(rec.StrayFailures); n > 0 {
		f := rec.StrayFailures[0]
		l.log.Error().Int("attempts", n).Str("batch", f.Batch).Int64("index", f.Index).Msg("failed attempts at no known item; dropped")
	}
	return rec.Batches, err
}

// noteRestorations writes restorations to the archive.
func noteRestorations(w *archive.Writer) collector.Archive {
	return func(ctx context.Context, events []collector.Event) error {
		out := make([]archive.RestoreEvent, len(events))
		for i, e := range events {
			out[i] = archive.RestoreEvent{
				ID: e.ID, Item: e.Item, Actor: e.Actor, At: e.At,
				Context: fmt.Sprintf(`{"batch":%q,"index":%d,"tool":"exhume"}`, e.Batch, e.Index),
			}
		}
		return w.Restored(ctx, out)
	}
}
