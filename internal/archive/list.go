package archive

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// questions are what a backend can be asked about items, in its own SQL. Times
// in the answers are text that normalStamp understands, tags a JSON array.
type questions interface {
	query(ctx context.Context, query string, args ...any) (rows, error)
	// listSQL selects itemColumns of the items that q chooses, newest first.
	listSQL(q Query) (query string, args []any)
	// showSQL selects itemColumns and what Show adds, of one item by its key.
	showSQL() string
	// eventsSQL selects action, actor, context and time of an item's events by
	// its id, oldest first.
	eventsSQL() string
	// statsSQL counts items, those with bytes, those purged; artifacts, their
	// bytes and their stored bytes.
	statsSQL() string
	// key is a tombstone as the archive spells it, or says that it cannot be
	// there.
	key(tombstone string) (string, bool)
}

// rows are the answers to a query, as database/sql has them.
type rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// querier is a database, a connection or a transaction of database/sql.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// ask is db.QueryContext, whose rows are left to the caller.
func ask(ctx context.Context, db querier, query string, args ...any) (rows, error) {
	return db.QueryContext(ctx, query, args...) //nolint:rowserrcheck // the caller's
}

// itemRow is a row of itemColumns: targets is where it is scanned to, and finish
// completes the item afterwards.
type itemRow struct {
	Item
	url, tags string
}

func (r *itemRow) targets() []any {
	return []any{&r.ID, &r.Repo, &r.Path, &r.Commit, &r.Reason, &r.ArchivedBy, &r.ArchivedAt, &r.Tombstone, &r.Kind,
		&r.LegalHold, &r.SHA256, &r.Size, &r.Codec, &r.Stored, &r.url, &r.tags}
}

func (r *itemRow) finish() error {
	r.ArchivedAt = normalStamp(r.ArchivedAt)
	r.State = StateOf(r.Stored, r.url)
	if err := json.Unmarshal([]byte(r.tags), &r.Tags); err != nil {
		return fmt.Errorf("tags of item %s: %w", r.ID, err)
	}
	slices.Sort(r.Tags)
	return nil
}

// List goes through the items that q chooses, newest first. After an error the
// sequence ends.
func (r *Reader) List(ctx context.Context, q Query) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		globs, err := parseGlobs(q.Paths)
		if err != nil {
			yield(Item{}, err)
			return
		}
		asked, left := q, q.Limit
		if len(globs) > 0 {
			asked.Limit = 0 // the database does not know what matches
		}
		query, args := r.source.listSQL(asked)
		err = r.each(ctx, query, args, func(rows rows) (bool, error) {
			var row itemRow
			if err := rows.Scan(row.targets()...); err != nil {
				return false, err
			}
			if !globs.match(row.Path) {
				return true, nil
			}
			if err := row.finish(); err != nil {
				return false, err
			}
			left-- // below 0 from the first on where there is no limit
			return yield(row.Item, nil) && left != 0, nil
		})
		if err != nil {
			yield(Item{}, r.source.fault(ctx, "listing items", err))
		}
	}
}

// each goes through the rows of a query until row says that it is enough.
func (r *Reader) each(ctx context.Context, query string, args []any, row func(rows) (more bool, err error)) error {
	rows, err := r.source.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if more, err := row(rows); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

// Show tells all about one item; CodeTombstoneNotFound if there is none.
func (r *Reader) Show(ctx context.Context, tombstone string) (Detail, error) {
	unknown := fault.New(schemas.CodeTombstoneNotFound, "tombstone %q: the archive has no such item", tombstone)
	key, ok := r.source.key(tombstone)
	if !ok {
		return Detail{}, unknown
	}
	d, found, err := r.item(ctx, key)
	if err == nil && found {
		d.Events, err = r.events(ctx, d.ID)
	}
	if err != nil {
		return Detail{}, r.source.fault(ctx, "showing an item", err)
	}
	if !found {
		return Detail{}, unknown
	}
	return d, nil
}

// item is all but the events.
func (r *Reader) item(ctx context.Context, key string) (d Detail, found bool, err error) {
	var row itemRow
	var metadata string
	var mime, driver, created sql.NullString
	targets := append(row.targets(), &d.Language, &d.ArtifactID, &metadata, &d.DeleteAfter, &d.RestoredAt,
		&mime, &driver, &d.Artifact.ObjectURL, &created)
	err = r.each(ctx, r.source.showSQL(), []any{key}, func(rows rows) (bool, error) {
		found = true
		if err := rows.Scan(targets...); err != nil {
			return false, err
		}
		return false, row.finish()
	})
	d.Item, d.Metadata = row.Item, jsonValue(metadata)
	for _, at := range []*string{d.DeleteAfter, d.RestoredAt} {
		if at != nil {
			*at = normalStamp(*at)
		}
	}
	d.Artifact.ID, d.Artifact.SHA256, d.Artifact.Size = d.ArtifactID, d.SHA256, d.Size
	d.Artifact.Codec, d.Artifact.Stored = d.Codec, d.Stored
	d.Artifact.MIME, d.Artifact.StorageDriver, d.Artifact.CreatedAt = mime.String, driver.String, normalStamp(created.String)
	return d, found, err
}

// events are the events of one item, oldest first.
func (r *Reader) events(ctx context.Context, item string) ([]Event, error) {
	events := []Event{}
	err := r.each(ctx, r.source.eventsSQL(), []any{item}, func(rows rows) (bool, error) {
		var e Event
		var about string
		err := rows.Scan(&e.Action, &e.Actor, &about, &e.CreatedAt)
		e.Context, e.CreatedAt = jsonValue(about), normalStamp(e.CreatedAt)
		events = append(events, e)
		return true, err
	})
	return events, err
}

// Stats counts what the archive holds. It goes through all of its items, but
// not through their bytes, except that MariaDB reads those to measure them.
func (r *Reader) Stats(ctx context.Context) (s Stats, err error) {
	err = r.each(ctx, r.source.statsSQL(), nil, func(rows rows) (bool, error) {
		return false, rows.Scan(&s.Items, &s.Retrievable, &s.Purged, &s.Artifacts, &s.RawBytes, &s.StoredBytes)
	})
	if err != nil {
		return Stats{}, r.source.fault(ctx, "counting", err)
	}
	s.Missing = s.Items - s.Retrievable - s.Purged
	return s, nil
}
