package archive

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// What the two kinds of servers do alike, and files do not.

// everyServer runs a test against each kind of server.
func everyServer(t *testing.T, test func(t *testing.T, e engine)) {
	t.Parallel()
	for _, e := range []engine{postgresEngine, mariadbEngine} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e)
		})
	}
}

// outage is a server of its own that can be taken away.
type outage struct {
	*dbtest.Server
	url string
}

func everyOutage(t *testing.T, test func(t *testing.T, s outage)) {
	t.Parallel()
	t.Run(Postgres, func(t *testing.T) {
		t.Parallel()
		p := dbtest.StartPostgres(t)
		t.Cleanup(p.Close)
		test(t, outage{p.Server, p.Database(t)})
	})
	t.Run(MariaDB, func(t *testing.T) {
		t.Parallel()
		m := dbtest.StartMariaDB(t)
		t.Cleanup(m.Close)
		test(t, outage{m.Server, m.Database(t)})
	})
}

func TestServerOutage(t *testing.T) {
	everyOutage(t, func(t *testing.T, s outage) {
		w := createWriter(t, s.url)
		item := storeAll(t, w, NewItem{Repo: "r", Path: "p", Commit: "c", By: "b", Content: noise(2 * mariadbPiece)})[0]
		r := openReader(t, s.url)
		found, err := r.Lookup(t.Context(), []string{item.Tombstone})
		if err != nil {
			t.Fatal(err)
		}
		a := found[item.Tombstone]
		stream, err := r.Open(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = stream.Close() }()
		event := RestoreEvent{ID: uuid.NewString(), Item: item.Item, Actor: "ops", At: time.Now()}

		for _, away := range []func(){s.Stop, s.Kill} {
			away()
			// Connections that were open notice first, then new ones.
			for range 6 {
				_, err := r.Lookup(t.Context(), []string{item.Tombstone})
				wantCode(t, err, schemas.CodeArchiveDown)
				wantCode(t, r.Ping(t.Context()), schemas.CodeArchiveDown)
				wantCode(t, w.Restored(t.Context(), []RestoreEvent{event}), schemas.CodeArchiveDown)
			}
			_, err := storeOne(t, w, StoreOptions{}, newItems(1, func(int) []byte { return []byte("x") })[0])
			wantCode(t, err, schemas.CodeArchiveDown)
			_, err = OpenReader(t.Context(), s.url)
			wantCode(t, err, schemas.CodeArchiveDown)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("bad text %q", err)
			}
			s.Start(t)
			// A connection of before may be met once more, but no more often
			// than there can be.
			err = r.Ping(t.Context())
			for n := 0; err != nil && n < 2*readers; n++ {
				wantCode(t, err, schemas.CodeArchiveDown)
				err = r.Ping(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		}
		if content, err := io.ReadAll(stream); err != nil || hexSum(content) != item.SHA256 {
			t.Errorf("a stream from before: %v", err)
		}
		for n := 0; n < 2*readers; n++ {
			if err = w.Restored(t.Context(), []RestoreEvent{event}); err == nil {
				break
			}
		}
		if d, e := r.Show(t.Context(), item.Tombstone); err != nil || e != nil || len(d.Events) != 2 {
			t.Errorf("events %+v, %v, %v", d.Events, err, e)
		}
		hung(t, s)
	})
}

// hung: a server that accepts connections and says nothing must not make anybody
// wait without end.
func hung(t *testing.T, s outage) {
	separator := "?"
	if strings.Contains(s.url, "?") {
		separator = "&"
	}
	s.Freeze()
	defer s.Thaw()
	_, err := OpenReader(t.Context(), s.url+separator+"connect_timeout=1")
	wantCode(t, err, schemas.CodeArchiveDown)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("its own time limit looks like the caller's")
	}
}

// Calls that a server does not answer end with their context.
func TestServerLocked(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		url := e.place(t)
		w := createWriter(t, url)
		item := storeAll(t, w, newItems(1, func(int) []byte { return nil })...)[0]
		r := openReader(t, url)
		unlock := lockTables(t, e, url)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := r.Lookup(ctx, []string{item.Tombstone}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lookup: %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		event := RestoreEvent{ID: uuid.NewString(), Item: item.Item, Actor: "ops", At: time.Now()}
		if err := w.Restored(ctx, []RestoreEvent{event}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Restored: %v", err)
		}
		unlock()
		if found, err := r.Lookup(t.Context(), []string{item.Tombstone}); err != nil || len(found) != 1 {
			t.Errorf("after unlocking: %v, %v", found, err)
		}
	})
}

