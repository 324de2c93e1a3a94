package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// askTogether is how many indexes one question names.
const askTogether = 500

// Recorded gives those of the indexes whose items have results in a batch.
func (r *Reader) Recorded(ctx context.Context, id string, indexes []int64) (recorded []int64, err error) {
	b, err := batchByID(ctx, r.db, id, "")
	if err != nil {
		return nil, r.named(err)
	}
	for some := range slices.Chunk(indexes, askTogether) {
		args := []any{b.no}
		var in strings.Builder
		for _, i := range some {
			args = append(args, i)
			fmt.Fprintf(&in, ",$%d", len(args))
		}
		found, err := r.db.query(ctx, `SELECT idx FROM result WHERE batch_no = $1 AND idx IN (`+in.String()[1:]+`)`, args...)
		if err != nil {
			return nil, r.named(err)
		}
		for found.Next() {
			var i int64
			if err = found.Scan(&i); err != nil {
				break
			}
			recorded = append(recorded, i)
		}
		_ = found.Close() // reads to the end: only then an error is known
		if err == nil {
			err = found.Err()
		}
		if err != nil {
			return nil, r.named(err)
		}
	}
	return recorded, nil
}
