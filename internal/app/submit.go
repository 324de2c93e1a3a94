package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// pollEvery is how often a batch is asked for while it is watched. Events come
// in between, but may get lost.
const pollEvery = 2 * time.Second

// Submit submits a manifest to a fleet. With wait it returns when the batch has
// ended; when ctx ends before, the fleet goes on and the error is
// ErrInterrupted.
func Submit(ctx context.Context, cfg *Config, o BatchOptions, wait bool, log zerolog.Logger) (out Batch, err error) {
	out, s, done, err := o.prepare(ctx, cfg)
	if err != nil || o.CheckOnly {
		return out, err
	}
	defer done()
	p := newProcess(cfg, log)
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.join(ctx, "submit"); err != nil {
		return out, err
	}
	s.Progress = func(published int64) { o.Progress.Submitting(published, s.Total) }
	s.Waiting = o.Progress.Full
	sub, err := producer.Submit(ctx, p.broker.API(), p.broker, s)
	if err != nil {
		if ctx.Err() != nil {
			err = ErrInterrupted
		}
		return out, err
	}
	out.Known, out.Before, out.Summary = sub.Known, sub.Before, sub.Summary
	if !wait || out.State.Final() {
		return out, nil
	}
	out.Summary, err = watch(ctx, p.broker, s.Batch.ID, untilStopped{o.Progress})
	return out, err
}

// Watcher is told how a batch that is watched goes on.
type Watcher interface {
	// Restoring: the batch has these counts.
	Restoring(s schemas.Summary)
	// Where: its open items are here. It is told now and then.
	Where(w schemas.Whereabouts)
}

// WatchBatch follows a batch of a fleet, named as in BatchRef, until it has ended.
func WatchBatch(ctx context.Context, cfg *Config, ref string, to Watcher, log zerolog.Logger) (s schemas.Summary, err error) {
	if !remote(cfg) && !hasLocalFleet(cfg) {
		return watchLocal(ctx, cfg, ref, to)
	}
	p := newProcess(cfg, log)
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.joinAny(ctx, "watch"); err != nil {
		return s, err
	}
	report, err := p.broker.API().Get(ctx, ref)
	if err != nil {
		return s, err
	}
	to.Restoring(report.Summary)
	if report.State.Final() {
		return report.Summary, nil
	}
	return watch(ctx, p.broker, report.ID, to)
}

// watchLocal gives a batch that has ended from the ledger, where no fleet works.
func watchLocal(ctx context.Context, cfg *Config, ref string, to Watcher) (s schemas.Summary, err error) {
	l, err := OpenLedgerReader(ctx, cfg)
	if err != nil {
		return s, errors.Join(ErrNoFleet, err)
	}
	defer l.Close() //nolint:errcheck // opened for reading
	report, err := localBatches{l}.Batch(ctx, ref)
	if err != nil {
		return s, err
	}
	if !report.State.Final() {
		return s, fmt.Errorf("batch %s is %s, and nobody works on it: %w", report.ID, report.State, ErrNoFleet)
	}
	to.Restoring(report.Summary)
	return report.Summary, nil
}

// untilStopped is a watcher of whoever waits for a batch: one that has stopped by
// itself is not waited for, because nobody may be there to let it go on.
type untilStopped struct{ Watcher }

// watch follows a batch until it has ended. A broker or collector that is away
// for a while is waited for.
func watch(ctx context.Context, b *broker.Broker, id string, to Watcher) (last schemas.Summary, err error) {
	events := make(chan schemas.Summary, 16)
	stop, err := b.WatchEvents(id, func(s schemas.Summary) {
		select {
		case events <- s:
		default: // the next poll tells
		}
	})
	if err != nil {
		return last, err
	}
	defer stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		var s schemas.Summary
		select {
		case <-ctx.Done():
			return last, ErrInterrupted
		case s = <-events:
		case <-tick.C:
			report, err := b.API().Get(ctx, id)
			if err != nil && fault.CodeOf(err).Class() != schemas.ClassBackendDown && ctx.Err() == nil {
				return last, err
			}
			s = report.Summary
			if w, err := b.API().Why(ctx, schemas.WhyQuery{BatchRef: schemas.BatchRef{Ref: id}}); err == nil && !w.State.Final() {
				to.Where(w)
			}
		}
		if s.ID == "" || s.Counts.Done() < last.Counts.Done() {
			continue // old news, or none
		}
		last = s
		to.Restoring(s)
		if s.State.Final() {
			return s, nil
		}
		if _, waits := to.(untilStopped); waits && s.State == schemas.StatePaused && s.By == "" {
			return s, &PausedError{s}
		}
	}
}
