package ledger

import (
	"context"
	"iter"
	"strings"

	"github.com/exhume/exhume/schemas"
)

const (
	attemptColumns = `idx, number, tombstone, output, actor, at, worker, code, detail, next_try`
	// attemptRows is the number of rows of one INSERT at most.
	attemptRows = 100
)

// attempt is what a failure has once.
type attempt struct{ batchNo, index, number int64 }

// addFailures adds those that are not there yet.
func (r *recording) addFailures(ctx context.Context, failures []schemas.Failure) error {
	var rows []schemas.Failure
	flush := func() error {
		fresh, err := r.insertFailures(ctx, rows)
		r.failures, rows = append(r.failures, fresh...), rows[:0]
		return err
	}
	for i := range failures {
		b := r.batches[failures[i].Batch]
		if b == nil || !b.has(failures[i].Index) {
			r.strayFailures = append(r.strayFailures, failures[i])
			continue
		}
		if b.cut() {
			continue
		}
		if rows = append(rows, failures[i]); len(rows) == attemptRows {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return flush()
}

// insertFailures inserts one statement's failures and gives those that were new.
func (r *recording) insertFailures(ctx context.Context, failures []schemas.Failure) (fresh []schemas.Failure, err error) {
	const columns = 11
	var values strings.Builder
	args := make([]any, 0, columns*len(failures))
	for i := range failures {
		f := &failures[i]
		if i > 0 {
			values.WriteByte(',')
		}
		values.WriteString("(" + parameters(len(args)+1, columns) + ")")
		args = append(args, r.batches[f.Batch].no, f.Index, int64(f.Number), f.Tombstone, f.Output, f.Actor,
			nanos(f.At), f.Worker, string(f.Code), f.Detail, nanos(f.NextTry))
	}
	found, err := r.tx.query(ctx, `INSERT INTO attempt (batch_no, `+attemptColumns+`) VALUES `+values.String()+`
		ON CONFLICT DO NOTHING RETURNING batch_no, idx, number`, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close() }()
	added := map[attempt]bool{}
	for found.Next() {
		var a attempt
		if err := found.Scan(&a.batchNo, &a.index, &a.number); err != nil {
			return nil, err
		}
		added[a] = true
	}
	for i := range failures {
		a := attempt{r.batches[failures[i].Batch].no, failures[i].Index, int64(failures[i].Number)}
		if added[a] {
			delete(added, a) // what repeats it in the same statement was not added
			fresh = append(fresh, failures[i])
		}
	}
	return fresh, found.Err()
}

// Attempts gives the failed attempts at one item that were followed by others, in
// their order.
func (r *Reader) Attempts(ctx context.Context, batch string, index int64) ([]schemas.Failure, error) {
	b, err := batchByID(ctx, r.db, batch, "")
	if err != nil {
		return nil, r.named(err)
	}
	found, err := r.attempts(ctx, b, `AND idx = $2 ORDER BY number`, index)
	return found, r.named(err)
}

// Failures gives all failed attempts at the items of a batch, in the order of items
// and attempts, reading a page at a time as Results does. An error ends the sequence.
func (r *Reader) Failures(ctx context.Context, batch string) iter.Seq2[schemas.Failure, error] {
	return func(yield func(schemas.Failure, error) bool) {
		b, err := batchByID(ctx, r.db, batch, "")
		for index, number := int64(0), int64(-1); err == nil; {
			var page []schemas.Failure
			page, err = r.attempts(ctx, b, `AND (idx, number) > ($2, $3) ORDER BY idx, number LIMIT $4`, index, number, pageSize)
			for _, f := range page {
				if index, number = f.Index, int64(f.Number); !yield(f, nil) {
					return
				}
			}
			if len(page) < pageSize {
				break
			}
		}
		if err != nil {
			yield(schemas.Failure{}, r.named(err))
		}
	}
}

func (r *Reader) attempts(ctx context.Context, b batchRow, rest string, args ...any) (all []schemas.Failure, err error) {
	err = r.db.inOrder(ctx, func(q querier) error {
		found, err := q.query(ctx, `SELECT `+attemptColumns+` FROM attempt WHERE batch_no = $1 `+rest, append([]any{b.no}, args...)...)
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		for found.Next() {
			f := schemas.Failure{Batch: b.ID}
			var at, next *int64
			err := found.Scan(&f.Index, &f.Number, &f.Tombstone, &f.Output, &f.Actor, &at, &f.Worker, (*string)(&f.Code), &f.Detail, &next)
			if err != nil {
				return err
			}
			f.At, f.NextTry = instant(at), instant(next)
			all = append(all, f)
		}
		return found.Err()
	})
	return all, err
}
