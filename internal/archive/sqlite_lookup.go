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

// Lookup finds the artifacts behind tombstones with one statement. The result
// is keyed by tombstone, compared letter by letter, and lacks those that the
// archive does not have.
func (r *Reader) Lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error) {
	found := make(map[string]schemas.Artifact, len(tombstones))
	err := each(ctx, r.lookup, tombstones, func(rows *sql.Rows) error {
		var a schemas.Artifact
		err := rows.Scan(&a.Tombstone, &a.Item, &a.Repo, &a.Path, &a.ID, &a.SHA256, &a.Size, &a.Codec, &a.Stored, &a.URL)
		found[a.Tombstone] = a
		return err
	})
	if err != nil {
		return nil, r.fault(ctx, "looking tombstones up", err)
	}
	return found, nil
}

// Blobs reads the stored bytes of artifacts with one statement. For each id
// given whose artifact has any it calls yield, in no particular order. The bytes
// belong to the driver and may be used during the call only. An error of yield
// ends reading and is returned as it is.
//
// All bytes of one artifact are in memory during its call; the caller chooses
// the group so that this is bearable, and uses Open for large artifacts.
func (r *Reader) Blobs(ctx context.Context, artifacts []string, yield func(id string, blob []byte) error) error {
	var stopped error
	err := each(ctx, r.blobs, artifacts, func(rows *sql.Rows) error {
		var id string
		var blob sql.RawBytes
		if err := rows.Scan(&id, &blob); err != nil {
			return err
		}
		stopped = yield(id, blob)
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	return r.fault(ctx, "reading blobs", err)
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
