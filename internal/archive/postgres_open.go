package archive

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/exhume/exhume/schemas"
)

//go:embed postgres_schema.sql
var postgresSchema string

// postgres is an archive in a PostgreSQL database, for reading and writing.
type postgres struct {
	url  string // without secrets
	pool *pgxpool.Pool
	// probes is a connection apart from the others, which may all be busy.
	probes *pgxpool.Pool
}

// libpqOnly are options of PostgreSQL's own library that tune what the driver
// has its own ways for; they are understood and not needed.
var libpqOnly = []string{
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "gssencmode", "sslcompression",
}

// postgresConfig understands the URL of a PostgreSQL archive. An option that
// neither the driver nor PostgreSQL's library has is taken as a server setting,
// so that it is the server that refuses it, by name.
func postgresConfig(archiveURL string) (*pgxpool.Config, error) {
	_, rest, _ := strings.Cut(archiveURL, "://")
	c, err := pgxpool.ParseConfig("postgresql://" + rest)
	if err != nil {
		// The driver's error begins with the whole URL, and where it repeats a part
		// of it with an @ that may be the end of a password.
		text := oneLine(err)
		cause := text[strings.LastIndex(text, "`: ")+len("`: "):]
		if strings.Contains(cause, "@") {
			cause = "it is no URL"
		}
		return nil, fmt.Errorf("archive URL %q: %s; special characters in user and password are written as %%XX", Redact(archiveURL), cause)
	}
	for _, option := range libpqOnly {
		delete(c.ConnConfig.RuntimeParams, option)
	}
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	return c, nil
}

// openPostgres opens an archive that exists.
func openPostgres(ctx context.Context, archiveURL string) (*postgres, error) {
	return connectPostgres(ctx, archiveURL, func(p *postgres) error {
		n, err := p.tables(ctx, p.pool, tables[:2])
		if err == nil && n < 2 {
			err = noTables(p.url)
		}
		return err
	})
}

// createPostgres opens an archive and creates what it lacks.
func createPostgres(ctx context.Context, archiveURL string) (*postgres, error) {
	return connectPostgres(ctx, archiveURL, func(p *postgres) error { return p.create(ctx) })
}

func connectPostgres(ctx context.Context, archiveURL string, prepare func(*postgres) error) (*postgres, error) {
	config, err := postgresConfig(archiveURL)
	if err != nil {
		return nil, err
	}
	one := config.Copy()
	one.MinConns, one.MinIdleConns, one.MaxConns = 0, 0, 1 // opened when it is needed
	p := &postgres{url: Redact(archiveURL)}
	if p.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, p.fault(ctx, "opening it", err)
	}
	if p.probes, err = pgxpool.NewWithConfig(ctx, one); err != nil {
		p.pool.Close()
		return nil, p.fault(ctx, "opening it", err)
	}
	if err = prepare(p); err != nil {
		_ = p.close()
		return nil, p.fault(ctx, "opening it", err)
	}
	return p, nil
}

// pgQuerier is a pool or a transaction.
type pgQuerier interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}

// tables counts which of the tables are there.
func (p *postgres) tables(ctx context.Context, db pgQuerier, names []string) (n int, err error) {
	err = db.QueryRow(ctx, `SELECT count(*) FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL`, names).Scan(&n)
	return n, err
}

// lockKey is the advisory lock that keeps writers of one archive apart. It spells
// "exhume".
const lockKey = 0x657868756d65

// inTx runs f in a transaction beside which there is no other of its kind.
func (p *postgres) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(lockKey)); err != nil {
			return err
		}
		return f(tx)
	})
}

// create leaves an archive that is complete alone: who stores in it may lack the
// right to create tables.
func (p *postgres) create(ctx context.Context) error {
	return p.inTx(ctx, func(tx pgx.Tx) error {
		own, err := p.tables(ctx, tx, tables[:2])
		if err != nil {
			return err
		}
		all, err := p.tables(ctx, tx, tables)
		switch {
		case err != nil:
			return err
		case all == len(tables):
			return nil
		case own < 2 && all > 0:
			return otherTables(p.url)
		}
		return tx.Conn().PgConn().Exec(ctx, postgresSchema).Close()
	})
}

func (p *postgres) ping(ctx context.Context) error {
	var n int
	return p.probes.QueryRow(ctx, pingSQL).Scan(&n)
}

func (p *postgres) name() string { return p.url }

func (p *postgres) close() error {
	p.probes.Close()
	p.pool.Close()
	return nil
}

func (p *postgres) fault(ctx context.Context, doing string, err error) error {
	return serverFault(ctx, p.url, doing, err, postgresCode)
}

// sqlState is the SQLSTATE of an error of the server, or "".
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// postgresCode is the one place that knows what PostgreSQL's errors mean to
// exhume. The hint, which may be empty, completes the text of the error.
func postgresCode(err error) (code schemas.Code, hint string) {
	switch state := sqlState(err); {
	case state == "":
		if isNetwork(err) || isPostgresNetwork(err) {
			return schemas.CodeArchiveDown, ""
		}
		return schemas.CodeArchiveError, ""
	case state == "40001", state == "40P01", state == "55P03", state == "57014", state == "55006":
		// serialization failure, deadlock, lock not available, a server's time
		// limit, object in use
		return schemas.CodeArchiveBusy, ""
	case state == "42P01", state == "42703":
		return schemas.CodeArchiveCorrupt, "; is this the right database?"
	case state == "XX001", state == "XX002", state == "58P01": // data, index, file
		return schemas.CodeArchiveCorrupt, ""
	case state == "3D000":
		return schemas.CodeArchiveDown, "; create the database or correct its name"
	case strings.HasPrefix(state, "28"):
		return schemas.CodeArchiveDown, "; check user and password"
	case strings.HasPrefix(state, "08"), strings.HasPrefix(state, "57P"), strings.HasPrefix(state, "53"), state == "58030":
		// connection lost, shutting down or starting up, out of connections,
		// memory or disk, input/output error
		return schemas.CodeArchiveDown, ""
	case state == "42501":
		return schemas.CodeArchiveError, "; this user lacks rights to the archive's tables"
	}
	return schemas.CodeArchiveError, ""
}

func isPostgresNetwork(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	return pgconn.SafeToRetry(err) || pgconn.Timeout(err) || errors.Is(err, pgconn.ErrConnClosed)
}
