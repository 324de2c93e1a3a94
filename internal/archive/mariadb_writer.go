package archive

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

func mariadbContents(ctx context.Context, db querier, sums []string) (contents, error) {
	if len(sums) == 0 {
		return contents{}, ctx.Err()
	}
	query, args := in(`
SELECT content_sha256, id, compression, coalesce(object_url, ''), size_bytes, coalesce(octet_length(blob_bytes), -1)
  FROM artifact WHERE content_sha256 IN `, sums)
	rows, err := ask(ctx, db, query, args...)
	if err != nil {
		return nil, err
	}
	return scanContents(rows)
}

func (m *mariadb) contents(ctx context.Context, sums []string) (contents, error) {
	return mariadbContents(ctx, m.db, sums)
}

// admits leaves room for the other columns of an artifact.
func (m *mariadb) admits() (int64, string) {
	return m.packet - 4096, fmt.Sprintf("; raise the server's max_allowed_packet, now %d", m.packet)
}

// storeWait is how long a Writer waits until another one has stored its group,
// in seconds.
const storeWait = 50

// store takes a lock of the archive first, so that two Writers don't get in each
// other's way halfway.
func (m *mariadb) store(ctx context.Context, f func(storing) error) error {
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var got sql.NullBool
	const lock = `CONCAT('exhume.', SHA1(DATABASE()))`
	if err := conn.QueryRowContext(ctx, `SELECT GET_LOCK(`+lock+`, ?)`, storeWait).Scan(&got); err != nil {
		return err
	}
	if !got.Bool {
		return fault.New(schemas.CodeArchiveBusy, "archive %q: another program is storing in it", m.url)
	}
	defer func() {
		// Should this fail, the lock goes with the connection.
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), `DO RELEASE_LOCK(`+lock+`)`)
	}()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	s, err := newMariaDBStoring(ctx, tx)
	if err == nil {
		err = f(s)
	}
	if err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// mariadbStoring is one transaction that stores a group.
type mariadbStoring struct {
	tx                         *sql.Tx
	item, artifact, event, tag *sql.Stmt
}

func newMariaDBStoring(ctx context.Context, tx *sql.Tx) (s *mariadbStoring, err error) {
	prepare := func(query string) (stmt *sql.Stmt) {
		if err == nil {
			stmt, err = tx.PrepareContext(ctx, query) // closed with the transaction
		}
		return stmt
	}
	return &mariadbStoring{
		tx: tx,
		// Another program may have stored the same content since it was looked
		// for; then its bytes stay, and the item refers to them. What the bytes
		// decide is set before them.
		artifact: prepare(`
INSERT INTO artifact (id, content_sha256, size_bytes, compression, mime_type, storage_driver, blob_bytes, created_at)
VALUES (?, ?, ?, ?, ?, 'db', ?, ?)
ON DUPLICATE KEY UPDATE
   size_bytes = IF(blob_bytes IS NULL, VALUES(size_bytes), size_bytes),
   compression = IF(blob_bytes IS NULL, VALUES(compression), compression),
   storage_driver = IF(blob_bytes IS NULL, 'db', storage_driver),
   object_url = IF(blob_bytes IS NULL, NULL, object_url),
   blob_bytes = COALESCE(blob_bytes, VALUES(blob_bytes))`),
		item: prepare(`
INSERT INTO item (id, repo, path, commit_sha, language, kind, reason, artifact_id, metadata, archived_by, archived_at,
                  tombstone_id, legal_hold, delete_after)
VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT id FROM artifact WHERE content_sha256 = ?), ?, ?, ?, ?, ?, ?)`),
		event: prepare(`INSERT INTO event (id, item_id, action, actor, context, created_at) VALUES (?, ?, 'ARCHIVE', ?, ?, ?)`),
		tag:   prepare(`INSERT INTO tag (item_id, tag) VALUES (?, ?) ON DUPLICATE KEY UPDATE tag = tag`),
	}, err
}

func (s *mariadbStoring) contents(ctx context.Context, sums []string) (contents, error) {
	return mariadbContents(ctx, s.tx, sums)
}

func (s *mariadbStoring) holder(ctx context.Context, artifact string) (tombstone string, err error) {
	err = s.tx.QueryRowContext(ctx, `SELECT tombstone_id FROM item WHERE artifact_id = ? LIMIT 1`, artifact).Scan(&tombstone)
	return tombstone, err
}

