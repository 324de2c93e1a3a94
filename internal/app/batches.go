package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/control"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// Batches answers questions about batches.
type Batches interface {
	// Batch gives one batch by its id, the beginning of one, or "latest".
	Batch(ctx context.Context, ref string) (schemas.BatchReport, error)
	// Events gives what has happened to a batch.
	Events(ctx context.Context, ref string) (schemas.BatchEvents, error)
	// Batches lists batches, newest first, at most limit, all when it is 0.
	Batches(ctx context.Context, limit int) ([]schemas.Summary, error)
	// Results gives results of a batch in the order of their indexes.
	Results(ctx context.Context, id string, f schemas.ResultFilter) iter.Seq2[schemas.Result, error]
	Close() error
}

// OpenBatches opens what answers questions: the ledger where it is at hand, else
// the control API of the fleet that is configured. Where no batch was ever
// restored the error is fs.ErrNotExist.
func OpenBatches(ctx context.Context, cfg *Config, log zerolog.Logger) (Batches, error) {
	if cfg.Exhume.LedgerURL != "" || !remote(cfg) {
		l, err := OpenLedgerReader(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return localBatches{l}, nil
	}
	p := newProcess(cfg, log)
	if err := p.join(ctx, "cli"); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return remoteBatches{p, p.broker.API()}, nil
}

// LedgerURL is where the configured ledger is: a PostgreSQL URL or a file's name.
func LedgerURL(cfg *Config) string {
	if cfg.Exhume.LedgerURL != "" {
		return cfg.Exhume.LedgerURL
	}
	return ledgerPath(cfg)
}

// OpenLedgerReader opens the configured ledger for questions. Where no batch
// was ever restored the error is fs.ErrNotExist.
func OpenLedgerReader(ctx context.Context, cfg *Config) (*ledger.Reader, error) {
	r, err := ledger.OpenReader(ctx, LedgerURL(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noLedger(cfg)
	}
	return r, err
}

func noLedger(cfg *Config) error {
	return fmt.Errorf("no batch was restored from here yet: there is no ledger in %s (see --state-dir, or --nats for that of a fleet): %w", cfg.Exhume.StateDir, fs.ErrNotExist)
}

// localBatches asks the ledger, as the control API does.
type localBatches struct{ *ledger.Reader }

func (l localBatches) Batch(ctx context.Context, ref string) (schemas.BatchReport, error) {
	return control.NewAnswers(records(l), nil, nil).Get(ctx, ref)
}

// remoteBatches asks the control API.
type remoteBatches struct {
	p   *process
	api *broker.API
}

func (r remoteBatches) Batch(ctx context.Context, ref string) (schemas.BatchReport, error) {
	return r.api.Get(ctx, ref)
}

func (r remoteBatches) Batches(ctx context.Context, limit int) ([]schemas.Summary, error) {
	return r.api.List(ctx, limit)
}

func (l localBatches) Results(ctx context.Context, id string, f schemas.ResultFilter) iter.Seq2[schemas.Result, error] {
	return l.Reader.Results(ctx, id, ledger.Filter{ResultFilter: f})
}

func (r remoteBatches) Results(ctx context.Context, id string, f schemas.ResultFilter) iter.Seq2[schemas.Result, error] {
	return func(yield func(schemas.Result, error) bool) {
		q := schemas.ResultsQuery{Batch: id, ResultFilter: f}
		for {
			page, err := r.api.Results(ctx, q)
			if err != nil {
				yield(schemas.Result{}, err)
				return
			}
			for _, result := range page.Results {
				if !yield(result, nil) {
					return
				}
			}
			if q.From = page.Next; q.From == 0 {
				return
			}
		}
	}
}

func (r remoteBatches) Close() error { return r.p.close() }

// Batches lists batches as the control API does.
func (l localBatches) Batches(ctx context.Context, limit int) ([]schemas.Summary, error) {
	all, err := control.NewAnswers(records(l), nil, nil).List(ctx, schemas.BatchList{Limit: limit})
	return all.Batches, err
}

// Events gives what has happened to a batch.
func (l localBatches) Events(ctx context.Context, ref string) (schemas.BatchEvents, error) {
	return control.NewAnswers(records(l), nil, nil).Events(ctx, ref)
}

// Events gives what has happened to a batch.
func (r remoteBatches) Events(ctx context.Context, ref string) (schemas.BatchEvents, error) {
	return r.api.Events(ctx, ref)
}
