package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// sqliteError is an error of SQLite got without the driver.
type sqliteError struct {
	code int
	text string
}

func (e *sqliteError) Error() string { return fmt.Sprintf("%s (%d)", e.text, e.code) }
func (e *sqliteError) Code() int     { return e.code }

// coded is implemented by every error that carries a SQLite result code.
type coded interface {
	error
	Code() int
}

var _ coded = (*sqlite.Error)(nil)

// sqliteFault gives an error met at the archive in file its code and one line
// of text. Errors of the context, and errors that have a code, stay as they are.
func sqliteFault(ctx context.Context, file, doing string, err error) error {
	if err == nil || isContextError(err) {
		return err
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	rc := 0
	if e, ok := errors.AsType[coded](err); ok {
		rc = e.Code()
	}
	if rc&0xff == sqlite3.SQLITE_INTERRUPT && ctx.Err() != nil {
		return ctx.Err()
	}
	code, hint := sqliteCode(rc, err)
	if _, missing := os.Stat(file); missing != nil {
		code, hint = schemas.CodeArchiveDown, "; the file has vanished"
	}
	return fault.New(code, "archive %q: %s: %w%s", file, doing, err, hint)
}

// sqliteCode is the one place that knows what SQLite's result codes mean to
// exhume. The hint, which may be empty, completes the text of the error.
func sqliteCode(rc int, err error) (code schemas.Code, hint string) {
	switch rc & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return schemas.CodeArchiveBusy, ""
	case sqlite3.SQLITE_CANTOPEN:
		return schemas.CodeArchiveDown, "; check the permissions of the file and its directory"
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL:
		return schemas.CodeArchiveDown, ""
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return schemas.CodeArchiveCorrupt, ""
	case sqlite3.SQLITE_READONLY:
		return readOnlyCode(rc)
	case sqlite3.SQLITE_ERROR:
		if strings.Contains(err.Error(), "no such table") || strings.Contains(err.Error(), "no such column") {
			return schemas.CodeArchiveCorrupt, ""
		}
	}
	return schemas.CodeArchiveError, ""
}

func readOnlyCode(rc int) (code schemas.Code, hint string) {
	switch rc {
	case sqlite3.SQLITE_READONLY_ROLLBACK:
		return schemas.CodeArchiveDown, "; a writer was interrupted, let any program with write access open the archive once"
	case sqlite3.SQLITE_READONLY_DBMOVED:
		return schemas.CodeArchiveDown, "; the file was moved or replaced"
	case sqlite3.SQLITE_READONLY_CANTINIT, sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_DIRECTORY:
		return schemas.CodeArchiveDown, "; its directory must be writable as long as the -wal file beside it holds changes"
	}
	return schemas.CodeArchiveError, "; write access to the file and its directory is needed"
}

// notArchive is the error for a file that is none.
func notArchive(file, why string) error {
	return fault.New(schemas.CodeArchiveCorrupt, "archive %q: %s; is this the right file?", file, why)
}
