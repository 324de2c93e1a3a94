package archive

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"
)

// eventRows is how many events are inserted with one statement; more and fewer
// are slower.
const eventRows = 50

// restored goes through the events in the order of their items, so that what the
// index of events by item changes lies close together.
func (w *sqliteWriter) restored(ctx context.Context, events []RestoreEvent) error {
	events = slices.SortedStableFunc(slices.Values(events), func(a, b RestoreEvent) int {
		return cmp.Or(cmp.Compare(a.Item, b.Item), a.At.Compare(b.At))
	})
	return w.inTx(ctx, func(tx *sql.Tx) error {
		n := restoredNotes{tx: tx}
		defer n.close()
		for len(events) >= eventRows {
			if err := n.note(ctx, events[:eventRows]); err != nil {
				return err
			}
			events = events[eventRows:]
		}
		for i := range events {
			if err := n.note(ctx, events[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	})
}

// restoredNotes writes events of restorations in one transaction.
type restoredNotes struct {
	tx *sql.Tx
	// insert and update are the statements for one row and for eventRows of them,
	// prepared when they are needed.
	insert, update [2]*sql.Stmt
	args           []any
}

// note inserts events, one or eventRows of them, and marks the items of those
// that were not there yet.
func (n *restoredNotes) note(ctx context.Context, events []RestoreEvent) error {
	n.args = n.args[:0]
	for _, e := range events {
		n.args = append(n.args, e.ID, e.Item, e.Actor, cmp.Or(e.Context, "{}"), stamp(e.At))
	}
	result, err := n.run(ctx, &n.insert, `INSERT INTO event (id, item_id, action, actor, context, created_at)
		VALUES `, `(?, ?, 'RESTORE', ?, ?, ?)`, ` ON CONFLICT (id) DO NOTHING`, len(events))
	if err != nil {
		return err
	}
	switch added, err := result.RowsAffected(); {
	case err != nil || added == 0:
		return err
	case added < int64(len(events)):
		if events, err = n.added(ctx, events, added); err != nil {
			return err
		}
		for i := range events {
			if err := n.mark(ctx, events[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	return n.mark(ctx, events)
}

// mark sets when the items of events were restored. Of an item that several
// events are about, which then stand together, the last counts.
func (n *restoredNotes) mark(ctx context.Context, events []RestoreEvent) error {
	n.args = n.args[:2*len(events)]
	for i, e := range slices.Backward(events) {
		at := stamp(e.At)
		if i+1 < len(events) && events[i+1].Item == e.Item {
			at = n.args[2*i+3].(string)
		}
		n.args[2*i], n.args[2*i+1] = e.Item, at
	}
	_, err := n.run(ctx, &n.update, `UPDATE item SET restored_at = e.column2 FROM (VALUES `, `(?, ?)`, `) AS e WHERE item.id = e.column1`, len(events))
	return err
}

// added gives those of the events that the last statement has inserted, which are
// as many as it says: rows are numbered as they come in.
func (n *restoredNotes) added(ctx context.Context, events []RestoreEvent, many int64) (added []RestoreEvent, err error) {
	rows, err := n.tx.QueryContext(ctx, `SELECT id FROM event ORDER BY rowid DESC LIMIT ?`, many)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	fresh := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		fresh[id] = true
	}
	for _, e := range events {
		if fresh[e.ID] {
			delete(fresh, e.ID) // what repeats it in the same statement was not added
			added = append(added, e)
		}
	}
	return added, rows.Err()
}

// run runs a statement for so many rows, of which each stands as row in it.
func (n *restoredNotes) run(ctx context.Context, prepared *[2]*sql.Stmt, before, row, after string, rows int) (sql.Result, error) {
	which := min(rows-1, 1)
	if prepared[which] == nil {
		stmt, err := n.tx.PrepareContext(ctx, before+row+strings.Repeat(", "+row, rows-1)+after) //nolint:sqlclosecheck // close does
		if err != nil {
			return nil, err
		}
		prepared[which] = stmt
	}
	return prepared[which].ExecContext(ctx, n.args...)
}

func (n *restoredNotes) close() {
	for _, stmt := range append(n.insert[:], n.update[:]...) {
		if stmt != nil {
			_ = stmt.Close()
		}
	}
}
