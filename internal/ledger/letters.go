package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// place is where a letter stands among those of all batches.
type place struct{ batchNo, index int64 }

func (p place) String() string { return fmt.Sprintf("%d.%d", p.batchNo, p.index) }

func parsePlace(text string) (p place, err error) {
	if _, err := fmt.Sscanf(text, "%d.%d", &p.batchNo, &p.index); err != nil || p.String() != text {
		return p, fault.New(schemas.CodeBadRequest, "there is no page of dead letters after %q; give what the page before says is next", text)
	}
	return p, nil
}

// Letters gives a page of the failed results that q means, of the newest batch
// first, in each batch in the order of their indexes. q.Batch is a whole id. With
// outcomes of which none is failed there are no letters.
func (r *Reader) Letters(ctx context.Context, q schemas.LettersQuery) (page schemas.LettersPage, err error) {
	limit := q.Limit
	if limit <= 0 || limit > schemas.MaxResultsPage {
		limit = schemas.MaxResultsPage
	}
	var after place
	if q.After != "" {
		if after, err = parsePlace(q.After); err != nil {
			return page, err
		}
	}
	page.Letters = []schemas.Result{}
	f, ok := letterFilter(q)
	if !ok {
		return page, nil
	}
	var last place
	err = r.db.inOrder(ctx, func(db querier) error {
		batches, err := failedBatches(ctx, db, q.Batch)
		if err != nil {
			return err
		}
		var copied taken
		if !q.All {
			if copied, err = takenLetters(ctx, db); err != nil {
				return err
			}
		}
		here := func(_ context.Context, ask func(querier) error) error { return ask(db) }
		for _, b := range batches {
			f.From = 0
			switch {
			case q.After != "" && b.no > after.batchNo:
				continue
			case q.After != "" && b.no == after.batchNo:
				f.From = after.index + 1
			}
			for res, err := range r.results(ctx, here, b.no, b.id, f) {
				if err != nil {
					return err
				}
				if copied.has(b.no, res.Code, res.Detail, res.FinishedAt) {
					continue
				}
				if len(page.Letters) == limit {
					page.Next = last.String()
					return nil
				}
				page.Letters = append(page.Letters, res)
				last = place{b.no, res.Index}
			}
		}
		return nil
	})
	if err != nil {
		return schemas.LettersPage{}, r.named(err)
	}
	return page, nil
}

// letterFilter chooses the letters that q means in a batch, or says that there
// are none.
func letterFilter(q schemas.LettersQuery) (Filter, bool) {
	f := Filter{ResultFilter: q.ResultFilter}
	ok := len(f.Outcomes) == 0 || slices.Contains(f.Outcomes, schemas.OutcomeFailed)
	f.Outcomes = []schemas.Outcome{schemas.OutcomeFailed}
	return f, ok
}

// batchKey is how the ledger and everybody else names a batch.
type batchKey struct {
	no int64
	id string
}

// failedBatches gives the batches of which items failed, newest first: all, or
// the one with this id.
func failedBatches(ctx context.Context, db querier, id string) (batches []batchKey, err error) {
	if id != "" {
		b, err := batchByID(ctx, db, id, "")
		return []batchKey{{b.no, id}}, err
	}
	found, err := db.query(ctx, `SELECT no, id FROM batch WHERE failed > 0 ORDER BY no DESC`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close() }()
	for found.Next() {
		var b batchKey
		if err := found.Scan(&b.no, &b.id); err != nil {
			return nil, err
		}
		batches = append(batches, b)
	}
	return batches, found.Err()
}
