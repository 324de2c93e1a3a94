package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/exhume/exhume/schemas"
)

// lookEvery is how often batches are looked at that change by themselves.
const lookEvery = time.Second

// Run ends pauses whose time has come, ends batches that were cancelled before
// they were sealed, goes on with copies that a killed process left, and brings back
// what the broker has lost, until the context ends.
func (c *Control) Run(ctx context.Context) error {
	defer c.copies.wait()
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		if err := c.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			c.log.Warn().Err(err).Msg("cannot look after batches; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (c *Control) look(ctx context.Context, now time.Time) error {
	errs := []error{c.lookAtBroker(ctx, now)}
	active, err := c.book.Active(ctx)
	if err != nil {
		return err
	}
	for _, s := range active {
		switch {
		case s.State == schemas.StatePaused && !s.Until.IsZero() && !now.Before(s.Until):
			errs = append(errs, c.goOn(ctx, s.ID))
		case s.Stopping() || s.Complete():
			errs = append(errs, c.close(ctx, s))
		case s.Source != nil && s.SealedAt.IsZero():
			c.goOnCopying(s.Batch)
		}
	}
	errs = append(errs, c.lookForLost(ctx, active, now), c.lookAtFleet(ctx, now))
	return errors.Join(errs...)
}

// goOn resumes a batch whose pause is over.
func (c *Control) goOn(ctx context.Context, id string) error {
	_, err := c.record(ctx, id, "", func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		now := time.Now().UTC()
		if s.State != schemas.StatePaused || s.Until.IsZero() || now.Before(s.Until) {
			return nil, nil // somebody else was faster
		}
		return apply(s, schemas.ChangeResume, schemas.Standing{Note: fmt.Sprintf("the pause until %s is over", s.Until.Format(time.RFC3339))}, now)
	})
	return err
}

// close ends a batch that was cancelled while it was submitted, as soon as all
// that was submitted is settled: its items are those. And it does what somebody
// who died has left undone: it shows a batch that is being cancelled, and ends one
// that is complete.
func (c *Control) close(ctx context.Context, s schemas.Summary) error {
	if s.Stopping() {
		if err := c.activate(ctx, s.Batch); err != nil {
			return err
		}
	}
	if !s.SealedAt.IsZero() && !s.Complete() {
		return nil
	}
	settled, err := c.queue.Settled(ctx, s.ID)
	if err != nil || !settled {
		return err
	}
	if s.Complete() {
		return c.finish(ctx, s)
	}
	_, err = c.record(ctx, s.ID, "", func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		if !s.Stopping() || !s.SealedAt.IsZero() {
			return nil, nil
		}
		now := time.Now().UTC()
		s.Total, s.SealedAt = s.Counts.Done(), now
		return apply(s, schemas.ChangeSeal, schemas.Standing{Note: "cancelled before all of it was submitted"}, now)
	})
	return err
}

// Rest returns when nothing is left to be done that needs no worker: no batch is
// being cancelled, none is filled with another's items.
func (c *Control) Rest(ctx context.Context) error {
	t := time.NewTicker(lookEvery / 20)
	defer t.Stop()
	for {
		busy, err := c.busy(ctx)
		if err != nil || !busy {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

func (c *Control) busy(ctx context.Context) (bool, error) {
	active, err := c.book.Active(ctx)
	if err != nil {
		return false, err
	}
	for _, s := range active {
		if s.Stopping() || s.Source != nil && s.SealedAt.IsZero() {
			return true, nil
		}
	}
	return false, nil
}
