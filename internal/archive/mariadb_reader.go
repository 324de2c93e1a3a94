package archive

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"time"

	"github.com/exhume/exhume/schemas"
)

const (
	// To be followed by a list of ids.
	mariadbLookup = `
SELECT i.tombstone_id, i.id, i.repo, i.path, i.artifact_id,
       coalesce(a.content_sha256, ''), coalesce(a.size_bytes, 0), coalesce(a.compression, ''),
       coalesce(octet_length(a.blob_bytes), -1), coalesce(a.object_url, '')
  FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id
 WHERE i.tombstone_id IN `

	// As above.
	mariadbBlobs = `SELECT id, blob_bytes FROM artifact WHERE blob_bytes IS NOT NULL AND id IN `

	// A stream reads a version of the bytes that has the length and the codec
	// that were looked up, or ends.
	mariadbSlice = `
SELECT CASE WHEN octet_length(blob_bytes) = ? AND compression = ? THEN substring(blob_bytes, ?, ?) END, blob_bytes IS NOT NULL
  FROM artifact WHERE id = ?`
)

// mariadbPiece is how many stored bytes a stream asks for at a time. MariaDB reads
// all of an artifact's bytes to cut a piece out, so that small pieces take long:
// 60 MiB in pieces of 1 MiB took 11.6 s, in pieces of 8 MiB 1.4 s.
const mariadbPiece = 8 << 20

func (m *mariadb) query(ctx context.Context, query string, args ...any) (rows, error) {
	return ask(ctx, m.db, query, args...)
}

func (m *mariadb) lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error) {
	wanted := spell(tombstones)
	if len(wanted) == 0 {
		return nil, ctx.Err()
	}
	query, args := in(mariadbLookup, wanted.list())
	rows, err := m.query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return wanted.scanArtifacts(rows)
}

func (m *mariadb) blobs(ctx context.Context, artifacts []string, yield func(id string, blob []byte) error) error {
	wanted := spell(artifacts)
	if len(wanted) == 0 {
		return ctx.Err()
	}
	query, args := in(mariadbBlobs, wanted.list())
	rows, err := m.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id string
		var blob sql.RawBytes
		if err := rows.Scan(&id, &blob); err != nil {
			return err
		}
		if err := wanted.yield(id, blob, yield); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (m *mariadb) blob(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	id, ok := canonical(a.ID)
	if !ok || a.Stored < 0 {
		return nil, noBytes(a)
	}
	return &sliced{a: a, piece: mariadbPiece, fetch: func(offset, n int64) (piece []byte, err error) {
		var there bool
		err = m.db.QueryRowContext(ctx, mariadbSlice, a.Stored, a.Codec, offset+1, n, id).Scan(&piece, &there)
		if errors.Is(err, sql.ErrNoRows) || err == nil && !there {
			err = noBytes(a)
		}
		return piece, m.fault(ctx, "reading a blob", err)
	}}, nil
}

const mariadbItemColumns = `
       i.id, i.repo, i.path, i.commit_sha, i.reason, i.archived_by, i.archived_at, i.tombstone_id, i.kind,
       i.legal_hold, coalesce(a.content_sha256, ''), coalesce(a.size_bytes, 0), coalesce(a.compression, ''),
       coalesce(octet_length(a.blob_bytes), -1), coalesce(a.object_url, ''),
       (SELECT coalesce(json_arrayagg(tag), '[]') FROM tag WHERE tag.item_id = i.id)`

// listSQL chooses the items before it looks at artifacts, whose bytes the server
// reads to measure them.
func (*mariadb) listSQL(q Query) (string, []any) {
	f := newFilter(q, mariadbSame, like)
	if !q.Since.IsZero() {
		f.add(`i.archived_at >= ?`, q.Since.UTC().Format(time.DateTime))
	}
	if !q.Until.IsZero() {
		f.add(`i.archived_at < ?`, q.Until.UTC().Format(time.DateTime))
	}
	limit, args := "", f.args
	if q.Limit > 0 {
		limit, args = ` ORDER BY i.archived_at DESC, i.id DESC LIMIT ?`, append(args, q.Limit)
	}
	return `SELECT` + mariadbItemColumns + `
  FROM (SELECT i.id, i.archived_at FROM item AS i` + f.where() + limit + `) AS page
  JOIN item AS i ON i.id = page.id
  LEFT JOIN artifact AS a ON a.id = i.artifact_id
 ORDER BY page.archived_at DESC, page.id DESC`, args
}

// mariadbSame finds by the column's collation, for which there may be an index,
// and compares to the letter what that takes for the same: the usual ones look
// at neither letter case nor blanks at the end.
func mariadbSame(column, value string) (string, []any) {
	return column + ` = ? AND CAST(CONVERT(` + column + ` USING utf8mb4) AS BINARY) = ?`, []any{value, value}
}

func (*mariadb) showSQL() string {
	return `SELECT` + mariadbItemColumns + `,
       i.language, i.artifact_id, i.metadata, i.delete_after, i.restored_at,
       a.mime_type, a.storage_driver, a.object_url, a.created_at
  FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id
 WHERE i.tombstone_id = ?`
}

func (*mariadb) eventsSQL() string {
	return `SELECT action, actor, context, created_at FROM event WHERE item_id = ? ORDER BY created_at, id`
}

func (*mariadb) statsSQL() string {
	return `
SELECT * FROM
  (SELECT count(*), coalesce(sum(a.blob_bytes IS NOT NULL), 0),
          coalesce(sum(a.blob_bytes IS NULL AND a.object_url LIKE '` + purgeMark + `%'), 0)
     FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id) AS items,
  (SELECT count(*), coalesce(sum(CASE WHEN blob_bytes IS NOT NULL THEN size_bytes END), 0), coalesce(sum(octet_length(blob_bytes)), 0)
     FROM artifact) AS artifacts`
}

func (*mariadb) key(tombstone string) (string, bool) { return canonical(tombstone) }
