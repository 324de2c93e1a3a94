package control

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// workersWait is how long workers may take to say what they have in hand. One
// that hangs does not answer at all.
const workersWait = 500 * time.Millisecond

// Why tells where the items of a batch are that have no result yet, and what
// keeps them from being done.
func (a *Answers) Why(ctx context.Context, q schemas.WhyQuery) (w schemas.Whereabouts, err error) {
	if q.Items < 0 || q.Items > schemas.MaxWhyItems {
		return w, fault.New(schemas.CodeBadRequest, "want 0 to %d items, not %d", schemas.MaxWhyItems, q.Items)
	}
	s, err := a.records.Batch(ctx, q.Ref)
	if err != nil {
		return w, err
	}
	fleet, err := a.records.Steering(ctx)
	if err != nil {
		return w, err
	}
	underFleet(&s.Batch, fleet)
	if !s.State.Final() {
		if w, err = a.whereabouts(ctx, s); err != nil {
			return w, err
		}
		if w.Workers, err = a.places.Workers(ctx, schemas.WorkerQuestion{Batch: s.ID}, workersWait); err != nil {
			return w, err
		}
		if !s.Workable() && !held(w.Workers) {
			// What workers have given back counts as in hand until it is taken again.
			w.Waiting, w.InHand = w.Waiting+w.InHand, 0
		}
		if w.Active, err = a.others(ctx, s.ID); err != nil {
			return w, err
		}
		w.Limits = limitsOf(s.ID, fleet.Limits)
		if q.Items > 0 {
			if w.Items, err = a.openItems(ctx, s, w, q.Items); err != nil {
				return w, err
			}
		}
	}
	w.Batch, w.State, w.Standing, w.Terms, w.Total, w.Open = s.ID, s.State, s.Standing, s.Terms, s.Total, s.Open()
	return w, nil
}

// held says whether workers have anything in hand of the batch that they were asked
// about.
func held(workers []schemas.WorkerStatus) bool {
	return slices.ContainsFunc(workers, func(s schemas.WorkerStatus) bool { return len(s.InHand) > 0 })
}

// whereabouts asks the broker. Of a batch that is sealed everything is published,
// whatever the last message is about: of one with a sample it need not be the last
// item.
func (a *Answers) whereabouts(ctx context.Context, s schemas.Summary) (schemas.Whereabouts, error) {
	w, err := a.places.Whereabouts(ctx, s.ID)
	if !s.SealedAt.IsZero() {
		w.Published = s.Total
	}
	if err == nil && s.ID != schemas.Single {
		w.Kept, err = a.records.KeptTo(ctx, s.ID)
	}
	return w, err
}

// others counts the other batches that share the workers.
func (a *Answers) others(ctx context.Context, id string) (map[schemas.Priority]int64, error) {
	active, err := a.records.Active(ctx)
	if err != nil {
		return nil, err
	}
	n := map[schemas.Priority]int64{}
	for _, s := range active {
		if s.ID != id && s.ID != schemas.Single && s.Workable() {
			n[cmp.Or(s.Terms.Priority, schemas.PriorityNormal)]++
		}
	}
	return n, nil
}

// limitsOf are those that a batch is, or may be, under: which backend its workers
// read from, they know.
func limitsOf(id string, all []schemas.Limit) (limits []schemas.Limit) {
	for _, l := range all {
		_, other := cutBatch(l.Scope)
		if !other || l.Scope == schemas.ScopeBatch(id) {
			limits = append(limits, l)
		}
	}
	return limits
}

// openItems lists items without a result, the lowest indexes first.
func (a *Answers) openItems(ctx context.Context, s schemas.Summary, w schemas.Whereabouts, most int) ([]schemas.OpenItem, error) {
	missing, err := a.records.Missing(ctx, s.ID, most)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	retries, err := a.places.RetriesOf(ctx, s.ID, missing)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	items := make([]schemas.OpenItem, len(missing))
	for i, index := range missing {
		item := &items[i]
		item.Index = index
		retry := retries[index]
		item.LastError = retry.LastError
		switch hand, worker := holder(w.Workers, index); {
		case hand != nil:
			item.Place, item.Worker, item.Since, item.Attempt = schemas.PlaceInHand, worker, hand.Since, max(hand.Attempt, retry.Attempts+1)
		case retry.NextTry.After(now):
			item.Place, item.NextTry, item.Attempt = schemas.PlaceRetry, retry.NextTry, retry.Attempts+1
		case index >= w.Published:
			item.Place = schemas.PlaceUnpublished
		case w.Waiting > 0:
			item.Place = schemas.PlaceQueued
		default:
			item.Place = schemas.PlaceElsewhere
		}
	}
	return items, nil
}

// holder finds who has an item in hand.
func holder(workers []schemas.WorkerStatus, index int64) (*schemas.InHand, string) {
	for i := range workers {
		for k := range workers[i].InHand {
			if h := &workers[i].InHand[k]; h.First <= index && index <= h.Last {
				return h, workers[i].Worker
			}
		}
	}
	return nil, ""
}