func (s *mariadbStoring) put(ctx context.Context, r newRow) error {
	deleteAfter, err := r.deleteAfter()
	if err != nil {
		return &refusal{err}
	}
	if _, err := s.tx.ExecContext(ctx, `SAVEPOINT item`); err != nil {
		return err
	}
	err = s.insert(ctx, r, deleteAfter)
	hint, refused := mariadbRefusal(err)
	if !refused {
		return err
	}
	if _, back := s.tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT item`); back != nil {
		return back
	}
	return &refusal{fmt.Errorf("%w%s", err, hint)}
}

func (s *mariadbStoring) insert(ctx context.Context, r newRow, deleteAfter *time.Time) (err error) {
	now := r.at.Format(time.DateTime)
	if r.blob != nil {
		_, err = s.artifact.ExecContext(ctx, r.artifact, r.sha256, r.size, codecZstd, r.MIME, r.blob, now)
	}
	if err == nil {
		var until any
		if deleteAfter != nil {
			until = deleteAfter.Format(time.DateTime)
		}
		_, err = s.item.ExecContext(ctx, r.id, r.Repo, r.Path, r.Commit, nilIfEmpty(r.Language), r.Kind, r.Reason, r.sha256, r.metadata,
			r.By, now, r.tombstone, r.legalHold(), until)
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

// mariadbRefusal says whether an error is one of the values that were inserted.
func mariadbRefusal(err error) (hint string, refused bool) {
	switch mariadbNumber(err) {
	case 1366: // a character that the column's character set lacks
		return "; tables of an older archive may need ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4", true
	case 1048, 1062, 1264, 1265, 1292, 1406, 1452, 4025:
		// null, duplicate, out of range, truncated, wrong time, too long, no
		// such parent, check
		return "", true
	}
	return "", false
}

// The update that changes nothing makes a duplicate no error, and no other error
// a warning, as IGNORE would.
const (
	restoredValues = `(?, ?, 'RESTORE', ?, ?, ?)`
	restoredInsert = `INSERT INTO event (id, item_id, action, actor, context, created_at) VALUES ` + restoredValues
	restoredAgain  = ` ON DUPLICATE KEY UPDATE id = id`
)

// restoredChunk is how many events are inserted with one statement.
const restoredChunk = 1000

func (m *mariadb) restored(ctx context.Context, events []RestoreEvent) error {
	if len(events) == 0 {
		return nil
	}
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(events, restoredChunk) {
		if err := mariadbRestored(ctx, tx, chunk); err != nil {
			_ = tx.Rollback()
			return err
		}
	}
	return tx.Commit()
}

func mariadbRestored(ctx context.Context, tx *sql.Tx, events []RestoreEvent) error {
	events, err := unrecorded(ctx, tx, events)
	if err != nil || len(events) == 0 {
		return err
	}
	query := restoredInsert + strings.Repeat(`, `+restoredValues, len(events)-1) + restoredAgain //nolint:gosec // placeholders
	insert := func(spell func(actor string) string) error {
		args := make([]any, 0, 5*len(events))
		for _, e := range events {
			args = append(args, e.ID, e.Item, spell(e.Actor), cmp.Or(e.Context, "{}"), e.At.UTC().Format(time.DateTime))
		}
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	}
	err = insert(func(actor string) string { return actor })
	if mariadbNumber(err) == 1366 {
		// The table is of an older archive in latin1. What happened must be
		// recorded all the same, so names are spelled with escapes.
		err = insert(ascii)
	}
	if err != nil {
		return err
	}
	latest := map[string]string{}
	for _, e := range events {
		latest[e.Item] = max(latest[e.Item], e.At.UTC().Format(time.DateTime))
	}
	byTime := map[string][]string{}
	for item, at := range latest {
		byTime[at] = append(byTime[at], item)
	}
	for at, items := range byTime {
		query, args := in(`UPDATE item SET restored_at = ? WHERE id IN `, items)
		if _, err := tx.ExecContext(ctx, query, slices.Insert(args, 0, any(at))...); err != nil {
			return err
		}
	}
	return nil
}

// ascii spells what is not ASCII as \u65e5.
func ascii(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}

// unrecorded are the events that are not there yet, each once, of items that are.
func unrecorded(ctx context.Context, tx *sql.Tx, events []RestoreEvent) (fresh []RestoreEvent, err error) {
	ids, items := make([]string, len(events)), make([]string, len(events))
	for i, e := range events {
		ids[i], items[i] = e.ID, e.Item
	}
	recorded, err := present(ctx, tx, `SELECT id FROM event WHERE id IN `, ids)
	if err != nil {
		return nil, err
	}
	known, err := present(ctx, tx, `SELECT id FROM item WHERE id IN `, items)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if !recorded[e.ID] && known[e.Item] {
			recorded[e.ID] = true
			fresh = append(fresh, e)
		}
	}
	return fresh, nil
}

// present tells which ids a table has, by a query that is completed by them.
func present(ctx context.Context, tx *sql.Tx, query string, ids []string) (map[string]bool, error) {
	query, args := in(query, ids)
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	found := make(map[string]bool, len(ids))
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		found[id] = true
	}
	return found, rows.Err()
}
