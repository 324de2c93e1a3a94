package ledger

import (
	"context"
	"database/sql"
	"io/fs"

	"github.com/pressly/goose/v3"
)

func (s *sqlite) migrator(files fs.FS, next step) (*goose.Provider, func(), error) {
	p, err := goose.NewProvider(goose.DialectSQLite3, s.w, files, goose.WithDisableGlobalRegistry(true),
		goose.WithSessionLocker(fileLock{next}), goose.WithIsolateDDL(true)) // that is: without transactions of its own
	return p, func() {}, err
}

// fileLock is the file's own write lock: the transaction in which the one step
// is taken.
type fileLock struct{ step step }

// SessionLock begins the transaction.
func (fileLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `BEGIN IMMEDIATE`)
	return err
}

// SessionUnlock commits the transaction if the step was taken: noting that is the
// last thing that is done.
func (l fileLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	end := `ROLLBACK`
	var applied bool
	err := conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM goose_db_version WHERE version_id = $1)`, l.step.version).Scan(&applied)
	if err == nil && applied == l.step.up {
		end = `COMMIT`
	}
	_, err = conn.ExecContext(ctx, end)
	return err
}
