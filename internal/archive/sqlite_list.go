package archive

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Times are stored as text in two forms, 'YYYY-MM-DD HH:MM:SS' and
// 'YYYY-MM-DDTHH:MM:SSZ', which do not compare with each other as text; SQLite's
// datetime() makes one of both. Their dates do compare, so the bare column, which
// has an index, still serves to leave out older days.
const archivedAt = `coalesce(datetime(i.archived_at), i.archived_at)`

const itemColumns = `
       i.id, i.repo, i.path, i.commit_sha, i.reason, i.archived_by, i.archived_at, i.tombstone_id, i.kind,
       i.legal_hold, coalesce(a.content_sha256, ''), coalesce(a.size_bytes, 0), coalesce(a.compression, ''),
       coalesce(octet_length(a.blob_bytes), -1), coalesce(a.object_url, ''),
       (SELECT json_group_array(tag ORDER BY tag) FROM tag WHERE tag.item_id = i.id)`

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
	return nil
}

// List goes through the items that q chooses, newest first. After an error the
// sequence ends.
func (r *Reader) List(ctx context.Context, q Query) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		query, args := listSQL(q)
		rows, err := r.db.QueryContext(ctx, query, args...)
		if err != nil {
			yield(Item{}, r.fault(ctx, "listing items", err))
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var row itemRow
			err := rows.Scan(row.targets()...)
			if err == nil {
				err = row.finish()
			}
			if !yield(row.Item, r.fault(ctx, "listing items", err)) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Item{}, r.fault(ctx, "listing items", err))
		}
	}
}

// listSQL sorts narrow rows first and fetches the rest of the chosen ones only.
func listSQL(q Query) (string, []any) {
	var where []string
	var args []any
	if q.Repo != "" {
		where, args = append(where, `i.repo = ?`), append(args, q.Repo)
	}
	if !q.Since.IsZero() {
		since := q.Since.UTC()
		// A day earlier, should there be times with an offset.
		where = append(where, `i.archived_at >= ?`, archivedAt+` >= ?`)
		args = append(args, since.AddDate(0, 0, -1).Format(time.DateOnly), since.Format(time.DateTime))
	}
	filter := ""
	if len(where) > 0 {
		filter = ` WHERE ` + strings.Join(where, ` AND `)
	}
	limit := -1
	if q.Limit > 0 {
		limit = q.Limit
	}
	return `
WITH page AS (SELECT i.rowid AS row, ` + archivedAt + ` AS at FROM item AS i` + filter + ` ORDER BY at DESC, row DESC LIMIT ?)
SELECT` + itemColumns + `
  FROM page CROSS JOIN item AS i ON i.rowid = page.row
  LEFT JOIN artifact AS a ON a.id = i.artifact_id
 ORDER BY page.at DESC, page.row DESC`, append(args, limit)
}

// Show tells all about one item; CodeTombstoneNotFound if there is none.
func (r *Reader) Show(ctx context.Context, tombstone string) (Detail, error) {
	var d Detail
	var row itemRow
	var metadata string
	var mime, driver, created sql.NullString
	targets := append(row.targets(), &d.Language, &d.ArtifactID, &metadata, &d.DeleteAfter, &d.RestoredAt,
		&mime, &driver, &d.Artifact.ObjectURL, &created)
	err := r.db.QueryRowContext(ctx, `SELECT`+itemColumns+`,
       i.language, i.artifact_id, i.metadata, i.delete_after, i.restored_at,
       a.mime_type, a.storage_driver, a.object_url, a.created_at
  FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id
 WHERE i.tombstone_id = ?1`, tombstone).Scan(targets...)
	if errors.Is(err, sql.ErrNoRows) {
		return Detail{}, fault.New(schemas.CodeTombstoneNotFound, "tombstone %q: the archive has no such item", tombstone)
	}
	if err == nil {
		err = row.finish()
	}
	if err == nil {
		d.Item = row.Item
		d.Events, err = r.events(ctx, d.ID)
	}
	if err != nil {
		return Detail{}, r.fault(ctx, "showing an item", err)
	}
	d.Metadata = jsonValue(metadata)
	if d.RestoredAt != nil {
		*d.RestoredAt = normalStamp(*d.RestoredAt)
	}
	d.Artifact.ID, d.Artifact.SHA256, d.Artifact.Size = d.ArtifactID, d.SHA256, d.Size
	d.Artifact.Codec, d.Artifact.Stored = d.Codec, d.Stored
	d.Artifact.MIME, d.Artifact.StorageDriver, d.Artifact.CreatedAt = mime.String, driver.String, normalStamp(created.String)
	return d, nil
}

// events are the events of one item, oldest first.
func (r *Reader) events(ctx context.Context, item string) ([]Event, error) {
	rows, err := r.db.QueryContext(ctx, `
SELECT action, actor, context, created_at FROM event WHERE item_id = ?1
 ORDER BY coalesce(datetime(created_at), created_at), rowid`, item)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	events := []Event{}
	for rows.Next() {
		var e Event
		var about string
		if err := rows.Scan(&e.Action, &e.Actor, &about, &e.CreatedAt); err != nil {
			return nil, err
		}
		e.Context, e.CreatedAt = jsonValue(about), normalStamp(e.CreatedAt)
		events = append(events, e)
	}
	return events, rows.Err()
}

// Stats counts what the archive holds. It goes through all of its items, but
// not through their bytes.
func (r *Reader) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := r.db.QueryRowContext(ctx, `
SELECT * FROM
  (SELECT count(*), coalesce(sum(a.blob_bytes IS NOT NULL), 0), coalesce(sum(a.blob_bytes IS NULL AND a.object_url GLOB '`+purgeMark+`*'), 0)
     FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id),
  (SELECT count(*), coalesce(sum(size_bytes) FILTER (WHERE blob_bytes IS NOT NULL), 0), coalesce(sum(octet_length(blob_bytes)), 0)
     FROM artifact)`).Scan(&s.Items, &s.Retrievable, &s.Purged, &s.Artifacts, &s.RawBytes, &s.StoredBytes)
	if err != nil {
		return Stats{}, r.fault(ctx, "counting", err)
	}
	s.Missing = s.Items - s.Retrievable - s.Purged
	return s, nil
}
