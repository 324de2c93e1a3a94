package ledger

import (
	"context"
	"fmt"
	"slices"
)

// Writers is how many evidence logs there are beside the ledger: one for each
// collector that has ever recorded in it, and is not forgotten.
func (r *Reader) Writers(ctx context.Context) (n int, err error) {
	err = r.db.queryRow(ctx, `SELECT count(*) FROM evidence_position`).Scan(&n)
	return n, r.named(err)
}

// ForgetWriters forgets the positions of all writers but this one and those that are
// named: what their logs hold stands in others.
func (l *Ledger) ForgetWriters(ctx context.Context, but []string) error {
	return l.inTx(ctx, func(t tx) error {
		found, err := t.query(ctx, `SELECT writer FROM evidence_position`)
		if err != nil {
			return l.named(err)
		}
		var gone []string
		for found.Next() {
			var w string
			if err = found.Scan(&w); err != nil {
				break
			}
			if w != l.writer && !slices.Contains(but, w) {
				gone = append(gone, w)
			}
		}
		_ = found.Close() // reads to the end: only then an error is known
		if err == nil {
			err = found.Err()
		}
		for _, w := range gone {
			if err == nil {
				_, err = t.exec(ctx, `DELETE FROM evidence_position WHERE writer = $1`, w)
			}
		}
		if err != nil {
			return l.named(fmt.Errorf("forget evidence positions: %w", err))
		}
		return nil
	})
}
