package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/exhume/exhume/schemas"
)

// batchColumns are the columns that scanBatch reads, in its order.
const batchColumns = `no, id, state, root, overwrite, mode, actor, manifest, manifest_sha256, archive, total,
	created_at, sealed_at, ended_at, restored, unchanged, failed, skipped, cancelled, bytes, control`

// batchRow is a batch and its number, the key of its results.
type batchRow struct {
	no int64
	schemas.Summary
}

func scanBatch(scan func(...any) error) (batchRow, error) {
	var b batchRow
	var created, sealed, ended *int64
	var control string
	err := scan(&b.no, &b.ID, (*string)(&b.State), &b.Settings.Root, (*string)(&b.Settings.Overwrite), &b.Settings.Mode,
		&b.Actor, &b.Manifest, &b.ManifestSHA256, &b.Archive, &b.Total, &created, &sealed, &ended,
		&b.Counts.Restored, &b.Counts.Unchanged, &b.Counts.Failed, &b.Counts.Skipped, &b.Counts.Cancelled, &b.Counts.Bytes, &control)
	if err != nil {
		return b, err
	}
	b.CreatedAt, b.SealedAt, b.EndedAt = instant(created), instant(sealed), instant(ended)
	return b, setControl(&b.Batch, control)
}

// nanos is how a time is stored, nil for none.
func nanos(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.UnixNano()
	return &n
}

func instant(n *int64) time.Time {
	if n == nil {
		return time.Time{}
	}
	return time.Unix(0, *n).UTC()
}

