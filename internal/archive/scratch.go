package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"regexp"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
)

var scratchName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Scratch creates an empty database on the server of an archive's URL, beside the
// database that the URL names, for something that is thrown away in the end. It
// gives the new database's URL and what removes it.
func Scratch(ctx context.Context, serverURL, name string) (scratchURL string, drop func(context.Context) error, err error) {
	if !scratchName.MatchString(name) {
		return "", nil, fmt.Errorf("database %q: want small letters, digits and _", name)
	}
	at, err := ParseURL(serverURL)
	if err != nil {
		return "", nil, err
	}
	u, err := url.Parse(serverURL)
	if err != nil || at.Backend == SQLite {
		return "", nil, fmt.Errorf("%q is no URL of a PostgreSQL or MariaDB server", Redact(serverURL))
	}
	do, with := statePostgres, " WITH (FORCE)"
	if at.Backend == MariaDB {
		do, with = stateMariaDB, ""
	}
	if err := do(ctx, serverURL, "CREATE DATABASE "+name); err != nil {
		return "", nil, fmt.Errorf("%s: create a database: %w", Redact(serverURL), err)
	}
	u.Path = "/" + name
	return u.String(), func(ctx context.Context) error {
		if err := do(ctx, serverURL, "DROP DATABASE "+name+with); err != nil {
			return fmt.Errorf("%s: remove the database %s: %w; remove it by hand", Redact(serverURL), name, err)
		}
		return nil
	}, nil
}

func statePostgres(ctx context.Context, serverURL, statement string) error {
	c, err := postgresConfig(serverURL)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, c.ConnConfig)
	if err != nil {
		return errors.New(oneLine(err))
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

func stateMariaDB(ctx context.Context, serverURL, statement string) error {
	c, err := mariadbConfig(serverURL)
	if err != nil {
		return err
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}
