package archive

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// readers is the number of a Reader's connections. Reading is bound by memory
// and processor, so more of them bring nothing.
const readers = 4

// readerLife bounds how long a connection can go on reading a file that another
// one has replaced.
const readerLife = time.Minute

// sqliteReader reads the archive in one file.
type sqliteReader struct {
	watched
	params string // SQLite's URI parameters
	db     *sql.DB
	// probes is a connection apart from the others, which may all be busy.
	probes     *sql.DB
	lookupStmt *sql.Stmt
	blobsStmt  *sql.Stmt
	// tidy says that SQLite's files beside the archive were not there before.
	tidy bool
}

func openSQLiteReader(ctx context.Context, name string) (*sqliteReader, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	file, err := statArchive(path)
	if err != nil {
		return nil, err
	}
	_, hasWAL := sizeOf(path + "-wal")
	_, hasSHM := sizeOf(path + "-shm")
	r := &sqliteReader{watched: watched{path: path, file: file}, tidy: !hasWAL && !hasSHM}
	err = r.open(ctx, "mode=ro")
	if err != nil && needsDirectory(err) && atRest(path) && r.open(ctx, "mode=ro&immutable=1") == nil {
		err = nil
	}
	if err != nil {
		r.removeTraces()
		return nil, err
	}
	return r, nil
}

// needsDirectory recognises the errors that SQLite gives when it cannot create
// its files beside a database in WAL mode.
func needsDirectory(err error) bool {
	e, ok := errors.AsType[coded](err)
	return ok && (e.Code()&0xff == sqlite3.SQLITE_CANTOPEN || e.Code()&0xff == sqlite3.SQLITE_READONLY)
}

// atRest says whether the database's file is complete in itself: nothing waits
// in a log or journal beside it.
func atRest(path string) bool {
	log, _ := sizeOf(path + "-wal")
	journal, _ := sizeOf(path + "-journal")
	return log == 0 && journal == 0
}

func sizeOf(path string) (size int64, exists bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	return info.Size(), true
}

func (r *sqliteReader) open(ctx context.Context, params string) error {
	db, err := openSQLite(r.path, params+"&_query_only=1", readers)
	if err != nil {
		return sqliteFault(ctx, r.path, "opening it", err)
	}
	db.SetConnMaxLifetime(readerLife)
	if err = checkArchive(ctx, db, r.path); err == nil {
		r.lookupStmt, err = db.PrepareContext(ctx, lookupSQL)
	}
	if err == nil {
		r.blobsStmt, err = db.PrepareContext(ctx, blobsSQL)
	}
	if err != nil {
		_ = db.Close()
		return r.fault(ctx, "opening it", err)
	}
	if r.probes, err = openSQLite(r.path, params+"&_query_only=1", 1); err != nil {
		_ = db.Close()
		return r.fault(ctx, "opening it", err)
	}
	r.probes.SetConnMaxLifetime(readerLife)
	r.db, r.params = db, params
	return nil
}

func (r *sqliteReader) fault(ctx context.Context, doing string, err error) error {
	return sqliteFault(ctx, r.path, doing, err)
}

func (r *sqliteReader) ping(ctx context.Context) error {
	if err := r.check(r.db, r.probes); err != nil {
		return err
	}
	var one int
	return r.probes.QueryRowContext(ctx, pingSQL).Scan(&one)
}

func (r *sqliteReader) name() string { return r.path }

func (r *sqliteReader) close() error {
	if err := errors.Join(r.probes.Close(), r.db.Close()); err != nil {
		return err
	}
	r.removeTraces()
	return nil
}

// removeTraces removes the empty files that reading in WAL mode leaves behind.
// Only a connection that may write can do that, and SQLite alone knows whether
// somebody else needs them; so a connection is opened and closed again.
func (r *sqliteReader) removeTraces() {
	if size, exists := sizeOf(r.path + "-wal"); !r.tidy || !exists || size > 0 {
		return
	}
	db, err := openSQLite(r.path, "mode=rw", 1)
	if err != nil {
		return
	}
	defer func() { _ = db.Close() }()
	_, _, _ = isArchive(context.Background(), db)
}
