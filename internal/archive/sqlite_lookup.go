package archive

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/exhume/exhume/schemas"
)

// A group's ids travel as one JSON array, so that one prepared statement serves
// groups of any size. octet_length reads the length from the row's head and
// leaves the bytes on disk.
const (
	lookupSQL = `
SELECT i.tombstone_id, i.id, i.repo, i.path, i.artifact_id,
       coalesce(a.content_sha256, ''), coalesce(a.size_bytes, 0), coalesce(a.compression, ''),
       coalesce(octet_length(a.blob_bytes), -1), coalesce(a.object_url, '')
  FROM json_each(?1) AS wanted
 CROSS JOIN item AS i ON i.tombstone_id = wanted.value
  LEFT JOIN artifact AS a ON a.id = i.artifact_id`

	blobsSQL = `
SELECT a.id, a.blob_bytes
  FROM json_each(?1) AS wanted
 CROSS JOIN artifact AS a ON a.id = wanted.value
 WHERE a.blob_bytes IS NOT NULL`
)

func (r *sqliteReader) lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error) {
	found := make(map[string]schemas.Artifact, len(tombstones))
	err := each(ctx, r.lookupStmt, tombstones, func(rows *sql.Rows) error {
		var a schemas.Artifact
		err := rows.Scan(&a.Tombstone, &a.Item, &a.Repo, &a.Path, &a.ID, &a.SHA256, &a.Size, &a.Codec, &a.Stored, &a.URL)
		found[a.Tombstone] = a
		return err
	})
	return found, err
}

func (r *sqliteReader) blobs(ctx context.Context, artifacts []string, yield func(id string, blob []byte) error) error {
	return each(ctx, r.blobsStmt, artifacts, func(rows *sql.Rows) error {
		var id string
		var blob sql.RawBytes
		if err := rows.Scan(&id, &blob); err != nil {
			return err
		}
		return yield(id, blob)
	})
}

// each runs a statement whose only parameter is a JSON array of texts.
func each(ctx context.Context, stmt *sql.Stmt, values []string, row func(*sql.Rows) error) error {
	array, err := json.Marshal(values)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, string(array))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
