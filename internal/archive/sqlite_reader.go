package archive

import (
	"context"
	"database/sql"
	"errors"
	"os"
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

// Reader reads one archive. It never changes the archive's file and creates
// none. It is safe for concurrent use; Close it at the end.
type Reader struct {
	watched
	params string // SQLite's URI parameters
	db     *sql.DB
	lookup *sql.Stmt
	blobs  *sql.Stmt
	// tidy says that SQLite's files beside the archive were not there before.
	tidy bool
}

// OpenReader opens the archive that the URL or file name stands for.
//
// The code of the error is CodeArchiveDown if the file is missing or cannot be
// opened, CodeArchiveCorrupt if it is no archive; a URL that cannot be used is
// an error without a code. An archive in WAL mode makes SQLite keep two files
// beside it, which Close removes if they were not there; where the directory
// cannot be written to, such an archive is taken as immutable, provided that
// there are no changes waiting in those files. Nobody may write to it then.
func OpenReader(ctx context.Context, archiveURL string) (*Reader, error) {
	path, err := sqlitePath(archiveURL)
	if err != nil {
		return nil, err
	}
	file, err := statArchive(path)
	if err != nil {
		return nil, err
	}
	_, hasWAL := sizeOf(path + "-wal")
	_, hasSHM := sizeOf(path + "-shm")
	r := &Reader{watched: watched{path: path, file: file}, tidy: !hasWAL && !hasSHM}
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

func (r *Reader) open(ctx context.Context, params string) error {
	db, err := openSQLite(r.path, params+"&_query_only=1", readers)
	if err != nil {
		return sqliteFault(ctx, r.path, "opening it", err)
	}
	db.SetConnMaxLifetime(readerLife)
	if err = checkArchive(ctx, db, r.path); err == nil {
		r.lookup, err = db.PrepareContext(ctx, lookupSQL)
	}
	if err == nil {
		r.blobs, err = db.PrepareContext(ctx, blobsSQL)
	}
	if err != nil {
		_ = db.Close()
		return r.fault(ctx, "opening it", err)
	}
	r.db, r.params = db, params
	return nil
}

func (r *Reader) fault(ctx context.Context, doing string, err error) error {
	return sqliteFault(ctx, r.path, doing, err)
}

// Ping says whether the archive can be read, at little cost. It notices that
// the file has vanished; when another file has taken its place, that one is read
// from then on, at the latest a minute later.
func (r *Reader) Ping(ctx context.Context) error {
	if err := r.check(r.db); err != nil {
		return err
	}
	var one int
	err := r.db.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM item LIMIT 1)`).Scan(&one)
	return r.fault(ctx, "probing it", err)
}

// Close ends reading. Streams from Open are to be closed before.
func (r *Reader) Close() error {
	if err := r.db.Close(); err != nil {
		return r.fault(context.Background(), "closing it", err)
	}
	r.removeTraces()
	return nil
}

// removeTraces removes the empty files that reading in WAL mode leaves behind.
// Only a connection that may write can do that, and SQLite alone knows whether
// somebody else needs them; so a connection is opened and closed again.
func (r *Reader) removeTraces() {
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
