package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Migration is one step of a ledger's schema.
type Migration struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// Applied is when it was applied, zero while it is pending.
	Applied time.Time `json:"applied,omitzero"`
	// Up and Down are the SQL that applies it and takes it back.
	Up   string `json:"-"`
	Down string `json:"-"`
	// Loses says what taking it back loses.
	Loses string `json:"-"`
}

// LossError refuses to take back a migration of a ledger that has results.
type LossError struct{ Migration Migration }

func (e *LossError) Error() string {
	return fmt.Sprintf("this ledger has results, and taking migration %d (%s) back loses %s",
		e.Migration.Version, e.Migration.Name, e.Migration.Loses)
}

// Migrations gives the migrations that this program knows, in their order, and
// says which of them the ledger at where has (see OpenWith). It changes nothing;
// a file that does not exist has none.
func Migrations(ctx context.Context, where string) ([]Migration, error) {
	var all []Migration
	err := withSchema(ctx, where, false, func(db database) (err error) {
		all, err = listMigrations(ctx, db)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return readMigrations((&sqlite{}).dialect().migrations)
	}
	return all, err
}

// MigrateUp brings the schema of the ledger at where up to date, making the file
// if there is none, and gives the migrations that it applied. Several processes
// may do that at once. An error leaves applied what was applied before it.
func MigrateUp(ctx context.Context, where string) (done []Migration, err error) {
	err = withSchema(ctx, where, true, func(db database) error {
		state, err := db.schema(ctx)
		if err != nil {
			return err
		}
		if err := state.checkCompatible(); err != nil {
			return err
		}
		versions, err := migrateUp(ctx, db)
		if err != nil {
			return err
		}
		all, err := listMigrations(ctx, db)
		done = slices.DeleteFunc(all, func(m Migration) bool { return !slices.Contains(versions, m.Version) })
		return err
	})
	return done, err
}

// MigrateDown takes back the last migration of the ledger at where and gives it,
// a zero one when there is none. Where results would be at stake that is a
// *LossError, unless lose says that they may be lost. Nobody should be working on
// the ledger.
func MigrateDown(ctx context.Context, where string, lose bool) (m Migration, err error) {
	err = withSchema(ctx, where, true, func(db database) error {
		state, err := db.schema(ctx)
		if err != nil || state.version == 0 {
			return err
		}
		all, err := listMigrations(ctx, db)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(m Migration) bool { return m.Version == state.version })
		if i < 0 {
			return fmt.Errorf("its last migration is %d, which this program does not know; take it back with the newer exhume", state.version)
		}
		var results bool
		if err := db.queryRow(ctx, `SELECT EXISTS (SELECT 1 FROM result)`).Scan(&results); err != nil {
			return err
		}
		if results && !lose {
			return &LossError{all[i]}
		}
		if _, err := take(ctx, db, step{state.version, false}); err != nil {
			return fmt.Errorf("take migration %d back: %w", state.version, err)
		}
		m = all[i]
		return nil
	})
	return m, err
}

// withSchema opens the ledger whatever its schema is.
func withSchema(ctx context.Context, where string, write bool, f func(database) error) error {
	db, err := openAny(ctx, where, write)
	if err == nil {
		err = errors.Join(f(db), db.close())
	}
	if err != nil {
		return fmt.Errorf("ledger %s: %w", shown(where), err)
	}
	return nil
}

func openAny(ctx context.Context, where string, write bool) (database, error) {
	if isPostgres(where) {
		return newPostgres(ctx, where)
	}
	return newSQLite(where, write)
}

// listMigrations gives all migrations, with the times of those that are applied.
func listMigrations(ctx context.Context, db database) ([]Migration, error) {
	state, err := db.schema(ctx)
	if err != nil {
		return nil, err
	}
	all, err := readMigrations(db.dialect().migrations)
	if err != nil || state.version == 0 {
		return all, err
	}
	found, err := db.query(ctx, `SELECT version_id, tstamp FROM goose_db_version`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close() }()
	for found.Next() {
		var version int
		var at time.Time
		if err := found.Scan(&version, &at); err != nil {
			return nil, err
		}
		for i := range all {
			if all[i].Version == version {
				all[i].Applied = at.UTC()
			}
		}
	}
	return all, found.Err()
}
