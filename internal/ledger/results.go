package ledger

import (
	"context"
	"encoding/json"
	"iter"

	"github.com/exhume/exhume/schemas"
)

// pageSize is the number of results read at a time. Between pages nothing is
// held open, so that a slow consumer does not keep the write-ahead log from
// being emptied.
const pageSize = 500

// Results gives the batch's results in the order of their indexes, reading a
// page at a time: it takes the same memory for ten and for millions and does not
// stand in the writer's way. Results that come in meanwhile appear if their
// place is still ahead. An error ends the sequence.
func (r *Reader) Results(ctx context.Context, id string, f Filter) iter.Seq2[schemas.Result, error] {
	return func(yield func(schemas.Result, error) bool) {
		b, err := batchByID(ctx, r.db, id, "")
		if err != nil {
			yield(schemas.Result{}, r.named(err))
			return
		}
		for res, err := range r.results(ctx, r.db.inOrder, b.no, id, f) {
			if !yield(res, r.named(err)) {
				return
			}
		}
	}
}

// results gives the results of the batch with this number and id. Each page is
// read inside inOrder; see database.
func (r *Reader) results(ctx context.Context, inOrder func(context.Context, func(querier) error) error,
	no int64, id string, f Filter) iter.Seq2[schemas.Result, error] {
	return func(yield func(schemas.Result, error) bool) {
		statement, args := f.query(r.db.dialect())
		for next := f.From; ; {
			var page []schemas.Result
			err := inOrder(ctx, func(q querier) (err error) {
				page, err = readResults(ctx, q, statement, append([]any{no, next}, args...))
				return err
			})
			if err != nil {
				yield(schemas.Result{}, err)
				return
			}
			for _, res := range page {
				next = res.Index + 1
				if !f.matches(res.Detail) {
					continue
				}
				res.Batch = id
				if !yield(res, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

func readResults(ctx context.Context, q querier, statement string, args []any) (page []schemas.Result, err error) {
	found, err := q.query(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close() }()
	for found.Next() {
		res, err := scanResult(found)
		if err != nil {
			return nil, err
		}
		page = append(page, res)
	}
	return page, found.Err()
}

// scanResult reads resultColumns; the batch's id is not among them.
func scanResult(found row) (schemas.Result, error) {
	var r schemas.Result
	var labels, history string
	var finished *int64
	err := found.Scan(&r.Index, &r.Tombstone, &r.Output, &r.Actor, &labels, (*string)(&r.Outcome), (*string)(&r.Code), &r.Detail, &r.Attempts,
		&r.Item, &r.Repo, &r.Path, &r.SHA256, &r.Size, &r.Target, &r.Worker, &finished,
		&r.Durations.Queue, &r.Durations.Read, &r.Durations.Decode, &r.Durations.Write, &r.Durations.Total, &history)
	if err != nil {
		return r, err
	}
	r.FinishedAt = instant(finished)
	if labels != "" {
		if err := json.Unmarshal([]byte(labels), &r.Labels); err != nil {
			return r, err
		}
	}
	if history != "" {
		err = json.Unmarshal([]byte(history), &r.History)
	}
	return r, err
}
