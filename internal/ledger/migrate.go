package ledger

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// schemaVersion is the number of the last migration, which sets the file's
	// user_version to it.
	schemaVersion = 1
	// applicationID marks a SQLite file as a ledger ("exhm").
	applicationID = 0x6578686d
)

// migrate brings the schema up to date. When it is already, that costs a look
// at the file's header.
func migrate(ctx context.Context, db *sql.DB, path string) error {
	version, err := readVersion(ctx, db)
	if err != nil || version == schemaVersion {
		return err
	}
	// Two processes that open a new ledger at once must not both migrate it.
	lock := flock.New(path + ".lock")
	if _, err := lock.TryLockContext(ctx, 5*time.Millisecond); err != nil {
		return fmt.Errorf("wait for %s, which another process may hold: %w", lock.Path(), err)
	}
	defer func() { _ = lock.Unlock() }()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema up to date: %w", err)
	}
	return nil
}

// checkVersion refuses a ledger that this program cannot read as it is.
func checkVersion(ctx context.Context, db *sql.DB) error {
	version, err := readVersion(ctx, db)
	if err == nil && version < schemaVersion {
		err = fmt.Errorf("its schema has version %d, older than %d; start this version's collector once to bring it up to date", version, schemaVersion)
	}
	return err
}

// readVersion gives the schema's version, 0 of an empty file. It refuses newer
// ones and files that are no ledger.
func readVersion(ctx context.Context, db *sql.DB) (int, error) {
	var app, version, foreign int
	err := db.QueryRowContext(ctx, `SELECT
		(SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'goose_%' AND name NOT LIKE 'sqlite_%')`).
		Scan(&app, &version, &foreign)
	switch {
	case err != nil:
		return 0, err
	case app != applicationID && (app != 0 || version != 0 || foreign != 0):
		return 0, fmt.Errorf("this is a database, but no ledger of exhume; name another file")
	case version > schemaVersion:
		return 0, fmt.Errorf("its schema has version %d, but this program knows only up to %d; use the newer exhume that wrote it", version, schemaVersion)
	}
	return version, nil
}
