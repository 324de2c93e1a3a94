package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/exhume/exhume/schemas"
)

// Position is the end of the writer's evidence that belongs to what the ledger
// holds; false when none was noted yet.
func (r *Reader) Position(ctx context.Context) (schemas.EvidencePosition, bool, error) {
	return r.PositionOf(ctx, r.writer)
}

// PositionOf is Position for another writer.
func (r *Reader) PositionOf(ctx context.Context, writer string) (schemas.EvidencePosition, bool, error) {
	var p schemas.EvidencePosition
	err := r.db.queryRow(ctx, `SELECT "offset", seq, prev FROM evidence_position WHERE writer = $1`, writer).Scan(&p.Offset, &p.Seq, &p.Prev)
	if errors.Is(err, sql.ErrNoRows) {
		return p, false, nil
	}
	if err != nil {
		return p, false, r.named(fmt.Errorf("evidence position: %w", err))
	}
	return p, true, nil
}

// SetPosition notes the position in the writer's evidence, whatever was noted
// before.
func (l *Ledger) SetPosition(ctx context.Context, pos schemas.EvidencePosition) error {
	return l.inTx(ctx, func(t tx) error { return l.setPosition(ctx, t, pos) })
}

func (l *Ledger) setPosition(ctx context.Context, t tx, pos schemas.EvidencePosition) error {
	_, err := t.exec(ctx, `INSERT INTO evidence_position (writer, "offset", seq, prev) VALUES ($1, $2, $3, $4)
		ON CONFLICT (writer) DO UPDATE SET "offset" = excluded."offset", seq = excluded.seq, prev = excluded.prev`,
		l.writer, pos.Offset, pos.Seq, pos.Prev)
	if err != nil {
		return l.named(fmt.Errorf("note the evidence position: %w", err))
	}
	return nil
}
