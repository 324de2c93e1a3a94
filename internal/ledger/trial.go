package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// OpenTrial opens the ledger at where for trying something out: what is written can
// be read again until it is closed, and is taken back then. Meanwhile nobody else
// can write to it. Where there is no ledger yet it is an empty one somewhere else.
// One that is not up to date is refused.
func OpenTrial(ctx context.Context, where string, o Options) (*Ledger, error) {
	var state schemaState
	err := withSchema(ctx, where, false, func(db database) (err error) {
		state, err = db.schema(ctx)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var db database
	if state.version == 0 {
		db, err = openBlank(ctx)
	} else {
		db, err = openTrial(ctx, where)
	}
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", shown(where), err)
	}
	return &Ledger{&Reader{name: shown(where), writer: o.Writer, db: db}}, nil
}

// blank is a ledger that is removed when it is closed.
type blank struct {
	database
	dir string
}

func openBlank(ctx context.Context) (database, error) {
	dir, err := os.MkdirTemp("", "exhume-trial-")
	if err != nil {
		return nil, err
	}
	db, err := openSQLite(ctx, filepath.Join(dir, "ledger.sqlite"), true)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return blank{db, dir}, nil
}

func (b blank) close() error { return errors.Join(b.database.close(), os.RemoveAll(b.dir)) }

// trial is a database of which everything happens inside one transaction.
type trial struct {
	database
	tx    tx
	end   chan struct{}
	ended chan error
}

var errTakenBack = errors.New("taken back")

func openTrial(ctx context.Context, where string) (database, error) {
	var db database
	var err error
	if isPostgres(where) {
		db, err = openPostgres(ctx, where, false)
	} else {
		db, err = openSQLite(ctx, where, false)
	}
	if err != nil {
		return nil, err
	}
	t := &trial{database: db, end: make(chan struct{}), ended: make(chan error, 1)}
	began := make(chan tx, 1)
	go func() {
		t.ended <- db.write(ctx, func(in tx) error {
			if isPostgres(where) { // what is tried out may take its time between two statements
				if _, err := in.exec(ctx, `SET LOCAL idle_in_transaction_session_timeout = 0`); err != nil {
					return err
				}
			}
			began <- in
			<-t.end
			return errTakenBack
		})
	}()
	select {
	case t.tx = <-began:
		return t, nil
	case err := <-t.ended:
		return nil, errors.Join(err, db.close())
	}
}

func (t *trial) close() error {
	close(t.end)
	err := <-t.ended
	if errors.Is(err, errTakenBack) {
		err = nil
	}
	return errors.Join(err, t.database.close())
}

func (t *trial) exec(ctx context.Context, statement string, args ...any) (int64, error) {
	return t.tx.exec(ctx, statement, args...)
}

func (t *trial) query(ctx context.Context, statement string, args ...any) (rows, error) {
	return t.tx.query(ctx, statement, args...)
}

func (t *trial) queryRow(ctx context.Context, statement string, args ...any) row {
	return t.tx.queryRow(ctx, statement, args...)
}

func (t *trial) write(_ context.Context, f func(tx) error) error { return f(t.tx) }

func (t *trial) snapshot(_ context.Context, f func(querier) error) error { return f(t.tx) }

func (t *trial) inOrder(_ context.Context, f func(querier) error) error { return f(t.tx) }
