package ledger

import "context"

// Writers is how many evidence logs there are beside the ledger: one for each
// collector that has ever recorded in it.
func (r *Reader) Writers(ctx context.Context) (n int, err error) {
	err = r.db.queryRow(ctx, `SELECT count(*) FROM evidence_position`).Scan(&n)
	return n, r.named(err)
}
