package archive

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	sqlite3 "modernc.org/sqlite/lib"
)

func sqliteContents(ctx context.Context, db querier, sums []string) (contents, error) {
	array, err := json.Marshal(sums)
	if err != nil {
		return nil, err
	}
	rows, err := ask(ctx, db, `
SELECT a.content_sha256, a.id, a.compression, coalesce(a.object_url, ''), a.size_bytes, coalesce(octet_length(a.blob_bytes), -1)
  FROM json_each(?1) AS wanted CROSS JOIN artifact AS a ON a.content_sha256 = wanted.value`, string(array))
	if err != nil {
		return nil, err
	}
	return scanContents(rows)
}

// sqliteStoring is one transaction that stores a group.
type sqliteStoring struct {
	tx                         *sql.Tx
	item, artifact, event, tag *sql.Stmt
}

func newSQLiteStoring(ctx context.Context, tx *sql.Tx) (s *sqliteStoring, err error) {
	prepare := func(query string) (stmt *sql.Stmt) {
		if err == nil {
			stmt, err = tx.PrepareContext(ctx, query) // closed with the transaction
		}
		return stmt
	}
	return &sqliteStoring{
		tx: tx,
		item: prepare(`INSERT INTO item (id, repo, path, commit_sha, language, kind, reason, artifact_id, metadata, archived_by, archived_at,
			tombstone_id, legal_hold, delete_after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
		artifact: prepare(`INSERT INTO artifact (id, content_sha256, size_bytes, compression, mime_type, storage_driver, blob_bytes, created_at)
			VALUES (?1, ?2, ?3, ?4, ?5, 'db', ?6, ?7)
			ON CONFLICT (content_sha256) DO UPDATE SET blob_bytes = excluded.blob_bytes, size_bytes = excluded.size_bytes,
			compression = excluded.compression, storage_driver = 'db', object_url = NULL WHERE blob_bytes IS NULL`),
		event: prepare(`INSERT INTO event (id, item_id, action, actor, context, created_at) VALUES (?, ?, 'ARCHIVE', ?, ?, ?)`),
		tag:   prepare(`INSERT OR IGNORE INTO tag (item_id, tag) VALUES (?, ?)`),
	}, err
}

func (s *sqliteStoring) contents(ctx context.Context, sums []string) (contents, error) {
	return sqliteContents(ctx, s.tx, sums)
}

func (s *sqliteStoring) holder(ctx context.Context, artifact string) (tombstone string, err error) {
	err = s.tx.QueryRowContext(ctx, `SELECT tombstone_id FROM item WHERE artifact_id = ? LIMIT 1`, artifact).Scan(&tombstone)
	return tombstone, err
}

// put inserts the item first: it alone can be refused, and nothing is left then.
func (s *sqliteStoring) put(ctx context.Context, r newRow) error {
	now := stamp(r.at)
	_, err := s.item.ExecContext(ctx, r.id, r.Repo, r.Path, r.Commit, nilIfEmpty(r.Language), r.Kind, r.Reason, r.artifact, r.metadata,
		r.By, now, r.tombstone, r.legalHold(), nilIfEmpty(r.Metadata["delete_after"]))
	if isUnique(err) {
		return &refusal{fmt.Errorf("the archive has an item of this repo, path and commit %s already, and its older layout allows only one", r.Commit)}
	}
	if err == nil && r.blob != nil {
		_, err = s.artifact.ExecContext(ctx, r.artifact, r.sha256, r.size, codecZstd, r.MIME, r.blob, now)
	}
	for _, tag := range r.Tags {
		if err == nil {
			_, err = s.tag.ExecContext(ctx, r.id, tag)
		}
	}
	if err == nil {
		_, err = s.event.ExecContext(ctx, uuid.NewString(), r.id, r.By, r.about, now)
	}
	return err
}

func isUnique(err error) bool {
	e, ok := errors.AsType[coded](err)
	return ok && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}
