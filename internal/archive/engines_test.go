package archive

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/exhume/exhume/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// engine is a kind of archive under test.
type engine struct {
	name string
	// place is the URL of a new place without an archive.
	place func(t testing.TB) string
	// exec changes a database behind the package's back. A statement may be many.
	exec func(t testing.TB, url string, statements ...string)
	// anyCase says that tombstones are found in upper case, too.
	anyCase bool
}

var (
	sqliteEngine = engine{
		name:  SQLite,
		place: func(t testing.TB) string { return filepath.Join(t.TempDir(), "a.db") },
		exec:  execSQL,
	}
	postgresEngine = engine{name: Postgres, place: dbtest.PostgresURL, exec: execPostgres, anyCase: true}
	mariadbEngine  = engine{name: MariaDB, place: dbtest.MariaDBURL, exec: execMariaDB, anyCase: true}
	engines        = []engine{sqliteEngine, postgresEngine, mariadbEngine}
)

// fixture is the URL of a copy of the predecessor's archive.
func (e engine) fixture(t testing.TB) string {
	t.Helper()
	if e.name == SQLite {
		return fixture(t, "sqlite")
	}
	dump, err := os.ReadFile(filepath.Join(testdata, e.name, "archive.sql"))
	if err != nil {
		t.Fatal(err)
	}
	url := e.place(t)
	e.exec(t, url, string(dump))
	return url
}

func execPostgres(t testing.TB, url string, statements ...string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, s := range append([]string{`SET TIME ZONE 'UTC'`}, statements...) {
		if err := conn.PgConn().Exec(ctx, s).Close(); err != nil {
			t.Fatalf("%.200s: %v", s, err)
		}
	}
}

func execMariaDB(t testing.TB, url string, statements ...string) {
	t.Helper()
	db := openMariaDBTest(t, url)
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%.200s: %v", s, err)
		}
	}
}

// openMariaDBTest connects once, and takes many statements at a time.
func openMariaDBTest(t testing.TB, url string) *sql.DB {
	t.Helper()
	config, err := mariadbConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MultiStatements = true
	connector, err := mysql.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db
}

// everyEngine runs a test against each kind of archive.
func everyEngine(t *testing.T, test func(t *testing.T, e engine)) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e)
		})
	}
}

// spelled gives a time as text in one of the ways that the archive has for it.
func (e engine) spelled(way int, at string) string {
	if e.name != SQLite || way%2 == 0 {
		return at
	}
	return strings.Replace(at, " ", "T", 1) + "Z"
}
