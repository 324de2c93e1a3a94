package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/exhume/exhume/schemas"
)

// Position is the end of the evidence that belongs to what the ledger holds;
// false when none was noted yet.
func (r *Reader) Position(ctx context.Context) (schemas.EvidencePosition, bool, error) {
	var p schemas.EvidencePosition
	err := r.db.QueryRowContext(ctx, `SELECT "offset", seq, prev FROM evidence`).Scan(&p.Offset, &p.Seq, &p.Prev)
	if errors.Is(err, sql.ErrNoRows) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("ledger %s: evidence position: %w", r.path, err)
	}
	return p, true, nil
}

// SetPosition notes the position, whatever was noted before.
func (l *Ledger) SetPosition(ctx context.Context, pos schemas.EvidencePosition) error {
	return l.inTx(ctx, func(tx *sql.Tx) error { return setPosition(ctx, tx, pos) })
}

func setPosition(ctx context.Context, tx *sql.Tx, pos schemas.EvidencePosition) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO evidence (no, "offset", seq, prev) VALUES (1, ?, ?, ?)
		ON CONFLICT DO UPDATE SET "offset" = excluded."offset", seq = excluded.seq, prev = excluded.prev`, pos.Offset, pos.Seq, pos.Prev)
	if err != nil {
		return fmt.Errorf("note the evidence position: %w", err)
	}
	return nil
}
