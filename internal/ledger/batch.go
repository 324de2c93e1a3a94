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
	created_at, sealed_at, ended_at, restored, unchanged, failed, skipped, cancelled, bytes`

// batchRow is a batch and its number, the key of its results.
type batchRow struct {
	no int64
	schemas.Summary
}

func scanBatch(scan func(...any) error) (batchRow, error) {
	var b batchRow
	var created, sealed, ended *int64
	err := scan(&b.no, &b.ID, (*string)(&b.State), &b.Settings.Root, (*string)(&b.Settings.Overwrite), &b.Settings.Mode,
		&b.Actor, &b.Manifest, &b.ManifestSHA256, &b.Archive, &b.Total, &created, &sealed, &ended,
		&b.Counts.Restored, &b.Counts.Unchanged, &b.Counts.Failed, &b.Counts.Skipped, &b.Counts.Cancelled, &b.Counts.Bytes)
	b.CreatedAt, b.SealedAt, b.EndedAt = instant(created), instant(sealed), instant(ended)
	return b, err
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
		n, err := t.exec(ctx, `INSERT INTO batch (id, state, root, overwrite, mode, actor, manifest, manifest_sha256,
			archive, total, created_at, sealed_at, ended_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING`,
			b.ID, string(b.State), b.Settings.Root, string(b.Settings.Overwrite), b.Settings.Mode, b.Actor, b.Manifest, b.ManifestSHA256,
			b.Archive, b.Total, nanos(b.CreatedAt), nanos(b.SealedAt), nanos(b.EndedAt))
		if err != nil {
			return fmt.Errorf("create batch %s: %w", b.ID, err)
		}
		created = n == 1
		row, err := batchByID(ctx, t, b.ID, "")
		s = row.Summary
		if err != nil || !created || note == nil {
			return err
		}
		pos, err := note(s)
		if err != nil {
			return err
		}
		return l.setPosition(ctx, t, pos)
	})
	return s, created && err == nil, err
}

// Seal gives an open batch its total and its manifest's digest, and sets it
// running. Sealing it again with the same figures changes nothing; with others
// it is an error, and so is a total that leaves out items with results.
func (l *Ledger) Seal(ctx context.Context, id string, total int64, manifestSHA256 string, at time.Time) (s schemas.Summary, err error) {
	err = l.inTx(ctx, func(t tx) error {
		b, err := batchByID(ctx, t, id, l.db.dialect().lockRow)
		if err != nil {
			return err
		}
		s = b.Summary
		switch {
		case !b.SealedAt.IsZero() && b.Total == total && b.ManifestSHA256 == manifestSHA256:
			return nil
		case !b.SealedAt.IsZero():
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
		b, err = scanBatch(t.queryRow(ctx, `UPDATE batch SET state = $1, total = $2, manifest_sha256 = $3, sealed_at = $4
			WHERE no = $5 RETURNING `+batchColumns, string(schemas.StateRunning), total, manifestSHA256, nanos(at), b.no).Scan)
		if err != nil {
			return fmt.Errorf("seal batch %s: %w", id, err)
		}
		s = b.Summary
		return nil
	})
	return s, err
}

// End ends batches together and gives those that it ended. For each that has not
// ended yet, state says the final state, or nothing to leave it as it is. They
// are noted together, as Note does, in the order of their ids. Of several
// processes that end a batch at once, one does.
func (l *Ledger) End(ctx context.Context, ids []string, state func(schemas.Summary) schemas.State, at time.Time,
	note func([]schemas.Summary) (schemas.EvidencePosition, error)) (ended []schemas.Summary, err error) {
	err = l.inTx(ctx, func(t tx) error {
		// Everybody locks in the order of the ids.
		for _, id := range slices.Sorted(slices.Values(ids)) {
			b, err := batchByID(ctx, t, id, l.db.dialect().lockRow)
			if err != nil {
				return err
			}
			if b.State.Final() {
				continue
			}
			to := state(b.Summary)
			if to == "" {
				continue
			}
			if !to.Final() {
				return fmt.Errorf("batch %s cannot end in the state %q", id, to)
			}
			b, err = scanBatch(t.queryRow(ctx, `UPDATE batch SET state = $1, ended_at = $2 WHERE no = $3 RETURNING `+batchColumns,
				string(to), nanos(at), b.no).Scan)
			if err != nil {
				return fmt.Errorf("end batch %s: %w", id, err)
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
