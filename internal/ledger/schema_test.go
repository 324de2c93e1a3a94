package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/exhume/exhume/internal/golden"
	"github.com/exhume/exhume/schemas"
)

// dump runs a query whose rows are one text each.
func dump(t *testing.T, q querier, query string) []byte {
	t.Helper()
	found, err := q.query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = found.Close() }()
	var text strings.Builder
	for found.Next() {
		var line string
		if err := found.Scan(&line); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&text, line)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return []byte(text.String())
}

// A change needs a migration.
func TestSchemaIsTheOneThatWasReviewed(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		if k.name == "SQLite" {
			golden.Compare(t, "testdata/schema.sql", dump(t, l.db, `SELECT sql || ';' FROM sqlite_schema
				WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name`))
			return
		}
		golden.Compare(t, "testdata/schema_postgres.txt", append(dump(t, l.db, `
			SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
			FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position`),
			dump(t, l.db, `SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname`)...))
	})
}

func TestSchemaVersionIsTheLastMigrations(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		l := openLedger(t, where)
		all, err := Migrations(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		last := all[len(all)-1]
		state, err := l.db.schema(t.Context())
		if err != nil || state.version != schemaVersion || last.Version != schemaVersion || last.Applied.IsZero() {
			t.Errorf("the ledger says %+v (%v), the last migration is %+v; want %d", state, err, last, schemaVersion)
		}
	})
}

func TestManyOpenANewLedgerAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		start := make(chan struct{})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				<-start
				l, err := OpenWith(context.Background(), where, Options{Migrate: true})
				if err != nil {
					t.Error(err)
					return
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
		var steps int
		l := openLedger(t, where)
		err := l.db.queryRow(t.Context(), `SELECT count(*) FROM goose_db_version WHERE version_id > 0`).Scan(&steps)
		if all, _ := Migrations(t.Context(), where); err != nil || steps != len(all) {
			t.Errorf("%d migrations were noted (%v), want %d", steps, err, len(all))
		}
	})
}

// setSchema makes a ledger look like one that another version has migrated.
func setSchema(t *testing.T, l *Ledger, s schemaState) {
	t.Helper()
	err := l.inTx(t.Context(), func(tx tx) error {
		_, err := tx.exec(t.Context(), `UPDATE ledger_schema SET version = $1, compatible_from = $2`, s.version, s.compatibleFrom)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLedgersOfNewerPrograms(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		l := openLedger(t, where)
		mustCreate(t, l, "b1")

		setSchema(t, l, schemaState{schemaVersion + 1, schemaVersion})
		compatible := openLedger(t, where)
		mustRecord(t, compatible, &notebook{}, sampleResults("b1", 0, 3))
		r, err := OpenReader(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		mustAudit(t, r, "b1")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := MigrateDown(t.Context(), where, true); err == nil || !strings.Contains(err.Error(), "does not know") {
			t.Errorf("a migration that this program does not know was taken back: %v", err)
		}

		setSchema(t, l, schemaState{schemaVersion + 2, schemaVersion + 1})
		for name, open := range map[string]func() error{
			"Open":       func() error { _, err := Open(t.Context(), where); return err },
			"OpenWith":   func() error { _, err := OpenWith(t.Context(), where, Options{Migrate: true}); return err },
			"OpenReader": func() error { _, err := OpenReader(t.Context(), where); return err },
			"MigrateUp":  func() error { _, err := MigrateUp(t.Context(), where); return err },
		} {
			want := fmt.Sprintf("its schema has version %d, for programs that know version %d at least, but this one knows only up to %d; use the newer exhume",
				schemaVersion+2, schemaVersion+1, schemaVersion)
			if err := open(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), shown(where)) {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
	})
}

func TestLedgersThatAreNotMigrated(t *testing.T) {
	t.Parallel()
	postgres := kinds[1].where(t)
	file := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() error{
		"PostgreSQL, for writing": func() error { _, err := Open(t.Context(), postgres); return err },
		"PostgreSQL, for reading": func() error { _, err := OpenReader(t.Context(), postgres); return err },
		"SQLite, for reading":     func() error { _, err := OpenReader(t.Context(), file); return err },
	} {
		if err := open(); err == nil || !strings.Contains(err.Error(), "'exhume migrate up'") {
			t.Errorf("%s: got %v, want the remedy", name, err)
		}
	}
}

// version1 makes a ledger as the first version of exhume left it, with a result
// and an evidence position.
func version1(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ledger.db")
	db, err := newSQLite(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.close() }()
	if applied, err := take(t.Context(), db, step{1, true}); err != nil || !applied {
		t.Fatal(applied, err)
	}
	for _, stmt := range []string{
		`INSERT INTO batch VALUES (7, 'b1', 'open', '/r', 'never', 420, 'ops', 'm', '', 'a', 0, 1, NULL, NULL, 1, 0, 0, 0, 0, 5)`,
		`INSERT INTO result VALUES (1, 7, 0, 't', 'o', 'ops', '', 'restored', '', '', 1, 'i', 'r', 'p', 'aa', 5, '/r/o', 'w', 3, 0, 0, 0, 0, 0)`,
		`INSERT INTO evidence VALUES (1, 500, 3, 'ab')`,
	} {
		if _, err := db.w.Exec(stmt); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestALedgerOfTheFirstVersionGoesOn(t *testing.T) {
	t.Parallel()
	path := version1(t)
	if _, err := OpenReader(t.Context(), path); err == nil || !strings.Contains(err.Error(), "older than this program's") {
		t.Errorf("got %v, want an error that says the schema is older", err)
	}
	l := openLedger(t, path)
	want := schemas.EvidencePosition{Offset: 500, Seq: 3, Prev: "ab"}
	if pos, ok, err := l.Position(t.Context()); err != nil || !ok || pos != want {
		t.Errorf("position %+v, %v, %v; want %+v", pos, ok, err, want)
	}
	if got := mustAudit(t, l.Reader, "b1"); got != (schemas.Counts{Restored: 1, Bytes: 5}) {
		t.Errorf("counts %+v", got)
	}
	// The first version must refuse it: it goes by this number.
	var user int
	if err := l.db.queryRow(t.Context(), `SELECT user_version FROM pragma_user_version`).Scan(&user); err != nil || user <= 1 {
		t.Errorf("user_version %d, %v", user, err)
	}
}

func TestAMigrationThatFailsLeavesTheFileAsItWas(t *testing.T) {
	t.Parallel()
	path := version1(t)
	exec := func(stmt string) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		if _, err := db.Exec(stmt); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE ledger_schema (in_the_way TEXT)`)
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "ledger_schema already exists") {
		t.Fatalf("got %v, want an error", err)
	}
	exec(`DELETE FROM evidence`) // it is still there
	exec(`DROP TABLE ledger_schema`)
	openLedger(t, path)
}

func TestOpenRefusesWhatItMustNotTouch(t *testing.T) {
	t.Parallel()
	for name, sqlText := range map[string]string{
		"another database": `CREATE TABLE item (id TEXT)`,
		"another program":  `PRAGMA application_id = 77; PRAGMA user_version = 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ledger.db")
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(sqlText); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			_, err = Open(t.Context(), path)
			_, errRead := OpenReader(t.Context(), path)
			for _, err := range []error{err, errRead} {
				if err == nil || !strings.Contains(err.Error(), "no ledger") || !strings.Contains(err.Error(), path) {
					t.Errorf("got %v, want an error that says it is no ledger", err)
				}
			}
		})
	}
	text := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), text); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want an error that names %s", err, text)
	}
}
