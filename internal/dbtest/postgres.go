package dbtest

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Postgres is a PostgreSQL server.
type Postgres struct{ *Server }

var (
	postgresOnce sync.Once
	postgres     *Postgres
	databases    atomic.Int64
)

// PostgresURL gives the URL of a fresh, empty database on a PostgreSQL server
// that the tests of one process share. The package's TestMain must call Main.
func PostgresURL(tb testing.TB) string {
	tb.Helper()
	postgresOnce.Do(func() {
		p := StartPostgres(tb)
		share(p.Server)
		postgres = p
	})
	if postgres == nil {
		tb.Fatal("PostgreSQL did not start; see the first test that needed it")
	}
	return postgres.Database(tb)
}

// StartPostgres starts a PostgreSQL server of the caller's own; Close ends it.
func StartPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	p := &Postgres{newServer(tb)}
	const where = "/usr/lib/postgresql/*/bin"
	data := filepath.Join(p.dir, "data")
	p.run(tb, program(tb, "initdb", where), "-D", data, "-U", "exhume", "-A", "trust", "-E", "UTF8", "--no-sync")
	p.args = []string{
		program(tb, "postgres", where), "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(p.port),
		"-k", p.dir, "-c", "max_connections=200", "-c", "log_min_messages=fatal",
	}
	p.signal = syscall.SIGINT // fast shutdown
	p.ready = func(ctx context.Context) error {
		c, err := pgx.Connect(ctx, p.URL("postgres"))
		if err != nil {
			return err
		}
		return c.Close(ctx)
	}
	p.Start(tb)
	return p
}

// Close ends the server and removes its data.
func (p *Postgres) Close() { p.remove() }

// URL is the URL of a database of the server.
func (p *Postgres) URL(database string) string {
	return fmt.Sprintf("postgresql://exhume@%s/%s?sslmode=disable", p.address(), database)
}

// Database creates an empty database and gives its URL.
func (p *Postgres) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	ctx := context.Background()
	c, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close(ctx) //nolint:errcheck // nothing is left to lose
	if _, err := c.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		tb.Fatal(err)
	}
	return p.URL(name)
}
