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

// sqliteWriter writes to the archive in one file.
type sqliteWriter struct {
	watched
	db *sql.DB
}

func openSQLiteWriter(ctx context.Context, name string) (*sqliteWriter, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	if _, err := statArchive(path); err != nil {
		return nil, err
	}
	return newSQLiteWriter(ctx, path, "mode=rw", func(db *sql.DB) error { return checkArchive(ctx, db, path) })
}

func createSQLite(ctx context.Context, name string) (*sqliteWriter, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fault.New(schemas.CodeArchiveDown, "archive %q: creating its directory: %w", path, err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, notArchive(path, "it is a directory")
	}
	return newSQLiteWriter(ctx, path, "mode=rwc", func(db *sql.DB) error { return ensureSchema(ctx, db, path) })
}

// writerParams let a group of items or events stay in memory until it is
// committed (64 MiB of pages), and keep SQLite from copying its log into the
// archive after every group (every 32 MiB instead).
const writerParams = "&_synchronous=FULL&_txlock=immediate&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(8192)"

func newSQLiteWriter(ctx context.Context, path, params string, prepare func(*sql.DB) error) (*sqliteWriter, error) {
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
	return &sqliteWriter{watched: watched{path: path, file: file}, db: db}, nil
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
func (w *sqliteWriter) inTx(ctx context.Context, f func(*sql.Tx) error) error {
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

func (w *sqliteWriter) fault(ctx context.Context, doing string, err error) error {
	return sqliteFault(ctx, w.path, doing, err)
}

func (w *sqliteWriter) close() error { return w.db.Close() }

func (*sqliteWriter) admits() (int64, string) { return maxBlob, "" }

func (w *sqliteWriter) contents(ctx context.Context, sums []string) (contents, error) {
	return sqliteContents(ctx, w.db, sums)
}

func (w *sqliteWriter) store(ctx context.Context, f func(storing) error) error {
	return w.inTx(ctx, func(tx *sql.Tx) error {
		s, err := newSQLiteStoring(ctx, tx)
		if err != nil {
			return err
		}
		return f(s)
	})
}
