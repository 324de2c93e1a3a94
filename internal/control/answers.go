package control

import (
	"context"
	"iter"
	"math"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Records is the ledger as it is asked about batches. Whole ids are wanted, but
// for Batch.
type Records interface {
	// Batch gives the batch that ref means; see schemas.BatchRef. The error about
	// one that does not exist carries CodeBatchNotFound.
	Batch(ctx context.Context, ref string) (schemas.Summary, error)
	// Batches gives the newest batches, all when limit is 0.
	Batches(ctx context.Context, limit int) ([]schemas.Summary, error)
	Active(ctx context.Context) ([]schemas.Summary, error)
	// Codes counts a batch's failed items by their code.
	Codes(ctx context.Context, id string) (map[schemas.Code]int64, error)
	// Results gives the results that q means, in the order of their indexes and
	// without regard to its limit.
	Results(ctx context.Context, q schemas.ResultsQuery) iter.Seq2[schemas.Result, error]
	Count(ctx context.Context, id string, f schemas.ResultFilter) (int64, error)
	// Missing gives the lowest indexes without a result.
	Missing(ctx context.Context, id string, limit int) ([]int64, error)
	// Events gives the newest events, oldest first.
	Events(ctx context.Context, id string, limit int) ([]schemas.BatchEvent, error)
	Letters(ctx context.Context, q schemas.LettersQuery) (schemas.LettersPage, error)
	LetterGroups(ctx context.Context, q schemas.LettersQuery) ([]schemas.LetterGroup, error)
	// Audit gives the counts that are kept, and the results counted anew.
	Audit(ctx context.Context, id string) (kept, counted schemas.Counts, err error)
	Steering(ctx context.Context) (schemas.Steering, error)
	// KeptTo is the lowest index of a batch whose request is not kept.
	KeptTo(ctx context.Context, id string) (int64, error)
}

// Places is the broker as it is asked where the items of an active batch are. It
// fills what it knows of.
type Places interface {
	Whereabouts(ctx context.Context, id string) (schemas.Whereabouts, error)
	// RetriesOf gives what is known of failed attempts of items.
	RetriesOf(ctx context.Context, id string, indexes []int64) (map[int64]schemas.Retry, error)
	// Workers asks the workers, and gives the answers that come within wait.
	Workers(ctx context.Context, q schemas.WorkerQuestion, wait time.Duration) ([]schemas.WorkerStatus, error)
	// Left is how many messages of requests there are of a batch.
	Left(ctx context.Context, id string) (int64, error)
}

// Answers answers questions about batches and changes nothing. It is safe for
// concurrent use.
type Answers struct {
	records Records
	places  Places
	lines   Lines
}

// NewAnswers makes answers from what is recorded and from what is under way.
// Lines may be nil.
func NewAnswers(r Records, p Places, lines Lines) *Answers { return &Answers{r, p, lines} }

// Get reports about one batch.
func (a *Answers) Get(ctx context.Context, ref string) (r schemas.BatchReport, err error) {
	if r.Summary, err = a.records.Batch(ctx, ref); err != nil {
		return r, err
	}
	fleet, err := a.records.Steering(ctx)
	if err != nil {
		return r, err
	}
	underFleet(&r.Batch, fleet)
	r.OpenItems = r.Open()
	r.FailedByCode, err = a.records.Codes(ctx, r.ID)
	return r, err
}

// underFleet shows a batch as paused while everything is.
func underFleet(b *schemas.Batch, fleet schemas.Steering) {
	if p := fleet.Pause; p != nil && b.Workable() {
		b.State, b.Standing = schemas.StatePaused, *p
	}
}

// List lists batches, newest first.
func (a *Answers) List(ctx context.Context, q schemas.BatchList) (l schemas.BatchListing, err error) {
	if q.Skip < 0 || q.Limit < 0 {
		return l, fault.New(schemas.CodeBadRequest, "list of batches: skip %d and limit %d must not be negative", q.Skip, q.Limit)
	}
	limit := 0
	if q.Limit > 0 {
		limit = min(q.Skip, math.MaxInt-q.Limit) + q.Limit
	}
	all, err := a.records.Batches(ctx, limit)
	if err != nil {
		return l, err
	}
	fleet, err := a.records.Steering(ctx)
	for i := range all {
		underFleet(&all[i].Batch, fleet)
	}
	l.Batches = append([]schemas.Summary{}, all[min(q.Skip, len(all)):]...)
	return l, err
}

// Results gives one page of results.
func (a *Answers) Results(ctx context.Context, q schemas.ResultsQuery) (p schemas.ResultsPage, err error) {
	if q.From < 0 || q.Limit < 0 || q.Limit > schemas.MaxResultsPage {
		return p, fault.New(schemas.CodeBadRequest, "results: want from at least 0 and a limit of 0 to %d, not %d and %d",
			schemas.MaxResultsPage, q.From, q.Limit)
	}
	s, err := a.records.Batch(ctx, q.Batch)
	if err != nil {
		return p, err
	}
	if q.Limit == 0 {
		q.Limit = schemas.MaxResultsPage
	}
	p.Batch, q.Batch = s.ID, s.ID
	p.Results = []schemas.Result{}
	for r, err := range a.records.Results(ctx, q) {
		if err != nil {
			return p, err
		}
		if len(p.Results) == q.Limit {
			p.Next = r.Index
			break
		}
		p.Results = append(p.Results, r)
	}
	return p, nil
}

// Events gives what has happened to a batch.
func (a *Answers) Events(ctx context.Context, ref string) (e schemas.BatchEvents, err error) {
	s, err := a.records.Batch(ctx, ref)
	if err != nil {
		return e, err
	}
	e.Batch = s.ID
	events, err := a.records.Events(ctx, s.ID, maxEvents)
	e.Events = append([]schemas.BatchEvent{}, events...)
	return e, err
}

// maxEvents is how many of a batch's events are told.
const maxEvents = 1000

// Letters gives a page of dead letters.
func (a *Answers) Letters(ctx context.Context, q schemas.LettersQuery) (p schemas.LettersPage, err error) {
	if q.Limit < 0 || q.Limit > schemas.MaxResultsPage {
		return p, fault.New(schemas.CodeBadRequest, "dead letters: want a limit of 0 to %d, not %d", schemas.MaxResultsPage, q.Limit)
	}
	if err := a.whole(ctx, &q.Batch); err != nil {
		return p, err
	}
	return a.records.Letters(ctx, q)
}

// LetterGroups gives dead letters in groups of alike ones.
func (a *Answers) LetterGroups(ctx context.Context, q schemas.LettersQuery) (g schemas.LetterGroups, err error) {
	if err := a.whole(ctx, &q.Batch); err != nil {
		return g, err
	}
	g.Groups, err = a.records.LetterGroups(ctx, q)
	return g, err
}

// whole makes of a reference, if there is one, a whole id.
func (a *Answers) whole(ctx context.Context, ref *string) error {
	if *ref == "" {
		return nil
	}
	s, err := a.records.Batch(ctx, *ref)
	*ref = s.ID
	return err
}

// Fleet tells what holds for the fleet, and which workers answer.
func (a *Answers) Fleet(ctx context.Context) (f schemas.Fleet, err error) {
	if f.Steering, err = a.records.Steering(ctx); err != nil {
		return f, err
	}
	f.Workers, err = a.places.Workers(ctx, schemas.WorkerQuestion{}, workersWait)
	if f.Workers == nil {
		f.Workers = []schemas.WorkerStatus{} // a list, if an empty one
	}
	return f, err
}
