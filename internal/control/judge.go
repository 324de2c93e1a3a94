package control

import (
	"context"
	"fmt"
	"time"

	"github.com/exhume/exhume/schemas"
)

// Judge looks at batches of which results were just recorded: it lets those go on
// whose sample is restored, and stops those of which too many items have failed.
func (c *Control) Judge(ctx context.Context, batches []schemas.Summary) error {
	for _, s := range batches {
		if err := c.judge(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (c *Control) judge(ctx context.Context, s schemas.Summary) error {
	if on, _ := verdict(&s); on == "" {
		return nil
	}
	_, err := c.record(ctx, s.ID, "", func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		on, why := verdict(s) // of what is recorded now
		switch on {
		case "":
			return nil, nil
		case schemas.ChangePass:
			return pass(s, why.Note), nil
		}
		return apply(s, on, why, time.Now().UTC())
	})
	return err
}

// verdict says what is to be done about a batch, and why; nothing mostly.
func verdict(s *schemas.Summary) (on schemas.Change, why schemas.Standing) {
	if s.State.Final() || s.Stopping() {
		return "", why
	}
	paused, n := s.State == schemas.StatePaused, s.Counts
	if canary := s.Terms.Canary; s.InCanary() && n.Done() >= canary.Size {
		said := fmt.Sprintf("%d of the %d items of the sample failed, %d may", n.Failed, canary.Size, canary.MaxErrors)
		switch {
		case n.Failed <= canary.MaxErrors:
			return schemas.ChangePass, schemas.Standing{Note: said}
		case !paused || s.Reason != schemas.ReasonCanaryFailed:
			return schemas.ChangePause, schemas.Standing{Reason: schemas.ReasonCanaryFailed, Note: said}
		}
		return "", why
	}
	if t := s.Terms.MaxFailures; t.Exceeded(n) && !paused && !s.Complete() {
		on = schemas.ChangePause
		if t.Action == schemas.StopAbort && s.ID != schemas.Single {
			on = schemas.ChangeAbort
		}
		return on, schemas.Standing{
			Reason: schemas.ReasonTooManyFailures,
			Note:   fmt.Sprintf("%d of %d items failed, %s may", n.Failed-t.FailedBefore, n.Done()-t.DoneBefore, t),
		}
	}
	return "", why
}

// pass lets a batch go on after its sample.
func pass(s *schemas.Summary, said string) *schemas.BatchEvent {
	e := &schemas.BatchEvent{Batch: s.ID, Change: schemas.ChangePass, From: s.State, To: s.State, Note: said, At: time.Now().UTC()}
	s.Terms.Canary = passed(s.Terms.Canary)
	if s.State != schemas.StatePaused {
		s.Reason, s.By, s.Note, s.Since = s.Resting(), "", said, e.At
	}
	e.Reason = s.Reason
	return e
}