// lockTables keeps everybody else from reading items.
func lockTables(t *testing.T, e engine, url string) (unlock func()) {
	t.Helper()
	if e.name == MariaDB {
		db := openMariaDBTest(t, url)
		if _, err := db.Exec(`LOCK TABLES item WRITE, event WRITE`); err != nil {
			t.Fatal(err)
		}
		return func() { _ = db.Close() }
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.PgConn().Exec(t.Context(), `BEGIN; LOCK TABLE item, event`).Close(); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(context.Background()) }
}

func TestServerUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	for _, url := range []string{
		"postgres://u:secret@" + address + "/d", "postgresql+psycopg2://u:secret@" + address + "/d?sslmode=disable",
		"mysql+pymysql://u:secret@" + address + "/d", "MariaDB://u:secret@" + address + "/d?tls=true",
	} {
		for _, open := range []func() error{
			func() error { _, err := OpenReader(t.Context(), url); return err },
			func() error { _, err := CreateWriter(t.Context(), url); return err },
		} {
			err := open()
			wantCode(t, err, schemas.CodeArchiveDown)
			if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
				t.Errorf("bad text %q", err)
			}
		}
	}
}

func TestServerRefusesOpening(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		url := e.place(t)
		_, err := OpenReader(t.Context(), url)
		wantCode(t, err, schemas.CodeArchiveCorrupt) // an empty database
		at := strings.LastIndex(url, "/")
		_, err = OpenReader(t.Context(), url[:at]+"/nowhere")
		wantCode(t, err, schemas.CodeArchiveDown)
		if err == nil || !strings.Contains(err.Error(), "create the database") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("unknown setting", func(t *testing.T) {
		t.Parallel()
		_, err := OpenReader(t.Context(), dbtest.PostgresURL(t)+"&no_such_option=1")
		if err == nil || !strings.Contains(err.Error(), `"no_such_option"`) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		t.Parallel()
		url := dbtest.MariaDBURL(t)
		_, err := OpenReader(t.Context(), strings.Replace(url, "root@", "nobody:secret@", 1))
		wantCode(t, err, schemas.CodeArchiveDown)
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "password") {
			t.Errorf("error %v", err)
		}
	})
}

// What a server's columns cannot hold is refused by itself, whole.
func TestServerRefusesItems(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		url := e.place(t)
		w := createWriter(t, url)
		// As archives of an older layout have it.
		e.exec(t, url, `CREATE UNIQUE INDEX only_one ON item (commit_sha)`)
		item := func(commit, content string, f func(n *NewItem)) NewItem {
			n := NewItem{Repo: "r", Path: "p", Commit: commit, By: "b", Content: []byte(content)}
			f(&n)
			return n
		}
		plain := func(*NewItem) {}
		items := []NewItem{
			item("1", "one", plain),
			item(strings.Repeat("c", 41), "two", plain),
			item("1", "three", plain), // taken
			item("4", "two", func(n *NewItem) { n.Metadata = map[string]string{"delete_after": "soon"} }),
			item("5", "two", func(n *NewItem) { n.Tags = []string{"t", "t"} }),
			item("6", "one", func(n *NewItem) { n.Metadata = map[string]string{"delete_after": "2027-03-01"} }),
		}
		stored := make([]Stored, 0, len(items))
		var refused []int
		for s, err := range w.Store(t.Context(), sequence(items), StoreOptions{}) {
			if err != nil {
				refused = append(refused, len(stored))
			}
			stored = append(stored, s)
		}
		if fmt.Sprint(refused) != "[1 2 3]" || stored[4].Reused || !stored[5].Reused {
			t.Errorf("refused %v, stored %+v", refused, stored)
		}
		r := openReader(t, url)
		stats, err := r.Stats(t.Context())
		if err != nil || stats.Items != 3 || stats.Artifacts != 2 {
			t.Errorf("%+v, %v", stats, err)
		}
		if d, err := r.Show(t.Context(), stored[5].Tombstone); err != nil || d.DeleteAfter == nil || *d.DeleteAfter != "2027-03-01T00:00:00Z" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// Writers that store the same contents at the same time wait for each other.
func TestServerStoreTogether(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		const writers, n = 3, 40
		url := e.place(t)
		var wg sync.WaitGroup
		all := make([]*Writer, writers)
		for i := range all {
			all[i] = createWriter(t, url)
		}
		for i, w := range all {
			wg.Go(func() {
				items := newItems(n, func(k int) []byte { return fmt.Appendf(nil, "content %d", (k*7+i*13)%n) })
				for _, err := range w.Store(t.Context(), sequence(items), StoreOptions{}) {
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if stats, err := openReader(t, url).Stats(t.Context()); err != nil || stats.Items != writers*n || stats.Artifacts != n {
			t.Errorf("%+v, %v", stats, err)
		}
	})
}

// A stream must not mix two versions of the bytes.
func TestServerStoredAnew(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		url := e.place(t)
		item := storeAll(t, createWriter(t, url), NewItem{Repo: "r", Path: "p", Commit: "c", By: "b", Content: noise(2 * mariadbPiece)})[0]
		r := openReader(t, url)
		found, err := r.Lookup(t.Context(), []string{item.Tombstone})
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			change string
			code   schemas.Code
		}{
			{`UPDATE artifact SET compression = 'zlib'`, schemas.CodeArchiveBusy},
			{`UPDATE artifact SET compression = 'zstd', blob_bytes = 'x'`, schemas.CodeArchiveBusy},
			{`UPDATE artifact SET blob_bytes = NULL`, schemas.CodeArtifactMissing},
			{`DELETE FROM tag; DELETE FROM event; DELETE FROM item; DELETE FROM artifact`, schemas.CodeArtifactMissing},
		} {
			a := found[item.Tombstone]
			s, err := r.Open(t.Context(), a)
			if tt.change == `UPDATE artifact SET compression = 'zlib'` {
				if err != nil {
					t.Fatal(err)
				}
				e.exec(t, url, tt.change)
				_, err = io.Copy(io.Discard, s)
				if cerr := s.Close(); cerr != nil {
					t.Error(cerr)
				}
			} else {
				e.exec(t, url, tt.change)
				_, err = r.Open(t.Context(), a)
			}
			if !fault.Is(err, tt.code) {
				t.Errorf("%s: got error %v, want code %s", tt.change, err, tt.code)
			}
		}
	})
}

