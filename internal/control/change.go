package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Change pauses, resumes, cancels or aborts a batch. The error of one whose state
// does not allow it carries CodeBatchState.
func (c *Control) Change(ctx context.Context, q schemas.BatchChange) (schemas.Summary, error) {
	if err := checkCommand(q.Command); err != nil {
		return schemas.Summary{}, err
	}
	now := time.Now().UTC()
	switch q.Change {
	case schemas.ChangePause:
		if !q.Until.IsZero() && !q.Until.After(now) {
			return schemas.Summary{}, fault.New(schemas.CodeBadRequest, "pause until %s: that has passed", q.Until.Format(time.RFC3339))
		}
	case schemas.ChangeResume, schemas.ChangeCancel, schemas.ChangeAbort:
		if !q.Until.IsZero() {
			return schemas.Summary{}, fault.New(schemas.CodeBadRequest, "only a pause has an end")
		}
	default:
		return schemas.Summary{}, fault.New(schemas.CodeBadRequest, "change %q: want pause, resume, cancel or abort", q.Change)
	}
	return c.change(ctx, q.BatchRef, q.Command, func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		if s.ID == schemas.Single && (q.Change == schemas.ChangeCancel || q.Change == schemas.ChangeAbort) {
			return nil, fault.New(schemas.CodeBatchState, "the batch of single requests never ends: pause it, or give it no --single-root")
		}
		if done(s, q) {
			return nil, nil
		}
		return apply(s, q.Change, schemas.Standing{By: q.Actor, Note: q.Note, Until: q.Until}, now)
	})
}

// done says whether a batch is already what it is to become.
func done(s *schemas.Summary, q schemas.BatchChange) bool {
	switch q.Change {
	case schemas.ChangePause:
		return s.State == schemas.StatePaused && s.Reason == schemas.ReasonPaused && s.Until.Equal(q.Until)
	case schemas.ChangeResume:
		return s.Workable()
	case schemas.ChangeCancel:
		return s.State == schemas.StateCancelled || s.Reason == schemas.ReasonCancelling
	default:
		return s.State == schemas.StateAborted || s.Reason == schemas.ReasonAborting
	}
}

// apply applies a change as the table of transitions allows.
func apply(s *schemas.Summary, on schemas.Change, why schemas.Standing, now time.Time) (*schemas.BatchEvent, error) {
	if on == schemas.ChangeResume {
		// Whatever it was paused for: a sample that has all its results brings no more.
		if s.InCanary() && s.Counts.Done() >= s.Terms.Canary.Size {
			s.Terms.Canary = passed(s.Terms.Canary)
		}
		s.Terms.MaxFailures = forgiven(s.Terms.MaxFailures, s.Counts)
	}
	e, ok := s.Apply(on, why, now)
	if !ok {
		return nil, fault.New(schemas.CodeBatchState, "batch %s is %s (%s): %s", s.ID, s.State, cmp.Or(s.Reason, "no reason known"), refused[on])
	}
	return &e, nil
}

// refused says of each change that it was not done.
var refused = map[schemas.Change]string{
	schemas.ChangePause: "it cannot be paused", schemas.ChangeResume: "it cannot be resumed",
	schemas.ChangeCancel: "it cannot be cancelled", schemas.ChangeAbort: "it cannot be aborted",
}

func passed(c *schemas.Canary) *schemas.Canary {
	if c == nil {
		return nil
	}
	p := *c
	p.Passed = true
	return &p
}

// forgiven is a threshold that counts from here on.
func forgiven(t *schemas.Threshold, n schemas.Counts) *schemas.Threshold {
	if t == nil {
		return nil
	}
	f := *t
	f.FailedBefore, f.DoneBefore = n.Failed, n.Done()
	return &f
}

// SetTerms changes how a batch is worked on.
func (c *Control) SetTerms(ctx context.Context, q schemas.BatchTerms) (schemas.Summary, error) {
	if err := checkCommand(q.Command); err != nil {
		return schemas.Summary{}, err
	}
	return c.change(ctx, q.BatchRef, q.Command, func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		if s.State.Final() {
			return nil, ended(s, "its terms mean nothing any more")
		}
		t := s.Terms
		if q.Priority != nil {
			t.Priority = *q.Priority
		}
		if q.MaxInFlight != nil {
			t.MaxInFlight = *q.MaxInFlight
		}
		if q.MaxFailures != nil {
			t.MaxFailures = q.MaxFailures
			if t.MaxFailures.Count == nil && t.MaxFailures.Percent == nil {
				t.MaxFailures = nil
			}
		}
		if err := checkTerms(t); err != nil {
			return nil, err
		}
		if s.ID == schemas.Single && t.MaxFailures != nil && t.MaxFailures.Action == schemas.StopAbort {
			return nil, fault.New(schemas.CodeBatchState, "the batch of single requests never ends: let it be paused when too many items fail")
		}
		e := event(s, schemas.ChangeSet, q.Command, describe(t))
		s.Terms = t
		return e, nil
	})
}

// describe is one line about terms for evidence.
func describe(t schemas.Terms) string {
	return fmt.Sprintf("priority %s, at most %d in flight (0: no bound), max failures %s", cmp.Or(t.Priority, schemas.PriorityNormal), t.MaxInFlight, t.MaxFailures)
}

