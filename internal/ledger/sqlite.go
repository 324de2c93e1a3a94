package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	driver "modernc.org/sqlite" // registers itself as "sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// sqlite is a ledger in a SQLite file.
type sqlite struct {
	sqlQuerier
	r *sql.DB
	// w has one connection, so that writers queue up here and not in SQLite. It
	// is nil where nothing is to be written.
	w *sql.DB
	// path and file are what w writes to.
	path       string
	file       fs.FileInfo
	insertMany *sql.Stmt
	insertOne  *sql.Stmt
}

// openSQLite opens the file for writing, and brings it up to date if that is wanted.
func openSQLite(ctx context.Context, path string, migrate bool) (_ *sqlite, err error) {
	s, err := newSQLite(path, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	state, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case !migrate:
		err = state.check()
	case state.version < schemaVersion:
		_, err = migrateUp(ctx, s)
	default:
		err = state.checkCompatible()
	}
	if err != nil {
		return nil, err
	}
	if s.insertMany, err = s.w.PrepareContext(ctx, insertSQL(insertRows)); err != nil {
		return nil, err
	}
	s.insertOne, err = s.w.PrepareContext(ctx, insertSQL(1))
	return s, err
}

// beginTimeout bounds how long others may be making the same new file.
const beginTimeout = 10 * time.Second

// begin reads the schema with the writer's connection, which makes a new file a
// database. Of several processes that do so at once SQLite refuses some without
// waiting, whatever its time limit is.
func (s *sqlite) begin(ctx context.Context) (schemaState, error) {
	for end := time.Now().Add(beginTimeout); ; {
		state, err := sqliteSchema(ctx, s.w)
		busy, ok := errors.AsType[*driver.Error](err)
		if !ok || busy.Code()&0xff != lib.SQLITE_BUSY || time.Now().After(end) {
			return state, err
		}
		select {
		case <-ctx.Done():
			return state, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// openSQLiteReader opens the file for questions only.
func openSQLiteReader(ctx context.Context, path string) (_ *sqlite, err error) {
	s, err := newSQLite(path, false)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	state, err := s.schema(ctx)
	if err != nil {
		return nil, err
	}
	return s, state.check()
}

// newSQLite opens the file whatever is in it; for writing, it makes one if there
// is none.
func newSQLite(path string, write bool) (*sqlite, error) {
	s := &sqlite{}
	var err error
	if write {
		s.path = path
		if s.file, err = create(path); err != nil {
			return nil, err
		}
		// FULL: what was recorded is acknowledged, so it must survive a power cut.
		s.w, err = connect(path, 1, "_txlock=immediate", "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)")
		if err != nil {
			return nil, err
		}
	} else if _, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no such file yet; the collector makes it when it first runs (%w)", fs.ErrNotExist)
	}
	s.r, err = connect(path, max(4, runtime.GOMAXPROCS(0)), "mode=ro")
	s.sqlQuerier = sqlQuerier{s.r}
	return s, err
}

// create makes the file before SQLite does, for its mode; the files that SQLite
// puts beside it get the same one.
func create(path string) (fs.FileInfo, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	return info, errors.Join(err, f.Close())
}

// lost says that what is written goes to a file that nobody finds any more, which
// SQLite does not notice.
func (s *sqlite) lost() error {
	if info, err := os.Stat(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(info, s.file) {
		return nil // as far as is known
	}
	return fault.New(schemas.CodeLedgerLost, "its file was removed or replaced while it was in use: what was recorded in it is lost "+
		"unless it is put back; stop everything that uses it, then put it back or run 'exhume ledger rebuild'")
}

// connect opens a pool of at most n connections, which stay open.
func connect(path string, n int, options ...string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", Path: filepath.ToSlash(abs)}
	name.RawQuery = strings.Join(append(options, "_busy_timeout=10000"), "&")
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// Damaged says whether an error is that of a file which is no whole database.
func Damaged(err error) bool {
	e, ok := errors.AsType[*driver.Error](err)
	return ok && (e.Code()&0xff == lib.SQLITE_CORRUPT || e.Code()&0xff == lib.SQLITE_NOTADB)
}

func (s *sqlite) close() error {
	var errs []error
	if s.r != nil {
		errs = append(errs, s.r.Close())
	}
	if s.w != nil {
		errs = append(errs, s.w.Close()) // the last one tidies up the write-ahead log
	}
	return errors.Join(errs...)
}

// dialect: only one writes at a time, so that rows need no lock.
func (s *sqlite) dialect() dialect {
	return dialect{unhappy: "result INDEXED BY result_unhappy", migrations: "migrations/sqlite"}
}

func (s *sqlite) schema(ctx context.Context) (schemaState, error) { return sqliteSchema(ctx, s.r) }

func (s *sqlite) write(ctx context.Context, f func(tx) error) error {
	if err := s.lost(); err != nil {
		return err
	}
	t, err := s.w.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return err
	}
	defer func() { _ = t.Rollback() }() // nothing once committed
	if err := f(&sqliteTx{sqlQuerier{t}, s, t}); err != nil {
		return err
	}
	return t.Commit()
}

func (s *sqlite) snapshot(ctx context.Context, f func(querier) error) error {
	t, err := s.r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = t.Rollback() }()
	return f(sqlQuerier{t})
}

func (s *sqlite) inOrder(_ context.Context, f func(querier) error) error { return f(s) }

// sqlQuerier is a pool or a transaction of database/sql.
type sqlQuerier struct {
	q interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
}

func (s sqlQuerier) exec(ctx context.Context, statement string, args ...any) (int64, error) {
	res, err := s.q.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s sqlQuerier) query(ctx context.Context, statement string, args ...any) (rows, error) {
	return s.q.QueryContext(ctx, statement, args...) //nolint:rowserrcheck // the caller looks
}

func (s sqlQuerier) queryRow(ctx context.Context, statement string, args ...any) row {
	return s.q.QueryRowContext(ctx, statement, args...)
}
