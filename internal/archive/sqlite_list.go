package archive

import (
	"context"
	"time"
)

// Times are stored as text in two forms, 'YYYY-MM-DD HH:MM:SS' and
// 'YYYY-MM-DDTHH:MM:SSZ', which do not compare with each other as text; SQLite's
// datetime() makes one of both. Their dates do compare, so the bare column, which
// has an index, still serves to leave out older days.
const sqliteArchivedAt = `coalesce(datetime(i.archived_at), i.archived_at)`

const sqliteItemColumns = `
       i.id, i.repo, i.path, i.commit_sha, i.reason, i.archived_by, i.archived_at, i.tombstone_id, i.kind,
       i.legal_hold, coalesce(a.content_sha256, ''), coalesce(a.size_bytes, 0), coalesce(a.compression, ''),
       coalesce(octet_length(a.blob_bytes), -1), coalesce(a.object_url, ''),
       (SELECT json_group_array(tag) FROM tag WHERE tag.item_id = i.id)`

func (r *sqliteReader) query(ctx context.Context, query string, args ...any) (rows, error) {
	return ask(ctx, r.db, query, args...)
}

// listSQL sorts narrow rows first and fetches the rest of the chosen ones only.
func (*sqliteReader) listSQL(q Query) (string, []any) {
	f := newFilter(q, same, sqliteBegins)
	// A day more on either side, should there be times with an offset.
	if !q.Since.IsZero() {
		since := q.Since.UTC()
		f.add(`i.archived_at >= ? AND `+sqliteArchivedAt+` >= ?`, since.AddDate(0, 0, -1).Format(time.DateOnly), since.Format(time.DateTime))
	}
	if !q.Until.IsZero() {
		until := q.Until.UTC()
		f.add(`i.archived_at < ? AND `+sqliteArchivedAt+` < ?`, until.AddDate(0, 0, 2).Format(time.DateOnly), until.Format(time.DateTime))
	}
	limit := -1
	if q.Limit > 0 {
		limit = q.Limit
	}
	return `
WITH page AS (SELECT i.rowid AS row, ` + sqliteArchivedAt + ` AS at FROM item AS i` + f.where() + ` ORDER BY at DESC, row DESC LIMIT ?)
SELECT` + sqliteItemColumns + `
  FROM page CROSS JOIN item AS i ON i.rowid = page.row
  LEFT JOIN artifact AS a ON a.id = i.artifact_id
 ORDER BY page.at DESC, page.row DESC`, append(f.args, limit)
}

// sqliteBegins is a range, for which there is an index. The value is not empty.
func sqliteBegins(column, value string) (string, []any) {
	last := len(value) - 1
	end := value[:last] + string([]byte{value[last] + 1}) // bytes, as SQLite compares
	return column + ` >= ? AND ` + column + ` < ?`, []any{value, end}
}

func (*sqliteReader) showSQL() string {
	return `SELECT` + sqliteItemColumns + `,
       i.language, i.artifact_id, i.metadata, i.delete_after, i.restored_at,
       a.mime_type, a.storage_driver, a.object_url, a.created_at
  FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id
 WHERE i.tombstone_id = ?1`
}

func (*sqliteReader) eventsSQL() string {
	return `
SELECT action, actor, context, created_at FROM event WHERE item_id = ?1
 ORDER BY coalesce(datetime(created_at), created_at), rowid`
}

func (*sqliteReader) statsSQL() string {
	return `
SELECT * FROM
  (SELECT count(*), coalesce(sum(a.blob_bytes IS NOT NULL), 0), coalesce(sum(a.blob_bytes IS NULL AND a.object_url GLOB '` + purgeMark + `*'), 0)
     FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id),
  (SELECT count(*), coalesce(sum(size_bytes) FILTER (WHERE blob_bytes IS NOT NULL), 0), coalesce(sum(octet_length(blob_bytes)), 0)
     FROM artifact)`
}

func (*sqliteReader) key(tombstone string) (string, bool) { return tombstone, true }