// batchByID gives the batch with exactly this id, or ErrNotFound; lock is empty,
// or dialect.lockRow.
func batchByID(ctx context.Context, q querier, id, lock string) (batchRow, error) {
	b, err := scanBatch(q.queryRow(ctx, `SELECT `+batchColumns+` FROM batch WHERE id = $1`+lock, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return b, notFound(id)
	}
	return b, err
}

// Note writes evidence of what a transaction is about to commit, as the last
// thing inside it, and returns the position in the evidence that the ledger is
// to remember. It must not call methods that write to the ledger. Its error
// undoes the transaction and comes back as it is.
type Note = func(s schemas.Summary) (schemas.EvidencePosition, error)

// Create inserts the batch, without counts, and notes it, or gives the one that
// has its id already; created says which. An empty state is StateOpen. Of
// several processes that create the same batch at once, one does.
func (l *Ledger) Create(ctx context.Context, b schemas.Batch, note Note) (s schemas.Summary, created bool, err error) {
	if err := schemas.CheckName(b.ID); err != nil && b.ID != schemas.Single {
		return s, false, fmt.Errorf("batch %w", err)
	}
	if b.State == "" {
		b.State = schemas.StateOpen
	}
	err = l.inTx(ctx, func(t tx) error {
		row, fresh, err := insertBatch(ctx, t, b)
		if err == nil && fresh {
			err = addEvent(ctx, t, row.no, &schemas.BatchEvent{
				ID: ownID(b.ID, schemas.ChangeOpen), Batch: b.ID, Change: schemas.ChangeOpen, To: b.State, Reason: b.Reason,
				By: b.Actor, Note: b.Note, At: row.CreatedAt,
			})
		}
		if err != nil {
			return fmt.Errorf("create batch %s: %w", b.ID, err)
		}
		s, created = row.Summary, fresh
		if !created || note == nil {
			return nil
		}
		pos, err := note(s)
		if err != nil {
			return err
		}
		return l.setPosition(ctx, t, pos)
	})
	return s, created && err == nil, err
}

// insertBatch inserts the batch, unless its id is there, and gives the batch that is
// there then.
func insertBatch(ctx context.Context, t tx, b schemas.Batch) (row batchRow, fresh bool, err error) {
	text, err := controlText(&b)
	if err != nil {
		return row, false, err
	}
	n, err := t.exec(ctx, `INSERT INTO batch (id, state, root, overwrite, mode, actor, manifest, manifest_sha256,
		archive, total, created_at, sealed_at, ended_at, control) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
		ON CONFLICT DO NOTHING`,
		b.ID, string(b.State), b.Settings.Root, string(b.Settings.Overwrite), b.Settings.Mode, b.Actor, b.Manifest, b.ManifestSHA256,
		b.Archive, b.Total, nanos(b.CreatedAt), nanos(b.SealedAt), nanos(b.EndedAt), text)
	if err != nil {
		return row, false, err
	}
	row, err = batchByID(ctx, t, b.ID, "")
	return row, n > 0 && err == nil, err
}

// Seal gives a batch its total and its manifest's digest. Sealing it again with
// the same figures changes nothing; with others it is an error, and so is a total
// that leaves out items with results.
//
// A producer does not know that its batch was cancelled or aborted meanwhile, and
// whoever did that may have sealed it with what had been published by then. So
// sealing such a batch when it has ended, or has been sealed, changes nothing,
// whatever the figures, and gives the batch: its state says it all.
func (l *Ledger) Seal(ctx context.Context, id string, total int64, manifestSHA256 string, at time.Time) (s schemas.Summary, err error) {
	err = l.inTx(ctx, func(t tx) error {
		b, err := batchByID(ctx, t, id, l.db.dialect().lockRow)
		if err != nil {
			return err
		}
		s = b.Summary
		sealed := !b.SealedAt.IsZero()
		stopped := b.State == schemas.StateCancelled || b.State == schemas.StateAborted
		switch {
		case stopped, sealed && b.Stopping(), sealed && b.Total == total && b.ManifestSHA256 == manifestSHA256:
			return nil
		case sealed:
			return fmt.Errorf("batch %s is sealed with %d items of manifest %q, not with %d of %q; submit the other manifest as another batch",
				id, b.Total, b.ManifestSHA256, total, manifestSHA256)
		case b.State.Final():
			return fmt.Errorf("batch %s cannot be sealed: it has ended (%s)", id, b.State)
		case total < 0:
			return fmt.Errorf("batch %s cannot be sealed with %d items", id, total)
		}
		var beyond int64
		err = t.queryRow(ctx, `SELECT idx FROM result WHERE batch_no = $1 AND idx >= $2 LIMIT 1`, b.no, total).Scan(&beyond)
		if err == nil {
			return fmt.Errorf("batch %s cannot be sealed with %d items: there is a result of item %d", id, total, beyond)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("seal batch %s: %w", id, err)
		}
		b.Total, b.ManifestSHA256, b.SealedAt = total, manifestSHA256, at
		if err := b.apply(ctx, t, schemas.ChangeSeal, at); err != nil {
			return err
		}
		s = b.Summary
		return nil
	})
	return s, err
}

// apply brings a batch, which is locked, to the state that a change leads to
// which happens once, and keeps that and all that was changed of the batch.
func (b *batchRow) apply(ctx context.Context, t tx, on schemas.Change, at time.Time) error {
	e, ok := b.Apply(on, schemas.Standing{}, at)
	if !ok {
		return fmt.Errorf("%s batch %s: a batch that is %s does not allow that", on, b.ID, b.State)
	}
	e.ID = ownID(b.ID, on)
	return b.keep(ctx, t, &e)
}

// End ends batches together and gives those that it ended: those that have not
// ended yet and of which ready says that their results are complete. They are
// noted together, as Note does, in the order of their ids. Of several processes
// that end a batch at once, one does.
func (l *Ledger) End(ctx context.Context, ids []string, ready func(schemas.Summary) bool, at time.Time,
	note func([]schemas.Summary) (schemas.EvidencePosition, error)) (ended []schemas.Summary, err error) {
	err = l.inTx(ctx, func(t tx) error {
		// Everybody locks in the order of the ids.
		for _, id := range slices.Sorted(slices.Values(ids)) {
			b, err := batchByID(ctx, t, id, l.db.dialect().lockRow)
			if err != nil {
				return err
			}
			if b.State.Final() || !ready(b.Summary) {
				continue
			}
			if err := b.apply(ctx, t, schemas.ChangeComplete, at); err != nil {
				return err
			}
			if err := dropKept(ctx, t, b); err != nil {
				return err
			}
			ended = append(ended, b.Summary)
		}
		if len(ended) == 0 || note == nil {
			return nil
		}
		pos, err := note(ended)
		if err != nil {
			return err
		}
		return l.setPosition(ctx, t, pos)
	})
	if err != nil {
		return nil, err
	}
	return ended, nil
}
