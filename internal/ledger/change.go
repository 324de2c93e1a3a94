package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Change lets decide change a batch, and keeps what it did together with the event
// that it returns: all of it or, on an error, nothing. Kept are the batch's state,
// standing, terms, skips, total, and when it was sealed and ended; decide may
// change nothing else, and nothing at all when it returns nil for no event.
// changed says whether there was one. Of several who change a batch at once, each
// sees what the one before has kept.
//
// An event with eventID that is there already was this change: decide is not
// called, and nothing changes. An empty eventID becomes <batch>:<no>; one that
// looks like that, or is another batch's, is refused.
//
// note is as Note; it may be nil. Its error and that of decide come back as they
// are. Both run inside the transaction, and must not call methods that write to
// this ledger.
func (l *Ledger) Change(ctx context.Context, id, eventID string, decide func(s *schemas.Summary) (*schemas.BatchEvent, error),
	note func(schemas.Summary, schemas.BatchEvent) (schemas.EvidencePosition, error)) (s schemas.Summary, changed bool, err error) {
	if ownIDs.MatchString(eventID) {
		return s, false, fault.New(schemas.CodeBadRequest, "change of batch %s: the ledger itself gives ids like %q; give the command another", id, eventID)
	}
	err = l.inTx(ctx, func(t tx) error {
		b, err := batchByID(ctx, t, id, l.db.dialect().lockRow)
		if err != nil {
			return l.named(err)
		}
		s = b.Summary
		known, err := hasEvent(ctx, t, b, eventID)
		if err != nil || known {
			return l.named(err)
		}
		to := b.Summary
		e, err := decide(&to)
		if err != nil || e == nil {
			return err
		}
		e.ID = eventID
		b.State, b.Standing, b.Terms, b.Skips = to.State, to.Standing, to.Terms, to.Skips
		b.Total, b.SealedAt, b.EndedAt = to.Total, to.SealedAt, to.EndedAt
		if err := b.keep(ctx, t, e); err != nil {
			return l.named(err)
		}
		s, changed = b.Summary, true
		if note == nil {
			return nil
		}
		pos, err := note(s, *e)
		if err != nil {
			return err
		}
		return l.setPosition(ctx, t, pos)
	})
	return s, changed && err == nil, err
}

// hasEvent says whether the batch, which is locked, has an event with this id.
func hasEvent(ctx context.Context, t tx, b batchRow, id string) (bool, error) {
	if id == "" {
		return false, nil
	}
	var batch string
	err := t.queryRow(ctx, `SELECT batch.id FROM event JOIN batch ON batch.no = event.batch_no WHERE event.id = $1`, id).Scan(&batch)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err == nil && batch != b.ID {
		err = fault.New(schemas.CodeBadRequest, "change of batch %s: the id %q is that of a change of batch %s; give each command an id of its own", b.ID, id, batch)
	}
	return err == nil, err
}

// keep stores what may change of a batch, which is locked, and what happened to
// it. The event gets its number. The batch is then as it is stored.
func (b *batchRow) keep(ctx context.Context, t tx, e *schemas.BatchEvent) error {
	text, err := controlText(&b.Batch)
	if err != nil {
		return fmt.Errorf("%s batch %s: %w", e.Change, b.ID, err)
	}
	kept, err := scanBatch(t.queryRow(ctx, `UPDATE batch SET state = $1, control = $2, total = $3, manifest_sha256 = $4, sealed_at = $5, ended_at = $6
		WHERE no = $7 RETURNING `+batchColumns,
		string(b.State), text, b.Total, b.ManifestSHA256, nanos(b.SealedAt), nanos(b.EndedAt), b.no).Scan)
	if err == nil {
		err = addEvent(ctx, t, b.no, e)
	}
	if err != nil {
		return fmt.Errorf("%s batch %s: %w", e.Change, b.ID, err)
	}
	*b = kept
	return nil
}
