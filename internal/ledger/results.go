package ledger

import (
	"context"
	"database/sql"
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
func (f Filter) query() (statement string, args []any) {
	from, where := "result", ""
	if f.Outcome != "" {
		where, args = where+` AND outcome = ?`, append(args, string(f.Outcome))
	}
	if f.Code != "" {
		where, args = where+` AND code = ?`, append(args, string(f.Code))
	}
	if f.Code != "" || (f.Outcome != "" && f.Outcome != schemas.OutcomeRestored && f.Outcome != schemas.OutcomeUnchanged) {
		from, where = `result INDEXED BY result_unhappy`, where+unhappy
	}
	return fmt.Sprintf(`SELECT %s FROM %s WHERE batch_no = ? AND idx >= ?%s ORDER BY idx LIMIT %d`,
		resultColumns, from, where, pageSize), args
}

// Results gives the batch's results in the order of their indexes, reading a
// page at a time: it takes the same memory for ten and for millions and does not
// stand in the writer's way. Results that come in meanwhile appear if their
// place is still ahead. An error ends the sequence.
func (r *Reader) Results(ctx context.Context, id string, f Filter) iter.Seq2[schemas.Result, error] {
	return func(yield func(schemas.Result, error) bool) {
		b, err := batchByID(ctx, r.db, id)
		if err != nil {
			yield(schemas.Result{}, r.named(err))
			return
		}
		statement, args := f.query()
		stmt, err := r.db.PrepareContext(ctx, statement)
		if err != nil {
			yield(schemas.Result{}, r.named(err))
			return
		}
		defer func() { _ = stmt.Close() }()
		for next := f.From; ; {
			page, err := readPage(ctx, stmt, append([]any{b.no, next}, args...))
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

func readPage(ctx context.Context, stmt *sql.Stmt, args []any) ([]schemas.Result, error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var page []schemas.Result
	for rows.Next() {
		res, err := scanResult(rows)
		if err != nil {
			return nil, err
		}
		page = append(page, res)
	}
	return page, rows.Err()
}

// scanResult reads resultColumns; the batch's id is not among them.
func scanResult(rows *sql.Rows) (schemas.Result, error) {
	var r schemas.Result
	var labels string
	var finished sql.NullInt64
	err := rows.Scan(&r.Index, &r.Tombstone, &r.Output, &r.Actor, &labels, &r.Outcome, &r.Code, &r.Detail, &r.Attempts,
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
