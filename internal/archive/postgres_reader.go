package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/exhume/exhume/schemas"
)

// Ids travel as one array of UUIDs. octet_length reads the length from the row's
// head and leaves the bytes on disk; a cast to text takes the padding off CHAR.
const (
	postgresLookup = `
SELECT i.tombstone_id::text, i.id::text, i.repo, i.path, i.artifact_id::text,
       coalesce(a.content_sha256::text, ''), coalesce(a.size_bytes, 0), coalesce(a.compression, ''),
       coalesce(octet_length(a.blob_bytes), -1)::bigint, coalesce(a.object_url, '')
  FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id
 WHERE i.tombstone_id = ANY ($1::uuid[])`

	postgresBlobs = `
SELECT id::text, blob_bytes FROM artifact WHERE id = ANY ($1::uuid[]) AND blob_bytes IS NOT NULL`

	// A stream reads a version of the bytes that has the length and the codec
	// that were looked up, or ends.
	postgresSlice = `
SELECT CASE WHEN octet_length(blob_bytes) = $4 AND compression = $5 THEN substring(blob_bytes FROM $2::int FOR $3::int) END,
       blob_bytes IS NOT NULL
  FROM artifact WHERE id = $1::uuid`
)

// postgresPiece is how many stored bytes a stream asks for at a time; PostgreSQL
// finds them without reading the others.
const postgresPiece = 1 << 20

// pgRows are rows with the methods of database/sql.
type pgRows struct{ pgx.Rows }

func (r pgRows) Close() error {
	r.Rows.Close()
	return r.Err()
}

func (p *postgres) query(ctx context.Context, query string, args ...any) (rows, error) {
	rows, err := p.pool.Query(ctx, query, args...)
	return pgRows{rows}, err
}

func (p *postgres) lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error) {
	wanted := spell(tombstones)
	rows, err := p.query(ctx, postgresLookup, wanted.list())
	if err != nil {
		return nil, err
	}
	return wanted.scanArtifacts(rows)
}

func (p *postgres) blobs(ctx context.Context, artifacts []string, yield func(id string, blob []byte) error) error {
	wanted := spell(artifacts)
	rows, err := p.pool.Query(ctx, postgresBlobs, wanted.list())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var blob pgtype.DriverBytes
		if err := rows.Scan(&id, &blob); err != nil {
			return err
		}
		if err := wanted.yield(id, blob, yield); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (p *postgres) blob(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	id, ok := canonical(a.ID)
	if !ok || a.Stored < 0 {
		return nil, noBytes(a)
	}
	return &sliced{a: a, piece: postgresPiece, fetch: func(offset, n int64) (piece []byte, err error) {
		var there bool
		err = p.pool.QueryRow(ctx, postgresSlice, id, offset+1, n, a.Stored, a.Codec).Scan(&piece, &there)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && !there {
			err = noBytes(a)
		}
		return piece, p.fault(ctx, "reading a blob", err)
	}}, nil
}

// utc spells a time so that normalStamp understands it.
func utc(column string) string {
	return `to_char(` + column + ` AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`
}

var postgresItemColumns = `
       i.id::text, i.repo, i.path, i.commit_sha::text, i.reason, i.archived_by, ` + utc("i.archived_at") + `, i.tombstone_id::text, i.kind,
       i.legal_hold, coalesce(a.content_sha256::text, ''), coalesce(a.size_bytes, 0), coalesce(a.compression, ''),
       coalesce(octet_length(a.blob_bytes), -1)::bigint, coalesce(a.object_url, ''),
       (SELECT coalesce(json_agg(tag), '[]')::text FROM tag WHERE tag.item_id = i.id)`

func (*postgres) listSQL(q Query) (string, []any) {
	f := newFilter(q, same, like)
	if !q.Since.IsZero() {
		f.add(`i.archived_at >= ?`, q.Since)
	}
	if !q.Until.IsZero() {
		f.add(`i.archived_at < ?`, q.Until)
	}
	where, limit, args := f.where(), "", f.args
	if q.Limit > 0 {
		limit, args = ` LIMIT ?`, append(args, q.Limit)
	}
	return `SELECT` + postgresItemColumns + `
  FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id` + numbered(where+`
 ORDER BY i.archived_at DESC, i.id DESC`+limit), args
}

// numbered turns each ? into $1, $2 and so on.
func numbered(query string) string {
	var b strings.Builder
	for i, part := range strings.Split(query, "?") {
		if i > 0 {
			fmt.Fprintf(&b, "$%d", i)
		}
		b.WriteString(part)
	}
	return b.String()
}

func (*postgres) showSQL() string {
	return `SELECT` + postgresItemColumns + `,
       i.language, i.artifact_id::text, i.metadata::text, ` + utc("i.delete_after") + `, ` + utc("i.restored_at") + `,
       a.mime_type, a.storage_driver, a.object_url, ` + utc("a.created_at") + `
  FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id
 WHERE i.tombstone_id = $1::uuid`
}

func (*postgres) eventsSQL() string {
	return `SELECT action, actor, context::text, ` + utc("created_at") + ` FROM event WHERE item_id = $1::uuid ORDER BY created_at, id`
}

func (*postgres) statsSQL() string {
	return `
SELECT * FROM
  (SELECT count(*), count(*) FILTER (WHERE a.blob_bytes IS NOT NULL),
          count(*) FILTER (WHERE a.blob_bytes IS NULL AND a.object_url LIKE '` + purgeMark + `%')
     FROM item AS i LEFT JOIN artifact AS a ON a.id = i.artifact_id) AS items,
  (SELECT count(*), coalesce(sum(size_bytes) FILTER (WHERE blob_bytes IS NOT NULL), 0)::bigint,
          coalesce(sum(octet_length(blob_bytes)), 0)::bigint
     FROM artifact) AS artifacts`
}

func (*postgres) key(tombstone string) (string, bool) { return canonical(tombstone) }
