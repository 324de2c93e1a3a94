package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/exhume/exhume/schemas"
)

// ErrNotFound is wrapped by errors about a batch that is not in the ledger.
var ErrNotFound = errors.New("no such batch")

// ErrAmbiguous is wrapped by errors about a reference with which the ids of
// several batches begin.
var ErrAmbiguous = errors.New("ambiguous")

// Latest is the reference to the batch created last, the standing one apart.
const Latest = "latest"

func notFound(ref string) error {
	if ref == Latest {
		return fmt.Errorf("%w: there are no batches yet", ErrNotFound)
	}
	return fmt.Errorf("%w: %q; 'exhume batch list' shows which there are", ErrNotFound, ref)
}

// Batch gives the batch that ref means: an id, the beginning of just one id, or
// Latest. A beginning of several ids is an ErrAmbiguous that lists them.
func (r *Reader) Batch(ctx context.Context, ref string) (schemas.Summary, error) {
	b, err := batchByID(ctx, r.db, ref, "")
	if err == nil || !errors.Is(err, ErrNotFound) {
		return b.Summary, r.named(err)
	}
	if ref == Latest {
		found, err := r.batches(ctx, `WHERE id <> $1 ORDER BY no DESC LIMIT 1`, schemas.Single)
		if err != nil || len(found) == 0 {
			return schemas.Summary{}, cmp.Or(err, notFound(ref))
		}
		return found[0], nil
	}
	if schemas.CheckName(ref) != nil {
		return schemas.Summary{}, notFound(ref)
	}
	const most = 10                                                                                           // candidates to list
	found, err := r.batches(ctx, `WHERE id > $1 AND id < $2 ORDER BY no DESC LIMIT $3`, ref, ref+"~", most+1) // '~' is after all that names have
	switch {
	case err != nil:
		return schemas.Summary{}, err
	case len(found) == 0:
		return schemas.Summary{}, notFound(ref)
	case len(found) > 1:
		return schemas.Summary{}, ambiguous(ref, found, most)
	}
	return found[0], nil
}

func ambiguous(ref string, found []schemas.Summary, most int) error {
	var ids []string
	for _, b := range found {
		ids = append(ids, b.ID)
	}
	if len(ids) > most {
		ids[most] = "…"
	}
	return fmt.Errorf("batch %q is %w: give more of one of %s", ref, ErrAmbiguous, strings.Join(ids, ", "))
}

// Batches gives the batches, newest first, at most limit (all when 0).
func (r *Reader) Batches(ctx context.Context, limit int) ([]schemas.Summary, error) {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	return r.batches(ctx, `ORDER BY no DESC LIMIT $1`, limit)
}

// Active gives the batches that have not ended, oldest first.
func (r *Reader) Active(ctx context.Context) ([]schemas.Summary, error) {
	var states []any
	for _, s := range schemas.ActiveStates() {
		states = append(states, string(s))
	}
	return r.batches(ctx, `WHERE state IN (`+parameters(1, len(states))+`) ORDER BY no`, states...)
}

// parameters are n parameters of a statement in a row, from the first-th on.
func parameters(first, n int) string {
	var p []string
	for i := range n {
		p = append(p, fmt.Sprintf("$%d", first+i))
	}
	return strings.Join(p, ", ")
}

func (r *Reader) batches(ctx context.Context, rest string, args ...any) ([]schemas.Summary, error) {
	rows, err := r.db.query(ctx, `SELECT `+batchColumns+` FROM batch `+rest, args...)
	if err != nil {
		return nil, r.named(err)
	}
	defer func() { _ = rows.Close() }()
	var found []schemas.Summary
	for rows.Next() {
		b, err := scanBatch(rows.Scan)
		if err != nil {
			return nil, r.named(err)
		}
		found = append(found, b.Summary)
	}
	return found, r.named(rows.Err())
}

// named says which ledger an error of its database is about.
func (r *Reader) named(err error) error {
	if err == nil || errors.Is(err, ErrNotFound) {
		return err
	}
	if full(err) {
		err = fmt.Errorf("%w; nothing of this was recorded: free space there, then start again", err)
	}
	return fmt.Errorf("ledger %s: %w", r.name, err)
}

// full says whether there is no room for what was to be written.
func full(err error) bool {
	if e, ok := errors.AsType[*driver.Error](err); ok {
		return e.Code()&0xff == lib.SQLITE_FULL
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "53100"
}

// Audit gives the counts that are kept of a batch, and its results, counted anew.
// If they differ, the ledger was changed by something other than exhume, or is
// damaged.
func (r *Reader) Audit(ctx context.Context, id string) (kept, counted schemas.Counts, err error) {
	err = r.db.snapshot(ctx, func(q querier) error {
		b, err := batchByID(ctx, q, id, "")
		if err != nil {
			return err
		}
		kept = b.Counts
		return q.queryRow(ctx, `SELECT
			count(*) FILTER (WHERE outcome = 'restored'),
			count(*) FILTER (WHERE outcome = 'unchanged'),
			count(*) FILTER (WHERE outcome NOT IN ('restored', 'unchanged', 'skipped', 'cancelled')),
			count(*) FILTER (WHERE outcome = 'skipped'),
			count(*) FILTER (WHERE outcome = 'cancelled'),
			CAST(coalesce(sum(size) FILTER (WHERE outcome = 'restored'), 0) AS bigint)
			FROM result WHERE batch_no = $1`, b.no).
			Scan(&counted.Restored, &counted.Unchanged, &counted.Failed, &counted.Skipped, &counted.Cancelled, &counted.Bytes)
	})
	return kept, counted, r.named(err)
}
