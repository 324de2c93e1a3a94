package collector

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/exhume/exhume/schemas"
)

// What the notes of batches say that are known by their results only.
const (
	fromResults = "rebuilt from its results: manifest and settings are not known"
	fromLines   = "rebuilt from evidence of its items: manifest and settings are not known"
)

// story is what evidence tells of one batch.
type story struct {
	id         string
	start, end *schemas.Record
	// rebuilt says that the line of the start was written by a rebuilding: when the
	// batch began it does not tell.
	rebuilt bool
	changes []schemas.Record
}

// tell goes on with the story, with a line that perhaps a rebuilding has written.
func (s *story) tell(r schemas.Record, rebuilt bool) {
	switch {
	case r.Phase == schemas.PhaseStart:
		if s.start == nil || s.rebuilt && !rebuilt {
			s.start, s.rebuilt = &r, rebuilt
		}
	case r.Phase == schemas.PhaseEnd:
		if s.end == nil || !written(&r).Before(written(s.end)) {
			s.end = &r
		}
	case r.Action == schemas.ActionBatchControl:
		s.changes = append(s.changes, r)
	}
}

// order puts what several logs tell of changes in order, each of them once: as it
// was told first, and not as a rebuilding has told it again.
func (s *story) order() {
	slices.SortStableFunc(s.changes, func(a, b schemas.Record) int { return written(&a).Compare(written(&b)) })
	told := map[string]bool{}
	s.changes = slices.DeleteFunc(s.changes, func(r schemas.Record) bool {
		again := r.ChangeID != "" && told[r.ChangeID]
		told[r.ChangeID] = true
		return again
	})
}

// first is the line that tells most of how the batch began, nil when only its items
// are told.
func (s *story) first() *schemas.Record {
	switch {
	case s == nil:
		return nil
	case s.start != nil:
		return s.start
	case s.end != nil:
		return s.end
	case len(s.changes) > 0:
		return &s.changes[0]
	}
	return nil
}

// bornAt is when a batch was created, and no time where that is not known, but only
// when something was told of it.
func (s *story) bornAt(b schemas.Batch) time.Time {
	if b.Note == fromResults || b.Note == fromLines {
		return time.Time{}
	}
	if first := s.first(); first != nil && (s.start == nil || s.rebuilt) && !b.CreatedAt.Before(written(first)) {
		return time.Time{}
	}
	return b.CreatedAt
}

// ended is the line of the batch's end, nil when there is none.
func (s *story) ended() *schemas.Record {
	if s == nil {
		return nil
	}
	return s.end
}

func (s *story) root() string {
	switch {
	case s == nil:
		return ""
	case s.start != nil:
		return s.start.Root
	case s.end != nil:
		return s.end.Root
	}
	return ""
}

// batch is the batch as far as it is told, or false when only its items are.
func (s *story) batch() (schemas.Batch, bool) {
	b := schemas.Batch{ID: s.id, State: schemas.StateOpen, Settings: schemas.Settings{Root: s.root()}}
	first := s.first()
	if first == nil {
		return b, false
	}
	b.CreatedAt = written(first)
	if first.Action == schemas.ActionBatchRestore {
		b.Actor, b.Manifest, b.Archive = first.Actor, first.Manifest, first.URL
	}
	b.Standing = schemas.Standing{Reason: schemas.ReasonSubmitting, By: b.Actor, Since: b.CreatedAt}
	if s.start != nil {
		b.Note, b.ManifestSHA256, b.Settings = s.start.Reason, s.start.ManifestSHA256, settingsOf(s.start)
	}
	seal := func(total *int64) {
		if total != nil && b.SealedAt.IsZero() {
			b.Total, b.SealedAt = *total, b.CreatedAt
		}
		if !b.SealedAt.IsZero() && b.State == schemas.StateOpen {
			b.State, b.Reason = schemas.StateSealed, schemas.ReasonQueued
		}
	}
	for i := range s.changes {
		c := &s.changes[i]
		seal(c.Total)
		if !c.State.Final() && c.StateReason != "" && c.State != "" {
			b.State = c.State
			b.Standing = schemas.Standing{Reason: c.StateReason, By: by(c), Note: c.Reason, Since: written(c)}
		}
	}
	if s.end != nil {
		b.ManifestSHA256 = s.end.ManifestSHA256
		seal(s.end.Total)
	}
	return b, true
}

