package dbtest

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { Main(m) }

func TestPostgresComesBack(t *testing.T) {
	t.Parallel()
	p := StartPostgres(t)
	defer p.Close()
	url := p.Database(t)
	if url == p.Database(t) {
		t.Error("two databases are one")
	}
	exec := func(query string) {
		t.Helper()
		c, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background()) //nolint:errcheck // a test
		if _, err := c.Exec(context.Background(), query); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE x (i int)")
	p.Kill()
	if c, err := pgx.Connect(context.Background(), url); err == nil {
		_ = c.Close(context.Background())
		t.Error("it is not away")
	}
	p.Start(t)
	exec("INSERT INTO x VALUES (1)")
	p.Stop()
	p.Start(t)
	exec("DROP TABLE x")
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	url := MariaDBURL(t)
	database := url[strings.LastIndex(url, "/")+1:]
	db, err := sql.Open("mysql", mariadb.dsn(database))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test
	var mode, charset string
	if err := db.QueryRow("SELECT @@sql_mode, @@character_set_database").Scan(&mode, &charset); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(mode, "STRICT_TRANS_TABLES") || charset != "latin1" {
		t.Errorf("mode %s, character set %s", mode, charset)
	}
}

func TestPostgresURL(t *testing.T) {
	t.Parallel()
	first := PostgresURL(t)
	if second := PostgresURL(t); first == second {
		t.Error("two databases are one")
	}
}
