package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"
)

// MariaDB is a MariaDB server.
type MariaDB struct{ *Server }

var (
	mariadbOnce sync.Once
	mariadb     *MariaDB
)

// MariaDBURL gives the URL of a fresh, empty database, in MariaDB's default
// character set (latin1), on a server that the tests of one process share. The
// package's TestMain must call Main.
func MariaDBURL(tb testing.TB) string {
	tb.Helper()
	mariadbOnce.Do(func() {
		m := StartMariaDB(tb)
		share(m.Server)
		mariadb = m
	})
	if mariadb == nil {
		tb.Fatal("MariaDB did not start; see the first test that needed it")
	}
	return mariadb.Database(tb)
}

// StartMariaDB starts a MariaDB server of the caller's own, in its default mode;
// Close ends it.
func StartMariaDB(tb testing.TB) *MariaDB {
	tb.Helper()
	m := &MariaDB{newServer(tb)}
	const where = "/usr/sbin"
	data := filepath.Join(m.dir, "data")
	m.run(tb, program(tb, "mariadb-install-db", "/usr/bin"), "--no-defaults", "--datadir="+data,
		"--auth-root-authentication-method=normal", "--skip-test-db")
	m.args = []string{
		program(tb, "mariadbd", where), "--no-defaults", "--datadir=" + data, "--bind-address=127.0.0.1",
		"--port=" + strconv.Itoa(m.port), "--socket=" + filepath.Join(m.dir, "s"), "--character-set-server=latin1",
		"--max-allowed-packet=64M", "--innodb-buffer-pool-size=64M", "--skip-name-resolve",
	}
	m.signal = syscall.SIGTERM
	m.ready = func(ctx context.Context) error {
		db, err := sql.Open("mysql", m.dsn(""))
		if err != nil {
			return err
		}
		defer db.Close() //nolint:errcheck // nothing is left to lose
		return db.PingContext(ctx)
	}
	m.Start(tb)
	return m
}

// Close ends the server and removes its data.
func (m *MariaDB) Close() { m.remove() }

func (m *MariaDB) dsn(database string) string {
	return fmt.Sprintf("root@tcp(%s)/%s?multiStatements=true", m.address(), database)
}

// URL is the URL of a database of the server.
func (m *MariaDB) URL(database string) string {
	return fmt.Sprintf("mariadb://root@%s/%s", m.address(), database)
}

// Database creates an empty database and gives its URL.
func (m *MariaDB) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	db, err := sql.Open("mysql", m.dsn(""))
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing is left to lose
	if _, err := db.Exec("CREATE DATABASE " + name); err != nil {
		tb.Fatal(err)
	}
	return m.URL(name)
}