// Restores of items that are gone must not stand in the way of others.
func TestServerRestoredVanished(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		url := e.place(t)
		w := createWriter(t, url)
		item := storeAll(t, w, newItems(1, func(int) []byte { return nil })...)[0]
		at := mustTime(t, "2027-01-02T03:04:05Z")
		events := []RestoreEvent{
			{ID: uuid.NewString(), Item: uuid.NewString(), Actor: "ops", At: at},
			{ID: uuid.NewString(), Item: item.Item, Actor: "Zoë 日本", At: at},
			{ID: uuid.NewString(), Item: item.Item, Actor: "ops", At: at.Add(-time.Hour)},
		}
		if err := w.Restored(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		d, err := openReader(t, url).Show(t.Context(), item.Tombstone)
		if err != nil || len(d.Events) != 3 || d.Events[2].Actor != "Zoë 日本" || *d.RestoredAt != "2027-01-02T03:04:05Z" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// The tables of the predecessor are in the database's own character set.
func TestMariaDBLatin1(t *testing.T) {
	t.Parallel()
	url := dbtest.MariaDBURL(t)
	execMariaDB(t, url, strings.ReplaceAll(mariadbSchema, "utf8mb4", "latin1"))
	w := createWriter(t, url)
	results := map[string]error{}
	items := newItems(2, func(int) []byte { return []byte("x") })
	items[1].Path = "naïve-日本.txt"
	var plain Stored
	for s, err := range w.Store(t.Context(), sequence(items), StoreOptions{}) {
		results[s.Path] = err
		if err == nil {
			plain = s
		}
	}
	if results["src/0.go"] != nil {
		t.Error(results["src/0.go"])
	}
	if err := results["naïve-日本.txt"]; err == nil || !strings.Contains(err.Error(), "CONVERT TO CHARACTER SET utf8mb4") {
		t.Errorf("error %v", err)
	}
	event := RestoreEvent{ID: uuid.NewString(), Item: plain.Item, Actor: "日本", At: time.Now().Add(time.Hour)}
	if err := w.Restored(t.Context(), []RestoreEvent{event}); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, url)
	d, err := r.Show(t.Context(), plain.Tombstone)
	if err != nil || len(d.Events) != 2 || d.Events[1].Actor != `\u65e5\u672c` {
		t.Errorf("%+v, %v", d, err)
	}
	found, err := r.Lookup(t.Context(), []string{plain.Tombstone})
	if err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
}

func TestMariaDBPacket(t *testing.T) {
	t.Parallel()
	url := dbtest.MariaDBURL(t)
	w := createWriter(t, url)
	m := w.sink.(*mariadb)
	if m.packet != 64<<20 {
		t.Errorf("max_allowed_packet %d", m.packet)
	}
	m.packet = 1 << 20
	items := newItems(2, func(int) []byte { return noise(1 << 20) })
	items[1].Content = []byte("small")
	var errs []error
	for _, err := range w.Store(t.Context(), sequence(items), StoreOptions{}) {
		errs = append(errs, err)
	}
	wantCode(t, errs[0], schemas.CodeTooLarge)
	if errs[1] != nil || errs[0] == nil || !strings.Contains(errs[0].Error(), "max_allowed_packet") {
		t.Errorf("errors %v", errs)
	}
	// As much as is allowed does get through.
	m.packet = 64 << 20
	largest := noise(64<<20 - 64<<10)
	item := storeAll(t, w, NewItem{Repo: "r", Path: "p", Commit: "c", By: "b", Content: largest})[0]
	r := openReader(t, url)
	found, err := r.Lookup(t.Context(), []string{item.Tombstone})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Blobs(t.Context(), []string{found[item.Tombstone].ID}, func(_ string, blob []byte) error {
		content, err := Decode(found[item.Tombstone], blob, nil)
		if !bytes.Equal(content, largest) {
			t.Error("the content is wrong")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestPostgresClassification(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]schemas.Code{
		"08006": schemas.CodeArchiveDown, "57P01": schemas.CodeArchiveDown, "57P02": schemas.CodeArchiveDown, "57P03": schemas.CodeArchiveDown,
		"53300": schemas.CodeArchiveDown, "53100": schemas.CodeArchiveDown, "28P01": schemas.CodeArchiveDown, "3D000": schemas.CodeArchiveDown,
		"40001": schemas.CodeArchiveBusy, "40P01": schemas.CodeArchiveBusy, "55P03": schemas.CodeArchiveBusy, "57014": schemas.CodeArchiveBusy,
		"42P01": schemas.CodeArchiveCorrupt, "42703": schemas.CodeArchiveCorrupt, "XX001": schemas.CodeArchiveCorrupt,
		"42501": schemas.CodeArchiveError, "22001": schemas.CodeArchiveError, "XX000": schemas.CodeArchiveError, "25006": schemas.CodeArchiveError,
	} {
		checkClass(t, postgresCode, &pgconn.PgError{Code: state, Message: "two\nlines"}, want)
	}
	for _, err := range []error{&pgconn.ConnectError{Config: &pgconn.Config{}}, pgconn.ErrConnClosed} {
		if code, _ := postgresCode(fmt.Errorf("wrapped: %w", errors.Join(err))); code != schemas.CodeArchiveDown {
			t.Errorf("%T has code %s", err, code)
		}
	}
	checkNetwork(t, postgresCode)
}

func TestMariaDBClassification(t *testing.T) {
	t.Parallel()
	for number, want := range map[uint16]schemas.Code{
		1040: schemas.CodeArchiveDown, 1053: schemas.CodeArchiveDown, 1203: schemas.CodeArchiveDown, 1927: schemas.CodeArchiveDown,
		2002: schemas.CodeArchiveDown, 2003: schemas.CodeArchiveDown, 2006: schemas.CodeArchiveDown, 2013: schemas.CodeArchiveDown,
		1045: schemas.CodeArchiveDown, 1049: schemas.CodeArchiveDown, 1021: schemas.CodeArchiveDown,
		1205: schemas.CodeArchiveBusy, 1213: schemas.CodeArchiveBusy,
		1146: schemas.CodeArchiveCorrupt, 1054: schemas.CodeArchiveCorrupt, 1194: schemas.CodeArchiveCorrupt,
		1142: schemas.CodeArchiveError, 1064: schemas.CodeArchiveError, 1290: schemas.CodeArchiveError,
	} {
		checkClass(t, mariadbCode, &mysql.MySQLError{Number: number, Message: "two\nlines"}, want)
	}
	checkClass(t, mariadbCode, mysql.ErrInvalidConn, schemas.CodeArchiveDown)
	checkClass(t, mariadbCode, driver.ErrBadConn, schemas.CodeArchiveDown)
	checkNetwork(t, mariadbCode)
}

type classify = func(error) (schemas.Code, string)

func checkClass(t *testing.T, classify classify, err error, want schemas.Code) {
	t.Helper()
	got := serverFault(t.Context(), "postgresql://***@h/d", "testing", fmt.Errorf("wrapped: %w", err), classify)
	if !fault.Is(got, want) || strings.Contains(got.Error(), "\n") {
		t.Errorf("%v became %v (%s), want code %s", err, got, fault.CodeOf(got), want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := serverFault(ctx, "", "", err, classify); !errors.Is(got, context.Canceled) {
		t.Errorf("%v became %v after the context had ended", err, got)
	}
}

func checkNetwork(t *testing.T, classify classify) {
	t.Helper()
	for _, err := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.DeadlineExceeded,
		&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, &net.OpError{Op: "read", Err: syscall.ECONNRESET},
	} {
		checkClass(t, classify, err, schemas.CodeArchiveDown)
	}
	checkClass(t, classify, errors.New("cannot scan"), schemas.CodeArchiveError)
	if err := serverFault(t.Context(), "", "", context.DeadlineExceeded, classify); errors.Is(err, context.DeadlineExceeded) {
		t.Error("a time limit of the driver's looks like the caller's")
	}
}
