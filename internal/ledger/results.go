package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/exhume/exhume/schemas"
)

// pageSize is the number of results read at a time. Between pages nothing is
// held open, so that a slow consumer does not keep the write-ahead log from
// being emptied.
const pageSize = 500

// unhappy is the condition of the index result_unhappy, word for word.
const unhappy = ` AND outcome NOT IN ('restored', 'unchanged')`

// Filter says which results of a batch are wanted; empty fields allow all.
type Filter struct {
	Outcome schemas.Outcome
	// Code is the error code; only items that were not restored have one.
	Code schemas.Code
	// From is the first index.
	From int64
}

// query gives the statement for one page; its parameters are the batch's
// number, the first index, then those in args.
func (f Filter) query(d dialect) (statement string, args []any) {
	from, where := "result", ""
	only := func(column, value string) {
		if value != "" {
			args = append(args, value)
			where += fmt.Sprintf(` AND %s = $%d`, column, len(args)+2)
		}
	}
	only("outcome", string(f.Outcome))
	only("code", string(f.Code))
	if f.Code != "" || (f.Outcome != "" && f.Outcome != schemas.OutcomeRestored && f.Outcome != schemas.OutcomeUnchanged) {
		from, where = d.unhappy, where+unhappy
	}
	return fmt.Sprintf(`SELECT %s FROM %s WHERE batch_no = $1 AND idx >= $2%s ORDER BY idx LIMIT %d`,
		resultColumns, from, where, pageSize), args
}

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
		statement, args := f.query(r.db.dialect())
		for next := f.From; ; {
			page, err := r.readPage(ctx, statement, append([]any{b.no, next}, args...))
			if err != nil {
				yield(schemas.Result{}, r.named(err))
				return
			}
			for _, res := range page {
				res.Batch = id
				if !yield(res, nil) {
					return
				}
				next = res.Index + 1
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

func (r *Reader) readPage(ctx context.Context, statement string, args []any) (page []schemas.Result, err error) {
	err = r.db.inOrder(ctx, func(q querier) error {
		found, err := q.query(ctx, statement, args...)
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		for found.Next() {
			res, err := scanResult(found)
			if err != nil {
				return err
			}
			page = append(page, res)
		}
		return found.Err()
	})
	return page, err
}

// scanResult reads resultColumns; the batch's id is not among them.
func scanResult(found row) (schemas.Result, error) {
	var r schemas.Result
	var labels string
	var finished *int64
	err := found.Scan(&r.Index, &r.Tombstone, &r.Output, &r.Actor, &labels, (*string)(&r.Outcome), (*string)(&r.Code), &r.Detail, &r.Attempts,
		&r.Item, &r.Repo, &r.Path, &r.SHA256, &r.Size, &r.Target, &r.Worker, &finished,
		&r.Durations.Queue, &r.Durations.Read, &r.Durations.Decode, &r.Durations.Write, &r.Durations.Total)
	if err != nil {
		return r, err
	}
	r.FinishedAt = instant(finished)
	if labels != "" {
		err = json.Unmarshal([]byte(labels), &r.Labels)
	}
	return r, err
}
