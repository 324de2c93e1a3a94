package worker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/exhume/exhume/schemas"
)

// plan is what is done with the items in hand.
type plan struct {
	// together and alone are tried.
	together, alone []held
	// untried have their results without that, in ends.
	untried []held
	ends    []schemas.Result
	// later are messages that are given back, with the delay.
	later map[Message]time.Duration
}

func (p *plan) end(item held, outcome schemas.Outcome, code schemas.Code, detail string) {
	p.untried = append(p.untried, item)
	p.ends = append(p.ends, schemas.Result{Request: item.request, Outcome: outcome, Code: code, Detail: detail})
}

// plan says what is done with each item, when its turn has come; the decoded items
// are its own then. The error is that the hand is given up.
func (w *Worker) plan(h *hand, b *schemas.Batch, d *decoded) (*plan, error) {
	p := &plan{together: d.good[:0], untried: d.bad, ends: d.failed, later: map[Message]time.Duration{}}
	for _, item := range d.good {
		if err := w.recall(h, &item); err != nil {
			return nil, err
		}
		if w.cfg.Cancels {
			p.end(item, schemas.OutcomeCancelled, schemas.CodeItemCancelled, by("cancelled", b.By, b.Note))
			continue
		}
		if s, ok := skipped(b, item.request.Index); ok {
			p.end(item, schemas.OutcomeSkipped, schemas.CodeItemSkipped, by("skipped", s.By, s.Note))
			continue
		}
		switch deaths := item.deaths(); {
		case deaths >= maxDeaths:
			p.end(item, schemas.OutcomeFailed, schemas.CodeWorkerKiller, fmt.Sprintf("%d times a worker died while it tried this item, alone", deaths))
		case !item.suspect() && deaths == 0:
			p.together = append(p.together, item)
		case deaths > 0 && time.Since(w.started) < calm:
			p.later[item.of] = calm - time.Since(w.started)
		default:
			p.alone = append(p.alone, item)
		}
	}
	// What is given back comes again as a whole.
	back := func(item held) bool { return p.later[item.of] > 0 }
	if len(p.later) > 0 {
		p.together, p.alone = slices.DeleteFunc(p.together, back), slices.DeleteFunc(p.alone, back)
	}
	return p, nil
}

// recall looks up an item's failed attempts, where there can be any.
func (w *Worker) recall(h *hand, item *held) error {
	if !item.of.Redelivered() && item.of.retryAt.IsZero() {
		return nil
	}
	err := w.lookUp(h.work, h.stop, item)
	if err == nil && item.of.items == 1 && item.past.Attempts > 0 {
		w.hands.tried(h, item.of.Message, item.past.Attempts+1)
	}
	return err
}

// skipped says whether an item of the batch is left out.
func skipped(b *schemas.Batch, index int64) (schemas.Skip, bool) {
	i, ok := slices.BinarySearchFunc(b.Skips, index, func(s schemas.Skip, index int64) int { return cmp.Compare(s.Index, index) })
	if !ok {
		return schemas.Skip{}, false
	}
	return b.Skips[i], true
}

// by says who has done what, and why.
func by(what, who, why string) string {
	detail := what + " by " + cmp.Or(who, "exhume")
	if why != "" {
		detail += ": " + why
	}
	return detail
}