// settingsOf are the settings that the line of a beginning tells.
func settingsOf(start *schemas.Record) schemas.Settings {
	mode, _ := strconv.ParseUint(start.Mode, 8, 32) // none is told: 0 is the default
	return schemas.Settings{Root: start.Root, Overwrite: start.Overwrite, Mode: uint32(mode)}
}

// events are what has happened to the batch after it was opened, if that is told.
func (s *story) events() []schemas.BatchEvent {
	if s == nil {
		return nil
	}
	var events []schemas.BatchEvent
	from := schemas.StateOpen
	for i := range s.changes {
		c := &s.changes[i]
		events = append(events, schemas.BatchEvent{
			ID: c.ChangeID, Batch: s.id, Change: c.Change, From: from, To: c.State, Reason: c.StateReason, By: by(c), Note: c.Reason, At: written(c),
		})
		from = c.State
	}
	return events
}

// opened is the event that a batch was opened; what its note was then is told, or as
// it is now.
func (s *story) opened(b schemas.Batch) schemas.BatchEvent {
	e := schemas.BatchEvent{
		Batch: b.ID, Change: schemas.ChangeOpen, To: schemas.StateOpen, Reason: schemas.ReasonSubmitting, By: b.Actor, Note: b.Note, At: b.CreatedAt,
	}
	if s != nil && s.start != nil {
		e.Note = s.start.Reason
	}
	return e
}

// by is who made a change, nobody for exhume itself.
func by(r *schemas.Record) string {
	if r.Actor == itself {
		return ""
	}
	return r.Actor
}

// written is when a line was written.
func written(r *schemas.Record) time.Time {
	at, _ := time.Parse(time.RFC3339, r.TS) // of a line that says nothing, no time
	return at
}

// fromResult is a batch of which nothing is known but a result.
func fromResult(r *schemas.Result, at time.Time, note string) schemas.Batch {
	root := ""
	if place, found := strings.CutSuffix(r.Target, "/"+r.Output); found && r.Output != "" {
		root = place
	}
	return schemas.Batch{
		ID: r.Batch, State: schemas.StateOpen, Actor: r.Actor, CreatedAt: at, Settings: schemas.Settings{Root: root},
		Standing: schemas.Standing{Reason: schemas.ReasonSubmitting, Note: note, Since: at},
	}
}

// fromFailure is a batch of which nothing is known but a failed attempt.
func fromFailure(f *schemas.Failure, at time.Time, note string) schemas.Batch {
	return fromResult(&schemas.Result{Request: schemas.Request{Batch: f.Batch, Actor: f.Actor}}, at, note)
}

// resultOf is the result that a line tells of, below the root of its batch.
func resultOf(r *schemas.Record, root string) schemas.Result {
	output, below := strings.CutPrefix(r.Path, root+"/")
	if !below {
		output = r.Path
	}
	q := schemas.Result{
		Request: schemas.Request{Batch: r.Batch, Index: *r.Index, Tombstone: r.Tombstone, Output: output, Actor: r.Actor},
		Outcome: r.Outcome, Code: r.Code, Detail: r.Reason, Attempts: r.Attempt, Repo: r.Repo, SHA256: r.SHA256, Target: r.Path, Worker: r.Worker,
		FinishedAt: written(r),
	}
	if r.Size != nil {
		q.Size = *r.Size
	}
	for _, d := range []struct{ from, to *float64 }{
		{r.DurationMS, &q.Durations.Total}, {r.DecompressionMS, &q.Durations.Decode}, {r.WriteMS, &q.Durations.Write},
	} {
		if d.from != nil {
			*d.to = *d.from
		}
	}
	return q
}

// failureOf is the failed attempt that a line tells of.
func failureOf(r *schemas.Record) schemas.Failure {
	next, _ := time.Parse(time.RFC3339, r.NextTry) // none is told
	return schemas.Failure{
		Batch: r.Batch, Index: *r.Index, Tombstone: r.Tombstone, Actor: r.Actor, Number: r.Attempt, NextTry: next,
		Attempt: schemas.Attempt{At: written(r), Worker: r.Worker, Code: r.Code, Detail: r.Reason},
	}
}
