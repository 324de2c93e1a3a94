package app

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/console"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/worker"
)

// Where roles answer HTTP unless told otherwise.
const (
	upHTTP        = "127.0.0.1:7700"
	collectorHTTP = "127.0.0.1:7701"
	workerHTTP    = "127.0.0.1:7702"
)

// RoleOptions are for roles that run until they are stopped.
type RoleOptions struct {
	// AcceptEvidence makes a collector go on with the evidence log as it is,
	// although it is not the one that the ledger knows.
	AcceptEvidence bool
	// Waiting is told when another process has to end first.
	Waiting func(owner string)
	// Started is told when the role works, and where it can be reached.
	Started func(Addresses)
}

// Addresses are where a role can be reached; those that are empty are not
// listened on.
type Addresses struct{ HTTP, NATS string }

// RunWorker restores items for a fleet until the context ends, then finishes
// what it has in hand within the drain timeout.
func RunWorker(ctx context.Context, cfg *Config, o RoleOptions, log zerolog.Logger) (err error) {
	p := newProcess(cfg, log)
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.join(ctx, "worker"); err != nil {
		return err
	}
	from, err := patiently(ctx, p, "archive", func(ctx context.Context) (*source, error) { return openSource(ctx, cfg) })
	if err != nil {
		return err
	}
	r, err := p.openRestoring(from, nil, func(c *worker.Config) {
		c.DrainTimeout = time.Duration(cfg.Exhume.DrainTimeout)
		if cfg.Exhume.WorkerName == "" {
			c.Name = processWorkerName()
		}
	})
	if err != nil {
		return err
	}
	checks := []console.Check{{Name: "broker", Probe: p.broker.Ping}, {Name: "archive", Probe: from.Ping}, destinationCheck(r.worker)}
	return p.serve(ctx, workerHTTP, checks, o.Started, "", r.worker.Run)
}

// RunCollector records results, ends batches and answers the control API of a
// fleet until the context ends. Several may run at once, each with an evidence
// directory of its own.
func RunCollector(ctx context.Context, cfg *Config, o RoleOptions, log zerolog.Logger) (err error) {
	p := newProcess(cfg, log)
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.connect(ctx, "collector"); err != nil {
		return err
	}
	if err := p.broker.Setup(ctx); err != nil {
		return err
	}
	writer, err := claimEvidence(cfg.Exhume.EvidenceDir)
	if err != nil {
		return err
	}
	p.others = append(p.others, writer.release)
	l, err := patiently(ctx, p, "ledger", func(ctx context.Context) (*ledger.Ledger, error) {
		return ledger.OpenWith(ctx, LedgerURL(cfg), ledger.Options{Writer: writer.name})
	})
	if err != nil {
		return err
	}
	notes, err := patiently(ctx, p, "archive", func(ctx context.Context) (collector.Archive, error) { return p.openNotes(ctx) })
	if err != nil {
		return errors.Join(err, l.Close())
	}
	r, err := p.openRecording(ctx, l, notes, o.AcceptEvidence)
	if err != nil {
		return err
	}
	if err := p.stand(ctx, r); err != nil {
		return err
	}
	stop, err := p.answer(ctx, r)
	if err != nil {
		return err
	}
	defer stop()
	checks := []console.Check{{Name: "broker", Probe: p.broker.Ping}, ledgerCheck(l)}
	return p.serve(ctx, collectorHTTP, checks, o.Started, "", r.run)
}

// RunUp is a whole fleet in one process that works until the context ends, and
// listens so that other processes can submit batches and workers can join.
func RunUp(ctx context.Context, cfg *Config, o RoleOptions, log zerolog.Logger) (err error) {
	f, err := openFleet(ctx, cfg, fleetOptions{waiting: o.Waiting, acceptEvidence: o.AcceptEvidence, listen: cfg.NATS.Listen,
		patience: time.Duration(cfg.Exhume.StartTimeout), drain: time.Duration(cfg.Exhume.DrainTimeout)}, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.stand(ctx, f.recording); err != nil {
		return err
	}
	stop, err := f.answer(ctx, f.recording)
	if err != nil {
		return err
	}
	defer stop()
	checks := []console.Check{
		{Name: "broker", Probe: f.broker.Ping}, {Name: "archive", Probe: f.source.Ping}, ledgerCheck(f.ledger), destinationCheck(f.worker),
	}
	return f.serve(ctx, upHTTP, checks, o.Started, f.address, f.run)
}

// destinationCheck says whether a worker can write where it has to.
func destinationCheck(w *worker.Worker) console.Check {
	return console.Check{Name: "destination", Probe: func(context.Context) error { return w.Sick() }}
}

// serve runs a role and answers HTTP for it.
func (p *process) serve(
	ctx context.Context, http string, checks []console.Check, started func(Addresses), nats string, run func(context.Context) error,
) error {
	if p.cfg.Exhume.HTTPListen != "" {
		http = p.cfg.Exhume.HTTPListen
	}
	var g errgroup.Group
	// HTTP goes on while the role drains.
	answering, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	at := Addresses{NATS: nats}
	if http != "off" {
		s, err := console.Listen(http, p.metrics, checks)
		if err != nil {
			return err
		}
		at.HTTP = s.Address()
		g.Go(func() error { return s.Run(answering) })
	}
	if started != nil {
		started(at)
	}
	err := run(ctx)
	stop()
	return errors.Join(err, g.Wait())
}
