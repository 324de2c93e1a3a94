package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// schemaVersion is the number of the last migration.
const schemaVersion = 4

// schemaState is what a ledger's schema is: version 0 where there is none.
//
// Programs of several versions work on one ledger while a fleet is being brought
// up to date. So each migration notes, in the table ledger_schema, the lowest
// version that a program must know to work with what it leaves behind: its own
// number if it moves or removes something, the number that stood there before if
// it only adds what older programs can do without.
type schemaState struct{ version, compatibleFrom int }

// check refuses a schema that this program does not work with.
func (s schemaState) check() error {
	switch {
	case s.version == 0:
		return errors.New("it has no tables yet; make them with 'exhume migrate up'")
	case s.version < schemaVersion:
		return fmt.Errorf("its schema has version %d, older than this program's %d; bring it up to date with 'exhume migrate up'",
			s.version, schemaVersion)
	}
	return s.checkCompatible()
}

// checkCompatible refuses the schema of a newer program that needs newer ones.
func (s schemaState) checkCompatible() error {
	if s.compatibleFrom > schemaVersion {
		return fmt.Errorf("its schema has version %d, for programs that know version %d at least, but this one knows only up to %d; "+
			"use the newer exhume, or take its last migrations back with the newer one's 'exhume migrate down'",
			s.version, s.compatibleFrom, schemaVersion)
	}
	return nil
}

// readSchema reads the table ledger_schema.
func readSchema(ctx context.Context, q querier) (s schemaState, err error) {
	err = q.queryRow(ctx, `SELECT version, compatible_from FROM ledger_schema`).Scan(&s.version, &s.compatibleFrom)
	return s, err
}

// applicationID marks a SQLite file as a ledger ("exhm").
const applicationID = 0x6578686d

// sqliteSchema says what schema a file has. It refuses files that are no ledger.
func sqliteSchema(ctx context.Context, db *sql.DB) (schemaState, error) {
	var app, version, foreign int
	err := db.QueryRowContext(ctx, `SELECT
		(SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'goose_%' AND name NOT LIKE 'sqlite_%')`).
		Scan(&app, &version, &foreign)
	switch {
	case err != nil:
		return schemaState{}, err
	case app != applicationID && (app != 0 || version != 0 || foreign != 0):
		return schemaState{}, errors.New("this is a database, but no ledger of exhume; name another file")
	case version < 2: // it had no such table
		return schemaState{version, version}, nil
	}
	return readSchema(ctx, sqlQuerier{db})
}
