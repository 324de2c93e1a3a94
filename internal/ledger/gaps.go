package ledger

import (
	"context"

	"github.com/exhume/exhume/schemas"
)

// Missing gives the lowest indexes of a sealed batch that have no result, at
// most limit. A batch that is not sealed misses nothing that could be named.
func (r *Reader) Missing(ctx context.Context, id string, limit int) ([]int64, error) {
	b, err := batchByID(ctx, r.db, id, "")
	if err != nil {
		return nil, r.named(err)
	}
	var missing []int64
	for next := int64(0); next < b.Total && len(missing) < limit; {
		present, err := r.indexes(ctx, b, next)
		if err != nil {
			return nil, r.named(err)
		}
		if len(present) < gapPage {
			present = append(present, b.Total) // nothing comes between
		}
		for _, i := range present {
			for ; next < i && len(missing) < limit; next++ {
				missing = append(missing, next)
			}
			next = i + 1
		}
	}
	return missing, nil
}

// gapPage is the number of indexes read at a time.
const gapPage = 10_000

// indexes gives the first indexes of the batch's results from one on.
func (r *Reader) indexes(ctx context.Context, b batchRow, from int64) (indexes []int64, err error) {
	err = r.db.inOrder(ctx, func(q querier) error {
		found, err := q.query(ctx, `SELECT idx FROM result WHERE batch_no = $1 AND idx >= $2 AND idx < $3 ORDER BY idx LIMIT $4`,
			b.no, from, b.Total, gapPage)
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		for found.Next() {
			var i int64
			if err := found.Scan(&i); err != nil {
				return err
			}
			indexes = append(indexes, i)
		}
		return found.Err()
	})
	return indexes, err
}

// Codes counts the batch's failed items by their code.
func (r *Reader) Codes(ctx context.Context, id string) (map[schemas.Code]int64, error) {
	b, err := batchByID(ctx, r.db, id, "")
	if err != nil {
		return nil, r.named(err)
	}
	rows, err := r.db.query(ctx, `SELECT code, count(*) FROM `+r.db.dialect().unhappy+`
		WHERE batch_no = $1 AND outcome = 'failed'`+unhappy+` GROUP BY code`, b.no)
	if err != nil {
		return nil, r.named(err)
	}
	defer func() { _ = rows.Close() }()
	codes := map[schemas.Code]int64{}
	for rows.Next() {
		var code schemas.Code
		var n int64
		if err := rows.Scan((*string)(&code), &n); err != nil {
			return nil, r.named(err)
		}
		codes[code] = n
	}
	return codes, r.named(rows.Err())
}
