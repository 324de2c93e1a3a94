package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// storing is one transaction that stores a group.
type storing struct {
	opts                       StoreOptions
	now                        string
	tx                         *sql.Tx
	item, artifact, event, tag *sql.Stmt
}

func newStoring(ctx context.Context, tx *sql.Tx, opts StoreOptions) (s *storing, err error) {
	prepare := func(query string) (stmt *sql.Stmt) {
		if err == nil {
			stmt, err = tx.PrepareContext(ctx, query) // closed with the transaction
		}
		return stmt
	}
	return &storing{opts: opts, tx: tx, now: stamp(time.Now()),
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

// store inserts one item and what belongs to it. What stands in the way of this
// item alone is recorded in p; an error is one of the archive.
func (s *storing) store(ctx context.Context, p *pending, found contents, blob []byte) error {
	c := found[p.SHA256]
	if err := s.admit(ctx, p, c); err != nil {
		p.refuse(err)
		return nil
	}
	fresh := !found.has(p.SHA256)
	if fresh {
		if blob == nil { // purged while the group was being compressed
			blob = encode(p.Content)
		}
		if len(blob) > maxBlob {
			p.refuse(fmt.Errorf("its %d compressed bytes are more than the %d that an archive can hold in one item", len(blob), maxBlob))
			return nil
		}
		p.Revived = c != nil
		id := uuid.NewString()
		if p.Revived {
			id = c.id
		}
		c = &storedContent{id: id, codec: codecZstd, size: p.Size, stored: int64(len(blob))}
	}
	p.Reused, p.Codec, p.CompressedSize = !fresh, c.codec, c.stored
	p.Item, p.Tombstone = uuid.NewString(), uuid.NewString()

	// The item goes first: it alone can be refused, and nothing is left then.
	if err := s.insertItem(ctx, p, c.id); err != nil {
		if isUnique(err) {
			p.refuse(fmt.Errorf("the archive has an item of this repo, path and commit %s already, and its older layout allows only one", p.Commit))
			return nil
		}
		return err
	}
	if fresh {
		if _, err := s.artifact.ExecContext(ctx, c.id, p.SHA256, p.Size, c.codec, p.MIME, blob, s.now); err != nil {
			return err
		}
		found[p.SHA256] = c
	}
	return s.insertRest(ctx, p)
}

// admit refuses content that must not be stored on top of what the archive has.
func (s *storing) admit(ctx context.Context, p *pending, c *storedContent) error {
	switch {
	case c == nil:
		return nil
	case c.stored < 0 && !s.opts.Revive:
		code, what := schemas.CodeArtifactMissing, "lacks its bytes"
		if StateOf(-1, c.url) == StatePurged {
			code, what = schemas.CodeArtifactPurged, "was purged"
		}
		var tombstone string
		err := s.tx.QueryRowContext(ctx, `SELECT tombstone_id FROM item WHERE artifact_id = ? LIMIT 1`, c.id).Scan(&tombstone)
		if err != nil {
			tombstone = "of no item"
		}
		return fault.New(code, "this content (sha256 %s, tombstone %s) %s; storing it would bring that item back, which --revive allows",
			p.SHA256, tombstone, what)
	case c.stored >= 0 && c.size != p.Size:
		return fault.New(schemas.CodeIntegrityMismatch, "the archive's artifact %s has this content's sha256 %s but declares %d bytes instead of %d",
			c.id, p.SHA256, c.size, p.Size)
	}
	return nil
}

func (s *storing) insertItem(ctx context.Context, p *pending, artifact string) error {
	metadata, err := p.metadata(p.Stored)
	if err != nil {
		return err
	}
	n := p.NewItem
	_, err = s.item.ExecContext(ctx, p.Item, n.Repo, n.Path, n.Commit, nilIfEmpty(n.Language), n.Kind, n.Reason, artifact, metadata,
		n.By, s.now, p.Tombstone, n.legalHold(), nilIfEmpty(n.Metadata["delete_after"]))
	return err
}

// insertRest records the item's tags and how it came here.
func (s *storing) insertRest(ctx context.Context, p *pending) error {
	for _, tag := range p.Tags {
		if _, err := s.tag.ExecContext(ctx, p.Item, tag); err != nil {
			return err
		}
	}
	about := map[string]any{"commit": p.Commit, "path": p.NewItem.Path, "repo": p.NewItem.Repo, "tool": "exhume"}
	if p.Revived {
		about["revived"] = true
	}
	text, err := compactJSON(about)
	if err != nil {
		return err
	}
	_, err = s.event.ExecContext(ctx, uuid.NewString(), p.Item, p.NewItem.By, text, s.now)
	return err
}

func isUnique(err error) bool {
	e, ok := errors.AsType[coded](err)
	return ok && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}
