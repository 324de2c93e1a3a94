package app

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/control"
	"github.com/exhume/exhume/schemas"
)

// Questions is the part of the control API that changes nothing.
type Questions interface {
	Get(ctx context.Context, ref string) (schemas.BatchReport, error)
	Events(ctx context.Context, ref string) (schemas.BatchEvents, error)
	Why(ctx context.Context, q schemas.WhyQuery) (schemas.Whereabouts, error)
	Audit(ctx context.Context, ref string) (schemas.Audit, error)
	Letters(ctx context.Context, q schemas.LettersQuery) (schemas.LettersPage, error)
	LetterGroups(ctx context.Context, q schemas.LettersQuery) (schemas.LetterGroups, error)
	Fleet(ctx context.Context) (schemas.Fleet, error)
}

// Steering is the control API: what is asked about batches and done to them.
type Steering interface {
	Questions
	Change(ctx context.Context, q schemas.BatchChange) (schemas.Summary, error)
	SetTerms(ctx context.Context, q schemas.BatchTerms) (schemas.Summary, error)
	Skip(ctx context.Context, q schemas.ItemSkip) (schemas.Summary, error)
	Copy(ctx context.Context, q schemas.BatchCopy) (schemas.BatchCopied, error)
	ChangeFleet(ctx context.Context, q schemas.FleetChange) (schemas.Steering, error)
}

// Controls are the control API of the fleet that is configured or works in the
// state directory, or, where none does, of this process on the state directory.
type Controls struct {
	Steering
	p     *process // of a fleet
	local *fleet   // without one
}

// Ask opens the control API for questions, and calls ask with it. Without a fleet it
// needs neither archive nor destination. Local says that there is none. Where no
// batch was ever restored the error is fs.ErrNotExist.
func Ask(ctx context.Context, cfg *Config, waiting func(owner string), log zerolog.Logger, ask func(q Questions, local bool) error) (err error) {
	p, err := joinFleet(ctx, cfg, log)
	if err != nil {
		return err
	}
	if p != nil {
		return errors.Join(ask(p.broker.API(), false), p.close())
	}
	l, err := OpenLedgerReader(ctx, cfg)
	if err != nil {
		return err
	}
	f := &fleet{process: newProcess(cfg, log)}
	defer func() { err = errors.Join(err, f.close()) }()
	f.others = append(f.others, l.Close)
	if f.lock, err = lockState(ctx, cfg.Exhume.StateDir, waiting); err != nil {
		return err
	}
	if err := f.embed(ctx, nil); err != nil {
		return err
	}
	known := records{l}
	return ask(control.NewAnswers(known, f.broker, linesOf(cfg, l)), true)
}

// joinFleet joins the fleet that is configured or works here; nil when there is
// none.
func joinFleet(ctx context.Context, cfg *Config, log zerolog.Logger) (*process, error) {
	if !remote(cfg) && !hasLocalFleet(cfg) {
		return nil, nil
	}
	p := newProcess(cfg, log)
	if err := p.joinAny(ctx, "cli"); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// OpenControls opens the control API. Where no batch was ever restored and there is
// no fleet, the error is fs.ErrNotExist.
func OpenControls(ctx context.Context, cfg *Config, waiting func(owner string), log zerolog.Logger) (*Controls, error) {
	p, err := joinFleet(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	if p != nil {
		return &Controls{Steering: p.broker.API(), p: p}, nil
	}
	if cfg.Exhume.LedgerURL == "" {
		if _, err := os.Stat(ledgerPath(cfg)); errors.Is(err, fs.ErrNotExist) {
			return nil, noLedger(cfg)
		}
	}
	f, err := openFleet(ctx, cfg, fleetOptions{waiting: waiting}, log)
	if err != nil {
		return nil, err
	}
	f.tellOf(ctx, f.recording) // reports and the webhook, too
	return &Controls{Steering: f.service(), local: f}, nil
}

// Local says that no fleet works: what is changed is recorded, and somebody has to
// go on with it.
func (c *Controls) Local() bool { return c.local != nil }

// Close ends it. Without a fleet it finishes first what needs no worker: it
// records results that are waiting, publishes copies, and ends batches that were
// cancelled.
func (c *Controls) Close(ctx context.Context) error {
	if c.local == nil {
		return c.p.close()
	}
	return errors.Join(c.local.settle(ctx), c.local.close())
}

// settle works without a worker until nothing is left to be done for it.
func (f *fleet) settle(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan error, 1)
	go func() {
		ran <- f.recording.run(ctx)
		stop() // nothing comes to rest any more
	}()
	err := f.control.Rest(ctx)
	stop()
	if rerr := <-ran; rerr != nil {
		err = rerr // and that is why it does not rest
	}
	return errors.Join(err, f.collector.Drain(context.WithoutCancel(ctx)))
}
