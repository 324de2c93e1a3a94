package app

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/control"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// recording is the collector's role, opened: it records results, steers batches
// and cancels what is to be cancelled.
type recording struct {
	ledger    *ledger.Ledger
	collector *collector.Collector
	control   *control.Control
	answers   *control.Answers
	canceller *worker.Worker
	// trim makes room at the broker.
	trim    func(ctx context.Context) error
	reports *reports // nil when none are wanted
	hook    *hook    // nil when nobody is told
}

// openRecording opens the collector's role on a ledger that is open, which it
// closes in the end. It takes notes of restorations, unless notes is nil.
func (p *process) openRecording(ctx context.Context, l *ledger.Ledger, notes collector.Archive, acceptEvidence bool) (*recording, error) {
	r := &recording{ledger: l, trim: func(ctx context.Context) error { return trim(ctx, p.broker, p.log) }}
	p.others = append(p.others, r.closeLedger)
	lines, err := evidence.Open(p.cfg.Exhume.EvidenceDir)
	if err != nil {
		return nil, err
	}
	p.others = append(p.others, lines.Close)
	opts := evidenceOptions(p.cfg)
	opts.AcceptEvidence = acceptEvidence
	if err := warnOfLostLedger(ctx, l, lines, p.log); err != nil {
		return nil, err
	}
	book, err := collector.OpenBook(ctx, bookLedger{l, p.log}, lines, opts)
	if err != nil {
		return nil, err
	}
	r.collector = collector.New(book, collectorQueue{p.broker}, notes, p.log)
	r.collector.Observer = p.metrics
	known := records{l.Reader}
	r.control, err = control.New(ctx, book, p.broker, known, l, r.collector.FinishIfDone, submitTo(p.broker, p.log), p.log)
	if err != nil {
		return nil, err
	}
	r.collector.Judge = r.control.Judge
	r.answers = control.NewAnswers(known, p.broker, linesOf(p.cfg, l.Reader))
	c := worker.Config{
		Name: collectorName(), Version: p.cfg.Version, Heartbeat: broker.Heartbeat, Retry: retryPolicy(p.cfg), Cancels: true,
	}
	if r.canceller, err = worker.New(c, workerQueue{p.broker}, p.broker, nil, p.log); err != nil {
		return nil, err
	}
	if r.hook, err = openHook(ctx, p.cfg, l, p.log); err != nil {
		return nil, err
	}
	if dir := reportDir(p.cfg); dir != "" {
		r.reports = newReports(ctx, dir, localBatches{l.Reader}, p.log)
	}
	return r, nil
}

// warnOfLostLedger says so when evidence that is there tells of batches, and the
// ledger was never used with it: it may be a new one on purpose.
func warnOfLostLedger(ctx context.Context, l *ledger.Ledger, lines *evidence.Log, log zerolog.Logger) error {
	_, known, err := l.Position(ctx)
	if err != nil || known {
		return err
	}
	for r, err := range lines.Since(ctx, schemas.EvidencePosition{}) {
		if err != nil {
			return nil // whoever writes there says what is wrong with it
		}
		if r.Batch != "" {
			log.Warn().Str("log", lines.Path()).Msg("the ledger is a new one, but the evidence tells of batches; if the ledger was lost, stop this, and bring it back with 'exhume ledger rebuild'")
			return nil
		}
	}
	return nil
}

// closeLedger closes the ledger when the reports are written, which are read from
// it. Everything else is closed meanwhile.
func (r *recording) closeLedger() error {
	r.reports.Close()
	return r.ledger.Close()
}

// collectorName names the worker that cancels items where results are recorded.
func collectorName() string {
	name := hostWorkerName() + "-collector"
	if schemas.CheckName(name) != nil {
		return "collector"
	}
	return name
}

// reportDir is where reports go, nowhere when they are turned off.
func reportDir(cfg *Config) string {
	switch cfg.Exhume.ReportDir {
	case "off":
		return ""
	case "":
		return filepath.Join(cfg.Exhume.StateDir, "reports")
	}
	return cfg.Exhume.ReportDir
}

// linesOf counts the lines of evidence about the items of a batch, where the log of
// this configuration is all the evidence that there is.
func linesOf(cfg *Config, l *ledger.Reader) control.Lines {
	return func(ctx context.Context, id string) (int64, error) {
		n, err := l.Writers(ctx)
		if err != nil || n != 1 {
			return -1, err
		}
		return evidence.CountItems(ctx, cfg.Exhume.EvidenceDir, id)
	}
}

// submitTo publishes the items of copied batches.
func submitTo(b *broker.Broker, log zerolog.Logger) control.Submit {
	return func(ctx context.Context, c *control.Control, batch schemas.Batch, items iter.Seq2[schemas.Request, error], total int64) error {
		_, err := producer.Submit(ctx, c, b, producer.Submission{Batch: batch, Items: items, Total: total, Waiting: func(reason error) {
			if reason != nil {
				log.Warn().Err(reason).Str("batch", batch.ID).Msg("waiting to submit a copied batch")
			}
		}})
		return err
	}
}

// run works until the context ends. An error means that results cannot be
// recorded any more.
func (r *recording) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.collector.Run(ctx) })
	g.Go(func() error { return r.control.Run(ctx) })
	g.Go(func() error { return r.canceller.Run(ctx) })
	g.Go(func() error { return r.trim(ctx) })
	g.Go(func() error { return r.hook.run(ctx) })
	return g.Wait()
}

// service is what answers the control API.
type service struct {
	*control.Control
	*control.Answers
}

func (r *recording) service() service { return service{r.control, r.answers} }

// records is a ledger as the control role asks it.
type records struct{ *ledger.Reader }

func (r records) Batch(ctx context.Context, ref string) (schemas.Summary, error) {
	s, err := r.Reader.Batch(ctx, ref)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		err = faultNotFound(err)
	case errors.Is(err, ledger.ErrAmbiguous):
		err = faultAmbiguous(err)
	}
	return s, err
}

func (r records) Results(ctx context.Context, q schemas.ResultsQuery) iter.Seq2[schemas.Result, error] {
	return r.Reader.Results(ctx, q.Batch, ledger.Filter{ResultFilter: q.ResultFilter, From: q.From})
}

func (r records) Count(ctx context.Context, id string, f schemas.ResultFilter) (int64, error) {
	return r.Reader.Count(ctx, id, ledger.Filter{ResultFilter: f})
}

// Steering is what holds for the fleet, as the collectors have recorded it.
func (r records) Steering(ctx context.Context) (s schemas.Steering, err error) {
	text, _, err := r.Setting(ctx, schemas.KeySteering)
	if err != nil {
		return s, err
	}
	return schemas.ParseSteering(text)
}

// tellOf tells whoever listens of batches that change, and counts what is not
// recorded yet.
func (p *process) tellOf(ctx context.Context, r *recording) {
	tell := r.collector.Changed
	changed := func(s schemas.Summary) {
		tell(s)
		r.reports.Changed(s)
		r.hook.changed()
		if err := p.broker.Progress(s); err != nil {
			p.log.Debug().Err(err).Str("batch", s.ID).Msg("cannot tell of a batch's progress")
		}
	}
	r.collector.Changed, r.control.Changed = changed, changed
	p.tellOfRoom(ctx)
	p.metrics.Gauge("exhume_collector_lag_messages", "Messages of results that are not recorded yet.", func() float64 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		n, err := p.broker.Unrecorded(ctx)
		if err != nil {
			return -1
		}
		return float64(n)
	})
}
