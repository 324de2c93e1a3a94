package control

import (
	"context"
	"fmt"

	"github.com/exhume/exhume/schemas"
)

// Lines counts the lines of evidence about the items of a batch; -1 where the log
// at hand is not all there is.
type Lines func(ctx context.Context, id string) (int64, error)

// Audit compares what ledger, evidence and queue say of a batch.
func (a *Answers) Audit(ctx context.Context, ref string) (r schemas.Audit, err error) {
	s, err := a.records.Batch(ctx, ref)
	if err != nil {
		return r, err
	}
	r = schemas.Audit{Batch: s.ID, State: s.State, Total: s.Total, Open: s.Open(), Evidence: -1}
	if r.Counts, r.Counted, err = a.records.Audit(ctx, s.ID); err != nil {
		return r, err
	}
	if a.lines != nil {
		if r.Evidence, err = a.lines(ctx, s.ID); err != nil {
			return r, err
		}
	}
	if r.Queued, err = a.places.Left(ctx, s.ID); err != nil {
		return r, err
	}
	if !s.State.Final() {
		w, err := a.whereabouts(ctx, s)
		if err != nil {
			return r, err
		}
		r.Published, r.Kept = w.Published, w.Kept
	}
	r.Problems = problems(s, r)
	return r, nil
}

func problems(s schemas.Summary, r schemas.Audit) (p []string) {
	say := func(format string, args ...any) { p = append(p, fmt.Sprintf(format, args...)) }
	done, sealed := r.Counted.Done(), !s.SealedAt.IsZero()
	if r.Counts != r.Counted {
		say("the ledger keeps the counts %+v, its results are %+v: it was changed by something other than exhume, or is damaged", r.Counts, r.Counted)
	}
	if sealed && done > s.Total {
		say("there are %d results of %d items", done, s.Total)
	}
	if s.State.Final() && done != s.Total {
		say("the batch has ended (%s) with %d results of %d items", s.State, done, s.Total)
	}
	if sealed && !s.State.Final() && done == s.Total {
		say("all %d items have their results, and the batch has not ended", s.Total)
	}
	// Lines are written before the ledger commits, and counted after its results.
	if r.Evidence >= 0 && (r.Evidence < done || s.State.Final() && r.Evidence > done) {
		say("the evidence has %d lines about items, the ledger has %d results", r.Evidence, done)
	}
	if s.State.Final() && r.Queued > 0 {
		say("the batch has ended, and the broker still holds %d messages of it", r.Queued)
	}
	if sealed && !s.State.Final() && r.Queued == 0 && done < s.Total {
		say("%d items are open, and the broker holds no request of the batch: it has lost them%s", s.Total-done, again(s, r.Kept))
	}
	return p
}

// again says how requests that the broker has lost come back.
func again(s schemas.Summary, kept int64) string {
	switch {
	case kept < s.Total:
		return fmt.Sprintf(", and from item %d on they are not kept: submit the same manifest again", kept)
	case s.State == schemas.StatePaused:
		return "; they are published again when the batch is resumed"
	default:
		return "; they are published again within a minute"
	}
}
