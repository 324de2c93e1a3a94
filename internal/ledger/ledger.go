// Package ledger keeps batches and their results, in a SQLite file or in a
// PostgreSQL database, and answers every question about them.
//
// A result, once recorded, never changes and never goes away. The counts of a
// batch are a cache of its results, changed in the same transaction.
package ledger

import (
	"context"
	"errors"
	"fmt"
)

// Reader answers questions about a ledger. All its methods may be used by
// several goroutines at once, and while another process writes.
type Reader struct {
	name   string
	writer string
	db     database
}

// Ledger also records. Its methods may be used by several goroutines at once;
// those that write wait for each other, those of Reader wait for nobody. On
// PostgreSQL, several processes may record in one ledger at once.
type Ledger struct{ *Reader }

// Options say how a ledger is opened; the zero value is right for one process
// with a ledger of its own.
type Options struct {
	// Writer is the name of whoever records: whose evidence log it is that the
	// evidence position is a place in. Writers that work at the same time must
	// have different names.
	Writer string
	// Alone keeps all others from writing as long as the ledger is open: they wait a
	// little, and get an ErrAway. While somebody writes, or is alone, the error wraps
	// ErrInUse. It means nothing for a SQLite file, which does not leave the host:
	// there the locks of state and evidence directory keep others away.
	Alone bool
	// Migrate lets Open bring the schema of a PostgreSQL ledger up to date. A
	// SQLite file always is.
	Migrate bool
}

// Open opens a ledger for writing with the zero Options.
func Open(ctx context.Context, where string) (*Ledger, error) {
	return OpenWith(ctx, where, Options{})
}

// OpenWith opens the ledger at where for writing: a postgres:// or postgresql://
// URL, or the path of a SQLite file. It makes the file (0600) and its directories
// when they are missing. A ledger that is not up to date, or is of a newer
// program that this one is not compatible with, is refused.
func OpenWith(ctx context.Context, where string, o Options) (*Ledger, error) {
	db, err := openForWriting(ctx, where, o)
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", shown(where), err)
	}
	return &Ledger{&Reader{name: shown(where), writer: o.Writer, db: db}}, nil
}

func openForWriting(ctx context.Context, where string, o Options) (database, error) {
	if !isPostgres(where) {
		return openSQLite(ctx, where, true)
	}
	p, err := openPostgres(ctx, where, o.Migrate)
	if err != nil || !o.Alone {
		return p, err
	}
	if err := p.beAlone(ctx); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// OpenReader opens the ledger at where (see OpenWith) for questions only, also
// while a Ledger is open on it here or in another process. A missing file is an
// error that wraps fs.ErrNotExist.
func OpenReader(ctx context.Context, where string) (*Reader, error) {
	db, err := openForReading(ctx, where)
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", shown(where), err)
	}
	return &Reader{name: shown(where), db: db}, nil
}

func openForReading(ctx context.Context, where string) (database, error) {
	if isPostgres(where) {
		return openPostgres(ctx, where, false)
	}
	return openSQLiteReader(ctx, where)
}

// Path is the ledger's file name as it was given, or the address of its
// PostgreSQL database without user and password.
func (r *Reader) Path() string { return r.name }

// Close closes the ledger; call it when nothing uses it any more.
func (r *Reader) Close() error { return r.db.close() }

// inTx runs f in a transaction of the writer. A transaction that has begun is
// not broken off by ctx alone, only by an error of f.
func (l *Ledger) inTx(ctx context.Context, f func(t tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var failed error
	err := l.db.write(ctx, func(t tx) error {
		failed = f(t)
		return failed
	})
	if failed != nil {
		return failed // it says itself what it is about
	}
	return l.named(err)
}
