package control

import (
	"context"
	"iter"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Records is the ledger as it is asked about batches.
type Records interface {
	// Batch gives the batch that ref means; see schemas.BatchRef. The error about
	// one that does not exist carries CodeBatchNotFound.
	Batch(ctx context.Context, ref string) (schemas.Summary, error)
	// Batches gives the newest batches, all when limit is 0.
	Batches(ctx context.Context, limit int) ([]schemas.Summary, error)
	// Codes counts a batch's failed items by their code.
	Codes(ctx context.Context, id string) (map[schemas.Code]int64, error)
	// Results gives the results that q means, in the order of their indexes and
	// without regard to its limit; q.Batch is a whole id.
	Results(ctx context.Context, q schemas.ResultsQuery) iter.Seq2[schemas.Result, error]
}

// Places is the broker as it is asked where the items of an active batch are. It
// fills what it knows of.
type Places interface {
	Whereabouts(ctx context.Context, id string) (schemas.Whereabouts, error)
}

// Answers answers questions about batches and changes nothing. It is safe for
// concurrent use.
type Answers struct {
	records Records
	places  Places
}

// NewAnswers makes answers from what is recorded and from what is under way.
func NewAnswers(r Records, p Places) *Answers { return &Answers{r, p} }

// Get reports about one batch.
func (a *Answers) Get(ctx context.Context, ref string) (r schemas.BatchReport, err error) {
	if r.Summary, err = a.records.Batch(ctx, ref); err != nil {
		return r, err
	}
	r.OpenItems = r.Open()
	r.FailedByCode, err = a.records.Codes(ctx, r.ID)
	return r, err
}

// List lists batches, newest first.
func (a *Answers) List(ctx context.Context, q schemas.BatchList) (l schemas.BatchListing, err error) {
	if q.Skip < 0 || q.Limit < 0 {
		return l, fault.New(schemas.CodeBadRequest, "list of batches: skip %d and limit %d must not be negative", q.Skip, q.Limit)
	}
	limit := 0
	if q.Limit > 0 {
		limit = q.Skip + q.Limit
	}
	all, err := a.records.Batches(ctx, limit)
	l.Batches = all[min(q.Skip, len(all)):]
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

// Why tells where the items of a batch are that have no result yet.
func (a *Answers) Why(ctx context.Context, ref string) (w schemas.Whereabouts, err error) {
	s, err := a.records.Batch(ctx, ref)
	if err != nil {
		return w, err
	}
	if !s.State.Final() {
		if w, err = a.places.Whereabouts(ctx, s.ID); err != nil {
			return w, err
		}
	}
	w.Batch, w.State, w.Total, w.Open = s.ID, s.State, s.Total, s.Open()
	return w, nil
}
