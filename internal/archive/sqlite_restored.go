package archive

import (
	"cmp"
	"context"
	"database/sql"
	"time"
)

// RestoreEvent says that an item was restored.
type RestoreEvent struct {
	// ID is the event's id, always the same for the same restore.
	ID string
	// Item is the archive's id of the item.
	Item  string
	Actor string
	At    time.Time
	// Context is a JSON object; empty means {}.
	Context string
}

// Restored records restores in one transaction: a RESTORE event for each, and
// the time in its item's restored_at. What is recorded already is left as it is,
// so that it does no harm to record it again.
func (w *Writer) Restored(ctx context.Context, events []RestoreEvent) error {
	err := w.inTx(ctx, func(tx *sql.Tx) error {
		event, err := tx.PrepareContext(ctx, `INSERT INTO event (id, item_id, action, actor, context, created_at)
			VALUES (?, ?, 'RESTORE', ?, ?, ?) ON CONFLICT (id) DO NOTHING`)
		if err != nil {
			return err
		}
		defer func() { _ = event.Close() }()
		item, err := tx.PrepareContext(ctx, `UPDATE item SET restored_at = ? WHERE id = ?`)
		if err != nil {
			return err
		}
		defer func() { _ = item.Close() }()
		for _, e := range events {
			at := stamp(e.At)
			result, err := event.ExecContext(ctx, e.ID, e.Item, e.Actor, cmp.Or(e.Context, "{}"), at)
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
				continue
			}
			if _, err := item.ExecContext(ctx, at, e.Item); err != nil {
				return err
			}
		}
		return nil
	})
	return w.fault(ctx, "recording restores", err)
}