// Skip leaves items of a batch out when their turn comes.
func (c *Control) Skip(ctx context.Context, q schemas.ItemSkip) (schemas.Summary, error) {
	if err := checkCommand(q.Command); err != nil {
		return schemas.Summary{}, err
	}
	if len(q.Indexes) == 0 {
		return schemas.Summary{}, fault.New(schemas.CodeBadRequest, "skip: no item is named")
	}
	return c.change(ctx, q.BatchRef, q.Command, func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		if s.State.Final() {
			return nil, ended(s, "nothing is left to be skipped")
		}
		added := 0
		for _, i := range q.Indexes {
			if i < 0 || !s.SealedAt.IsZero() && i >= s.Total {
				return nil, fault.New(schemas.CodeBadRequest, "batch %s has no item %d: its %d items are numbered from 0", s.ID, i, s.Total)
			}
			if !slices.ContainsFunc(s.Skips, func(k schemas.Skip) bool { return k.Index == i }) {
				s.Skips = append(slices.Clip(s.Skips), schemas.Skip{Index: i, By: q.Actor, Note: q.Note})
				added++
			}
		}
		if len(s.Skips) > schemas.MaxSkips {
			return nil, fault.New(schemas.CodeBadRequest, "batch %s: %d items can be skipped one by one, not %d: cancel the batch, and submit the others again", s.ID, schemas.MaxSkips, len(s.Skips))
		}
		if added == 0 {
			return nil, nil
		}
		if text, err := json.Marshal(s.Skips); err != nil || len(text) > maxSkipText {
			return nil, fault.New(schemas.CodeBadRequest, "batch %s: the skips have %d bytes with their reasons, %d at most: give a shorter reason", s.ID, len(text), maxSkipText)
		}
		slices.SortFunc(s.Skips, func(a, b schemas.Skip) int { return cmp.Compare(a.Index, b.Index) })
		return event(s, schemas.ChangeSkip, q.Command, fmt.Sprintf("items %v", q.Indexes)), nil
	})
}

// event is one that leaves the state as it is. Its note has the actor's own words,
// and what was done.
func event(s *schemas.Summary, on schemas.Change, by schemas.Command, what string) *schemas.BatchEvent {
	note := what
	if by.Note != "" {
		note = by.Note + " (" + what + ")"
	}
	return &schemas.BatchEvent{
		Batch: s.ID, Change: on, From: s.State, To: s.State, Reason: s.Reason, By: by.Actor, Note: note, At: time.Now().UTC(),
	}
}

func ended(s *schemas.Summary, so string) error {
	return fault.New(schemas.CodeBatchState, "batch %s has ended (%s): %s", s.ID, s.State, so)
}

// change records what decide makes of a batch and shows the batch to the workers.
func (c *Control) change(
	ctx context.Context, ref schemas.BatchRef, by schemas.Command, decide func(*schemas.Summary) (*schemas.BatchEvent, error),
) (schemas.Summary, error) {
	s, err := c.records.Batch(ctx, ref.Ref)
	if err != nil {
		return s, err
	}
	return c.record(ctx, s.ID, by.ID, decide)
}

func (c *Control) record(
	ctx context.Context, id, eventID string, decide func(*schemas.Summary) (*schemas.BatchEvent, error),
) (schemas.Summary, error) {
	s, changed, err := c.book.Change(ctx, id, eventID, decide)
	if err != nil || s.State.Final() {
		return s, err
	}
	// Also when nothing changed: whoever was to show the last change may have died.
	if err := c.activate(ctx, s.Batch); err != nil {
		return s, err
	}
	if changed {
		c.Changed(s)
	}
	return s, c.finish(ctx, s)
}

// Batches are shown to the workers whole, each in one message.
const (
	maxActor, maxNote = 256, 4096
	// maxSkipText bounds the skips of a batch, in bytes of JSON.
	maxSkipText = 256 << 10
)

// commandID is what ids of commands may be: they become ids of events.
var commandID = regexp.MustCompile(`^[A-Za-z0-9_:-]{1,128}$`)

func checkCommand(q schemas.Command) error {
	switch {
	case q.Actor == "":
		return fault.New(schemas.CodeBadRequest, "no actor is named: who wants this?")
	case !commandID.MatchString(q.ID):
		return fault.New(schemas.CodeBadRequest, "the command's id is %.40q: want 1 to 128 letters, digits, '-', '_' and ':'", q.ID)
	case len(q.Actor) > maxActor || len(q.Note) > maxNote:
		return fault.New(schemas.CodeBadRequest, "actor of %d bytes, reason of %d: want at most %d and %d", len(q.Actor), len(q.Note), maxActor, maxNote)
	}
	return nil
}

func checkTerms(t schemas.Terms) error {
	bad := func(format string, args ...any) error { return fault.New(schemas.CodeBadRequest, format, args...) }
	switch t.Priority {
	case "", schemas.PriorityUrgent, schemas.PriorityNormal, schemas.PriorityBulk:
	default:
		return bad("priority %q: want urgent, normal or bulk", t.Priority)
	}
	if t.MaxInFlight < 0 {
		return bad("at most %d items in flight: want 0 (no bound) or more", t.MaxInFlight)
	}
	if c := t.Canary; c != nil && (c.Size < 1 || c.MaxErrors < 0) {
		return bad("canary of %d items with %d errors: want at least 1 item, and 0 errors or more", c.Size, c.MaxErrors)
	}
	if f := t.MaxFailures; f != nil {
		switch {
		case (f.Count == nil) == (f.Percent == nil):
			return bad("max failures: want a number or a percentage")
		case f.Count != nil && *f.Count < 0, f.Percent != nil && (*f.Percent < 0 || *f.Percent > 100), f.MinSample < 0:
			return bad("max failures %s: want 0 or more, at most 100%%", f)
		case f.FailedBefore < 0 || f.DoneBefore < 0:
			return bad("max failures: %d failed and %d done before: want 0 or more", f.FailedBefore, f.DoneBefore)
		case f.Action != "" && f.Action != schemas.StopPause && f.Action != schemas.StopAbort:
			return bad("action %q when too many items fail: want pause or abort", f.Action)
		}
	}
	return nil
}
