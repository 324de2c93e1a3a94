package ledger

import (
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

func (p *postgres) migrator(files fs.FS, _ step) (*goose.Provider, func(), error) {
	// Look every second, for five minutes: migrations of big ledgers take time.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(applicationID), lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, nil, err
	}
	db := stdlib.OpenDBFromPool(p.pool)
	m, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithDisableGlobalRegistry(true), goose.WithSessionLocker(locker))
	return m, func() { _ = db.Close() }, err
}
