package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/exhume/exhume/schemas"
)

// addEvent gives the event its number and keeps it. The batch must be locked. An
// event without an id gets <batch>:<no>.
func addEvent(ctx context.Context, t tx, batchNo int64, e *schemas.BatchEvent) error {
	if err := t.queryRow(ctx, `SELECT coalesce(max(no), 0) + 1 FROM event WHERE batch_no = $1`, batchNo).Scan(&e.No); err != nil {
		return err
	}
	if e.ID == "" {
		e.ID = fmt.Sprintf("%s:%d", e.Batch, e.No)
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, `INSERT INTO event (batch_no, no, id, body) VALUES ($1, $2, $3, $4)`, batchNo, e.No, e.ID, string(body))
	return err
}

// ownID is the id of an event that happens once to a batch, without a command.
func ownID(batch string, on schemas.Change) string { return batch + ":" + string(on) }

// ownIDs are the ids that the ledger itself gives; see ownID and addEvent. Who
// took one for a command would keep that event from being recorded, and with it
// its batch from going on.
var ownIDs = regexp.MustCompile(`^[A-Za-z0-9_-]+:(open|seal|begin|complete|[0-9]+)$`)

// Events gives the newest events of a batch, at most limit (all when 0), oldest
// first.
func (r *Reader) Events(ctx context.Context, id string, limit int) ([]schemas.BatchEvent, error) {
	b, err := batchByID(ctx, r.db, id, "")
	if err != nil {
		return nil, r.named(err)
	}
	if limit <= 0 {
		limit = math.MaxInt64
	}
	events, err := r.events(ctx, `WHERE batch_no = $1 ORDER BY no DESC LIMIT $2`, b.no, limit)
	slices.Reverse(events)
	return events, err
}

// Untold gives the events that nobody has said to be told, at most limit, oldest
// first. Several who ask at once get the same.
func (r *Reader) Untold(ctx context.Context, limit int) ([]schemas.BatchEvent, error) {
	return r.events(ctx, `WHERE told_at IS NULL ORDER BY seq LIMIT $1`, limit)
}

func (r *Reader) events(ctx context.Context, rest string, args ...any) (events []schemas.BatchEvent, err error) {
	err = r.db.inOrder(ctx, func(q querier) error {
		found, err := q.query(ctx, `SELECT body FROM event `+rest, args...)
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		for found.Next() {
			var body string
			if err := found.Scan(&body); err != nil {
				return err
			}
			var e schemas.BatchEvent
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				return fmt.Errorf("event %s: %w", body, err)
			}
			events = append(events, e)
		}
		return found.Err()
	})
	return events, r.named(err)
}

// Told notes that the events with these ids were told. Those that were before
// keep their time.
func (l *Ledger) Told(ctx context.Context, ids []string, at time.Time) error {
	return l.inTx(ctx, func(t tx) error {
		for _, id := range slices.Sorted(slices.Values(ids)) { // everybody locks in this order
			if _, err := t.exec(ctx, `UPDATE event SET told_at = $1 WHERE id = $2 AND told_at IS NULL`, nanos(at), id); err != nil {
				return l.named(fmt.Errorf("note that event %s was told: %w", id, err))
			}
		}
		return nil
	})
}

// TellFromNow notes of all events so far that they were told, so that who begins
// to tell them does not begin with old ones.
func (l *Ledger) TellFromNow(ctx context.Context, at time.Time) error {
	return l.inTx(ctx, func(t tx) error {
		if _, err := t.exec(ctx, `UPDATE event SET told_at = $1 WHERE told_at IS NULL`, nanos(at)); err != nil {
			return l.named(fmt.Errorf("note that all events were told: %w", err))
		}
		return nil
	})
}
