package archive

import (
	"context"
	"database/sql"
	_ "embed"
	"os"
	"path/filepath"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

//go:embed sqlite_schema.sql
var sqliteSchema string

// Writer changes one archive: it stores items and records restores. What it has
// reported done is on disk. It is safe for concurrent use, one call at a time
// having its way; Close it at the end.
type Writer struct {
	watched
	db *sql.DB
}

// OpenWriter opens an archive that exists, for writing. Its errors are those of
// OpenReader.
func OpenWriter(ctx context.Context, archiveURL string) (*Writer, error) {
	path, err := sqlitePath(archiveURL)
	if err != nil {
		return nil, err
	}
	if _, err := statArchive(path); err != nil {
		return nil, err
	}
	return openWriter(ctx, path, "mode=rw", func(db *sql.DB) error { return checkArchive(ctx, db, path) })
}

// CreateWriter is OpenWriter for an archive that may not exist yet: it creates
// the file, with its parent directories, and the tables and indexes that lack,
// and puts the archive in WAL mode. A database of something else is refused.
func CreateWriter(ctx context.Context, archiveURL string) (*Writer, error) {
	path, err := sqlitePath(archiveURL)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fault.New(schemas.CodeArchiveDown, "archive %q: creating its directory: %w", path, err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, notArchive(path, "it is a directory")
	}
	return openWriter(ctx, path, "mode=rwc", func(db *sql.DB) error { return ensureSchema(ctx, db, path) })
}

// writerParams let a group of items or events stay in memory until it is
// committed (64 MiB of pages), and keep SQLite from copying its log into the
// archive after every group (every 32 MiB instead).
const writerParams = "&_synchronous=FULL&_txlock=immediate&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(8192)"

func openWriter(ctx context.Context, path, params string, prepare func(*sql.DB) error) (*Writer, error) {
	db, err := openSQLite(path, params+writerParams, 1)
	if err != nil {
		return nil, sqliteFault(ctx, path, "opening it", err)
	}
	var file os.FileInfo
	if err = prepare(db); err == nil {
		file, err = statArchive(path)
	}
	if err != nil {
		_ = db.Close()
		return nil, sqliteFault(ctx, path, "opening it", err)
	}
	return &Writer{watched: watched{path: path, file: file}, db: db}, nil
}

func ensureSchema(ctx context.Context, db *sql.DB, path string) error {
	switch archive, tables, err := isArchive(ctx, db); {
	case err != nil:
		return err
	case tables && !archive:
		return notArchive(path, "it is a database with other tables than an archive's")
	}
	if _, err := db.ExecContext(ctx, `PRAGMA journal_mode = WAL`); err != nil {
		return err
	}
	return inTx(ctx, db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, sqliteSchema)
		return err
	})
}

// inTx runs f in a transaction that begins with the write lock.
func (w *Writer) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	if err := w.check(w.db); err != nil {
		return err
	}
	return inTx(ctx, w.db, f)
}

func inTx(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func (w *Writer) fault(ctx context.Context, doing string, err error) error {
	return sqliteFault(ctx, w.path, doing, err)
}

// Close ends writing.
func (w *Writer) Close() error {
	return w.fault(context.Background(), "closing it", w.db.Close())
}
