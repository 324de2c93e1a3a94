package ledger

import (
	"context"

	"github.com/exhume/exhume/schemas"
)

// Missing gives the lowest indexes of a sealed batch that have no result, at
// most limit. A batch that is not sealed misses nothing that could be named.
func (r *Reader) Missing(ctx context.Context, id string, limit int) ([]int64, error) {
	b, err := batchByID(ctx, r.db, id)
	if err != nil {
		return nil, r.named(err)
	}
	rows, err := r.db.QueryContext(ctx, `SELECT idx FROM result WHERE batch_no = ? AND idx < ? ORDER BY idx`, b.no, b.Total)
	if err != nil {
		return nil, r.named(err)
	}
	defer func() { _ = rows.Close() }()
	var missing []int64
	next := int64(0)
	for next < b.Total && len(missing) < limit {
		present := b.Total
		if rows.Next() {
			if err := rows.Scan(&present); err != nil {
				return nil, r.named(err)
			}
		}
		for ; next < present && len(missing) < limit; next++ {
			missing = append(missing, next)
		}
		next = present + 1
	}
	return missing, r.named(rows.Err())
}

// Codes counts the batch's failed items by their code.
func (r *Reader) Codes(ctx context.Context, id string) (map[schemas.Code]int64, error) {
	b, err := batchByID(ctx, r.db, id)
	if err != nil {
		return nil, r.named(err)
	}
	rows, err := r.db.QueryContext(ctx, `SELECT code, count(*) FROM result INDEXED BY result_unhappy
		WHERE batch_no = ? AND outcome = 'failed'`+unhappy+` GROUP BY code`, b.no)
	if err != nil {
		return nil, r.named(err)
	}
	defer func() { _ = rows.Close() }()
	codes := map[schemas.Code]int64{}
	for rows.Next() {
		var code schemas.Code
		var n int64
		if err := rows.Scan(&code, &n); err != nil {
			return nil, r.named(err)
		}
		codes[code] = n
	}
	return codes, r.named(rows.Err())
}
