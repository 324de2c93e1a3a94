// Package ledger keeps batches and their results in a SQLite file and answers
// every question about them.
//
// A result, once recorded, never changes and never goes away. The counts of a
// batch are a cache of its results, changed in the same transaction.
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

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Reader answers questions about a ledger. All its methods may be used by
// several goroutines at once, and while another process writes.
type Reader struct {
	path string
	db   *sql.DB
}

// Ledger also records. Its methods may be used by several goroutines at once;
// those that write wait for each other, those of Reader wait for nobody.
type Ledger struct {
	*Reader
	// w has one connection, so that writers queue up here and not in SQLite.
	w          *sql.DB
	insertMany *sql.Stmt
	insertOne  *sql.Stmt
}

// Open opens the ledger at path for writing. It makes the file (0600) and its
// directories when they are missing and brings an older ledger up to date; a
// newer one is refused.
func Open(ctx context.Context, path string) (*Ledger, error) {
	l, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	return l, nil
}

func open(ctx context.Context, path string) (_ *Ledger, err error) {
	if err := create(path); err != nil {
		return nil, err
	}
	l := &Ledger{}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	// FULL: what was recorded is acknowledged, so it must survive a power cut.
	l.w, err = connect(path, 1, "_txlock=immediate", "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, l.w, path); err != nil {
		return nil, err
	}
	if l.insertMany, err = l.w.PrepareContext(ctx, insertSQL(insertRows)); err != nil {
		return nil, err
	}
	if l.insertOne, err = l.w.PrepareContext(ctx, insertSQL(1)); err != nil {
		return nil, err
	}
	l.Reader, err = newReader(path)
	return l, err
}

// create makes the file before SQLite does, for its mode; the files that SQLite
// puts beside it get the same one.
func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// OpenReader opens the ledger at path for questions only, also while a Ledger
// is open on it here or in another process. A missing file is an error that
// wraps fs.ErrNotExist.
func OpenReader(ctx context.Context, path string) (*Reader, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no ledger at %s yet; the collector makes it when it first runs (%w)", path, fs.ErrNotExist)
	}
	r, err := newReader(path)
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	if err := checkVersion(ctx, r.db); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	return r, nil
}

func newReader(path string) (*Reader, error) {
	db, err := connect(path, max(4, runtime.GOMAXPROCS(0)), "mode=ro")
	return &Reader{path: path, db: db}, err
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

// Path is the ledger's file name as it was given.
func (r *Reader) Path() string { return r.path }

// Close closes the ledger; call it when nothing uses it any more.
func (r *Reader) Close() error { return r.db.Close() }

// Close closes the ledger; call it when nothing uses it any more.
func (l *Ledger) Close() error {
	var errs []error
	if l.Reader != nil {
		errs = append(errs, l.Reader.Close())
	}
	if l.w != nil {
		errs = append(errs, l.w.Close()) // the last one tidies up the write-ahead log
	}
	return errors.Join(errs...)
}

// inTx runs f in a transaction of the writer. A transaction that has begun is
// not broken off by ctx alone, only by an error of f.
func (l *Ledger) inTx(ctx context.Context, f func(tx *sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tx, err := l.w.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return fmt.Errorf("ledger %s: %w", l.path, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing once committed
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("ledger %s: %w", l.path, err)
	}
	return nil
}
