package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// busyTimeout is how long SQLite waits for a lock before it says busy, in
// milliseconds.
const busyTimeout = 5000

// Nothing in this package opens an archive's file but SQLite itself: closing a
// second descriptor of the file would drop the locks that this process holds on
// it through SQLite. Looking at it with stat is safe.

// sqliteURI is the name of a database as SQLite's own URI form has it.
// Everything in the path that could be taken for syntax is escaped.
func sqliteURI(path, params string) string {
	return "file://" + (&url.URL{Path: path}).EscapedPath() + "?" + params
}

// openSQLite opens a pool of at most conns connections. The parameters mode and
// the like are SQLite's own, those with an underscore the driver's.
func openSQLite(path, params string, conns int) (*sql.DB, error) {
	dsn := sqliteURI(path, fmt.Sprintf("%s&_busy_timeout=%d&_error_rc=1", params, busyTimeout))
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// statArchive finds the archive's file.
func statArchive(path string) (os.FileInfo, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(schemas.CodeArchiveDown, "archive %q: there is no such file", path)
	case err != nil:
		return nil, fault.New(schemas.CodeArchiveDown, "archive %q: %w", path, errors.Unwrap(err))
	case info.IsDir():
		return nil, notArchive(path, "it is a directory")
	}
	return info, nil
}

// watched is an archive's file, remembered as it was when it was opened.
type watched struct {
	path string
	mu   sync.Mutex
	file os.FileInfo
}

// check fails if the file has vanished: SQLite would go on with what has lost
// its name. If another file has taken its place, connections that are idle are
// closed, so that the next ones open that one.
func (w *watched) check(dbs ...*sql.DB) error {
	file, err := statArchive(w.path)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !os.SameFile(w.file, file) {
		w.file = file
		for _, db := range dbs {
			db.SetMaxIdleConns(0)
			db.SetMaxIdleConns(db.Stats().MaxOpenConnections)
		}
	}
	return nil
}

// isArchive reports whether the database has the tables of an archive, and
// whether it has any tables at all.
func isArchive(ctx context.Context, db *sql.DB) (archive, tables bool, err error) {
	var own, all int
	err = db.QueryRowContext(ctx,
		`SELECT count(*) FILTER (WHERE name IN ('item', 'artifact')), count(*) FROM sqlite_schema WHERE type = 'table'`).Scan(&own, &all)
	return own == 2, all > 0, err
}

// checkArchive fails unless the database is an archive.
func checkArchive(ctx context.Context, db *sql.DB, path string) error {
	archive, _, err := isArchive(ctx, db)
	switch {
	case err != nil:
		return sqliteFault(ctx, path, "opening it", err)
	case !archive:
		return notArchive(path, "it has no tables item and artifact")
	}
	return nil
}
