package archive

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

func postgresContents(ctx context.Context, db pgQuerier, sums []string) (contents, error) {
	rows, err := db.Query(ctx, `
SELECT content_sha256::text, id::text, compression, coalesce(object_url, ''), size_bytes, coalesce(octet_length(blob_bytes), -1)::bigint
  FROM artifact WHERE content_sha256 = ANY ($1::bpchar[])`, sums)
	if err != nil {
		return nil, err
	}
	return scanContents(pgRows{rows})
}

func (p *postgres) contents(ctx context.Context, sums []string) (contents, error) {
	return postgresContents(ctx, p.pool, sums)
}

func (*postgres) admits() (int64, string) { return maxBlob, "" }

func (p *postgres) store(ctx context.Context, f func(storing) error) error {
	return p.inTx(ctx, func(tx pgx.Tx) error { return f(postgresStoring{tx}) })
}

// postgresStoring is one transaction that stores a group.
type postgresStoring struct{ tx pgx.Tx }

func (s postgresStoring) contents(ctx context.Context, sums []string) (contents, error) {
	return postgresContents(ctx, s.tx, sums)
}

func (s postgresStoring) holder(ctx context.Context, artifact string) (tombstone string, err error) {
	err = s.tx.QueryRow(ctx, `SELECT tombstone_id::text FROM item WHERE artifact_id = $1::uuid LIMIT 1`, artifact).Scan(&tombstone)
	return tombstone, err
}

const (
	// Another program may have stored the same content since it was looked for;
	// then its bytes stay, and the item refers to them.
	postgresPutArtifact = `
INSERT INTO artifact AS a (id, content_sha256, size_bytes, compression, mime_type, storage_driver, blob_bytes, created_at)
VALUES ($1, $2, $3, $4, $5, 'db', $6, $7)
ON CONFLICT (content_sha256) DO UPDATE SET blob_bytes = excluded.blob_bytes, size_bytes = excluded.size_bytes,
   compression = excluded.compression, storage_driver = 'db', object_url = NULL WHERE a.blob_bytes IS NULL`

	postgresPutItem = `
INSERT INTO item (id, repo, path, commit_sha, language, kind, reason, artifact_id, metadata, archived_by, archived_at,
                  tombstone_id, legal_hold, delete_after)
VALUES ($1, $2, $3, $4, $5, $6, $7, (SELECT id FROM artifact WHERE content_sha256 = $8), $9, $10, $11, $12, $13, $14)`

	postgresPutTags = `INSERT INTO tag (item_id, tag) SELECT DISTINCT $1::uuid, unnest($2::text[])`

	postgresPutEvent = `INSERT INTO event (id, item_id, action, actor, context, created_at) VALUES ($1, $2, 'ARCHIVE', $3, $4, $5)`
)

// put sends everything of one item at once, behind a savepoint.
func (s postgresStoring) put(ctx context.Context, r newRow) error {
	deleteAfter, err := r.deleteAfter()
	if err != nil {
		return &refusal{err}
	}
	var b pgx.Batch
	b.Queue(`SAVEPOINT item`)
	if r.blob != nil {
		b.Queue(postgresPutArtifact, r.artifact, r.sha256, r.size, codecZstd, r.MIME, r.blob, r.at)
	}
	b.Queue(postgresPutItem, r.id, r.Repo, r.Path, r.Commit, nilIfEmpty(r.Language), r.Kind, r.Reason, r.sha256, r.metadata, r.By, r.at,
		r.tombstone, r.legalHold(), deleteAfter)
	if len(r.Tags) > 0 {
		b.Queue(postgresPutTags, r.id, r.Tags)
	}
	b.Queue(postgresPutEvent, uuid.NewString(), r.id, r.By, r.about, r.at)
	b.Queue(`RELEASE SAVEPOINT item`)
	err = s.tx.SendBatch(ctx, &b).Close()
	if state := sqlState(err); strings.HasPrefix(state, "22") || strings.HasPrefix(state, "23") { // data, constraints
		if _, back := s.tx.Exec(ctx, `ROLLBACK TO SAVEPOINT item`); back != nil {
			return back
		}
		return &refusal{err}
	}
	return err
}

// postgresRestored inserts the events that are new, of items that are there, and
// sets the times of theirs.
const postgresRestored = `
WITH added AS (
  INSERT INTO event (id, item_id, action, actor, context, created_at)
  SELECT g.id, g.item_id, 'RESTORE', g.actor, g.context, g.at
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::timestamptz[]) AS g (id, item_id, actor, context, at)
    JOIN item AS i ON i.id = g.item_id
   ORDER BY g.id
  ON CONFLICT (id) DO NOTHING
  RETURNING item_id, created_at
)
UPDATE item AS i SET restored_at = a.at
  FROM (SELECT item_id, max(created_at) AS at FROM added GROUP BY item_id) AS a
 WHERE i.id = a.item_id`

func (p *postgres) restored(ctx context.Context, events []RestoreEvent) error {
	if len(events) == 0 {
		return nil
	}
	n := len(events)
	ids, items, actors, contexts, times := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]time.Time, n)
	for i, e := range events {
		ids[i], items[i], actors[i], contexts[i] = e.ID, e.Item, e.Actor, cmp.Or(e.Context, "{}")
		times[i] = e.At.UTC().Truncate(time.Second)
	}
	_, err := p.pool.Exec(ctx, postgresRestored, ids, items, actors, contexts, times)
	return err
}
