package ledger

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/exhume/exhume/schemas"
)

// Reinstate creates a batch that was lost, as it is given, with these events as its
// history, the first of which is that it was opened, or gives the one that has its
// id; created says which. The events keep their ids, and those that the ledger itself
// gave their numbers, so that they do not come again.
func (l *Ledger) Reinstate(ctx context.Context, b schemas.Batch, events []schemas.BatchEvent) (s schemas.Summary, created bool, err error) {
	err = l.inTx(ctx, func(t tx) error {
		row, fresh, err := insertBatch(ctx, t, b)
		if err == nil && fresh {
			err = restoreEvents(ctx, t, row, events)
		}
		if err != nil {
			return l.named(fmt.Errorf("reinstate batch %s: %w", b.ID, err))
		}
		s, created = row.Summary, fresh
		return nil
	})
	return s, created && err == nil, err
}

func restoreEvents(ctx context.Context, t tx, b batchRow, events []schemas.BatchEvent) error {
	no := int64(0)
	for _, e := range events {
		no++
		if e.Change == schemas.ChangeOpen {
			e.ID = ownID(b.ID, e.Change)
		}
		if tail, own := strings.CutPrefix(e.ID, b.ID+":"); own {
			if given, err := strconv.ParseInt(tail, 10, 64); err == nil {
				no = max(no, given)
			}
		}
		e.No = no
		body, err := jsonText(e)
		if err != nil {
			return err
		}
		_, err = t.exec(ctx, `INSERT INTO event (batch_no, no, id, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, b.no, no, e.ID, body)
		if err != nil {
			return err
		}
	}
	return nil
}

// Conclude ends a batch in the state in which it is known to have ended, whatever
// its results are now; one that has ended stays as it is. A batch that is not sealed
// is sealed with the total and the manifest's digest.
func (l *Ledger) Conclude(ctx context.Context, id string, to schemas.State, total int64, manifestSHA256 string, at time.Time) (s schemas.Summary, err error) {
	err = l.inTx(ctx, func(t tx) error {
		b, err := batchByID(ctx, t, id, l.db.dialect().lockRow)
		if err != nil {
			return l.named(err)
		}
		if s = b.Summary; s.State.Final() {
			return nil
		}
		if b.SealedAt.IsZero() {
			b.Total, b.ManifestSHA256, b.SealedAt = total, manifestSHA256, at
		}
		was := b.Standing
		b.State, b.EndedAt, b.Standing = to, at, schemas.Standing{Since: at}
		if was.By == "" {
			b.Note = was.Note // nobody's words, but what is to be known of the batch
		}
		switch to {
		case schemas.StateSucceeded:
			b.Reason = schemas.ReasonAllRestored
		case schemas.StatePartial:
			b.Reason = schemas.ReasonSomeLeft
		case schemas.StateFailed:
			b.Reason = schemas.ReasonNoneRestored
		default: // whoever stopped it has ended it
			b.By, b.Note = was.By, was.Note
			b.Reason = schemas.ReasonCancelled
			if to == schemas.StateAborted {
				b.Reason = schemas.ReasonAborted
				if b.By == "" {
					b.Reason = schemas.ReasonTooManyFailures
				}
			}
		}
		e := schemas.BatchEvent{
			ID: ownID(id, schemas.ChangeComplete), Batch: id, Change: schemas.ChangeComplete, From: s.State, To: to,
			Reason: b.Reason, At: at,
		}
		if err := b.keep(ctx, t, &e); err != nil {
			return l.named(err)
		}
		s = b.Summary
		return nil
	})
	return s, err
}

// Highest is the highest index of a batch's results, -1 when there are none.
func (r *Reader) Highest(ctx context.Context, id string) (index int64, err error) {
	b, err := batchByID(ctx, r.db, id, "")
	if err == nil {
		err = r.db.queryRow(ctx, `SELECT coalesce(max(idx), -1) FROM result WHERE batch_no = $1`, b.no).Scan(&index)
	}
	return index, r.named(err)
}
