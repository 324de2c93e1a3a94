package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/exhume/exhume/schemas"
)

// Keep keeps requests of a batch until the batch ends. Requests that were kept
// before stay as they were; of a batch that has ended nothing is kept.
func (l *Ledger) Keep(ctx context.Context, k schemas.Kept) error {
	return l.inTx(ctx, func(t tx) error {
		b, err := batchByID(ctx, t, k.Batch, l.db.dialect().lockRow)
		if err != nil {
			return l.named(err)
		}
		if b.State.Final() {
			return nil
		}
		_, err = t.exec(ctx, `INSERT INTO kept (batch_no, first, last, body) VALUES ($1, $2, $3, $4)
			ON CONFLICT (batch_no, first) DO UPDATE SET last = excluded.last, body = excluded.body WHERE excluded.last > kept.last`,
			b.no, k.First, k.Last, k.Body)
		if err != nil {
			return l.named(fmt.Errorf("keep requests of batch %s: %w", k.Batch, err))
		}
		return nil
	})
}

// KeptTo gives the lowest index of a batch whose request is not kept: 0 when none
// is, as when the batch has ended.
func (r *Reader) KeptTo(ctx context.Context, id string) (next int64, err error) {
	b, err := batchByID(ctx, r.db, id, "")
	if err != nil {
		return 0, r.named(err)
	}
	for from := int64(0); ; {
		found, err := r.kept(ctx, b, from, keptPage)
		if err != nil {
			return 0, r.named(err)
		}
		for _, k := range found {
			if k.First > next {
				return next, nil
			}
			next, from = max(next, k.Last+1), k.First+1
		}
		if len(found) < keptPage {
			return next, nil
		}
	}
}

// keptPage is how many rows of the table are read at a time, without their bodies.
const keptPage = 1000

// kept lists what is kept of a batch and begins at an index or after it, in order
// and without the bodies.
func (r *Reader) kept(ctx context.Context, b batchRow, from int64, limit int) (all []schemas.Kept, err error) {
	err = r.db.inOrder(ctx, func(q querier) error {
		found, err := q.query(ctx, `SELECT first, last FROM kept WHERE batch_no = $1 AND first >= $2 ORDER BY first LIMIT $3`, b.no, from, limit)
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		for found.Next() {
			k := schemas.Kept{Batch: b.ID}
			if err := found.Scan(&k.First, &k.Last); err != nil {
				return err
			}
			all = append(all, k)
		}
		return found.Err()
	})
	return all, err
}

// OpenKept visits what is kept of those items of a sealed batch that have no
// result: open are their indexes, in order, each visited once. It reads one row
// after the other. An error of visit ends it, and comes back as it is.
func (r *Reader) OpenKept(ctx context.Context, id string, visit func(k schemas.Kept, open []int64) error) error {
	b, err := batchByID(ctx, r.db, id, "")
	if err != nil {
		return r.named(err)
	}
	next := int64(0) // indexes before it are visited
	for from := int64(0); ; {
		found, err := r.kept(ctx, b, from, keptPage)
		if err != nil {
			return r.named(err)
		}
		for _, k := range found {
			open, err := r.open(ctx, b, max(k.First, next), min(k.Last+1, b.Total))
			if err != nil {
				return r.named(err)
			}
			next, from = max(next, k.Last+1), k.First+1
			if len(open) == 0 {
				continue
			}
			err = r.db.queryRow(ctx, `SELECT last, body FROM kept WHERE batch_no = $1 AND first = $2`, b.no, k.First).Scan(&k.Last, &k.Body)
			if errors.Is(err, sql.ErrNoRows) { // the batch has ended meanwhile
				return nil
			}
			if err != nil {
				return r.named(err)
			}
			if err := visit(k, open); err != nil {
				return err
			}
		}
		if len(found) < keptPage {
			return nil
		}
	}
}

// open gives the indexes from one to before another that have no result.
func (r *Reader) open(ctx context.Context, b batchRow, from, to int64) (open []int64, err error) {
	if from >= to {
		return nil, nil
	}
	err = r.db.inOrder(ctx, func(q querier) error {
		found, err := q.query(ctx, `SELECT idx FROM result WHERE batch_no = $1 AND idx >= $2 AND idx < $3 ORDER BY idx LIMIT $4`, b.no, from, to, to-from)
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		for found.Next() {
			var i int64
			if err := found.Scan(&i); err != nil {
				return err
			}
			for ; from < i; from++ {
				open = append(open, from)
			}
			from = i + 1
		}
		return found.Err()
	})
	for ; from < to; from++ {
		open = append(open, from)
	}
	return open, err
}

// FailuresBetween gives the failed attempts at the items from first to last, in the
// order of items and attempts.
func (r *Reader) FailuresBetween(ctx context.Context, id string, first, last int64) ([]schemas.Failure, error) {
	b, err := batchByID(ctx, r.db, id, "")
	if err != nil {
		return nil, r.named(err)
	}
	found, err := r.attempts(ctx, b, `AND idx >= $2 AND idx <= $3 ORDER BY idx, number`, first, last)
	return found, r.named(err)
}

// dropKept removes what is kept of a batch that ends.
func dropKept(ctx context.Context, t tx, b batchRow) error {
	if _, err := t.exec(ctx, `DELETE FROM kept WHERE batch_no = $1`, b.no); err != nil {
		return fmt.Errorf("remove the kept requests of batch %s: %w", b.ID, err)
	}
	return nil
}

// DropKept removes what is kept of batches that have ended: older programs leave it
// behind.
func (l *Ledger) DropKept(ctx context.Context) error {
	return l.inTx(ctx, func(t tx) error {
		_, err := t.exec(ctx, `DELETE FROM kept WHERE EXISTS (SELECT 1 FROM batch WHERE batch.no = kept.batch_no AND batch.ended_at IS NOT NULL)`)
		if err != nil {
			return l.named(fmt.Errorf("remove kept requests of batches that have ended: %w", err))
		}
		return nil
	})
}
