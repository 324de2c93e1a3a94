package archive

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exhume/exhume/schemas"
)

// hose is the way to a database server, which can be closed with a tap: connections
// stay, new ones are accepted, and nothing comes through any more.
type hose struct {
	to string

	mu    sync.Mutex
	conns []net.Conn
	left  int64         // bytes that the server may still say
	open  chan struct{} // closed while anything may pass
}

// newHose lays one to the server of an archive, and gives the archive's URL by way
// of it.
func newHose(t *testing.T, archiveURL string) (h *hose, through string) {
	t.Helper()
	u, err := url.Parse(archiveURL)
	if err != nil {
		t.Fatal(err)
	}
	h = &hose{to: u.Host, open: make(chan struct{})}
	h.openTap()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { h.serve(near) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		h.mu.Lock()
		for _, c := range h.conns {
			_ = c.Close()
		}
		h.mu.Unlock()
		h.openTap()
		all.Wait()
	})
	u.Host = l.Addr().String()
	return h, u.String()
}

// closeTap lets the server say n bytes more and nothing after them.
func (h *hose) closeTap(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left, h.open = n, make(chan struct{})
}

func (h *hose) openTap() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.open:
	default:
		close(h.open)
	}
}

func (h *hose) serve(near net.Conn) {
	far, err := net.Dial("tcp", h.to)
	if err != nil {
		_ = near.Close()
		return
	}
	h.mu.Lock()
	h.conns = append(h.conns, near, far)
	h.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { h.pour(far, near, false) })
	both.Go(func() { h.pour(near, far, true) })
	both.Wait()
}

func (h *hose) pour(to, from net.Conn, says bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if passed := h.pass(int64(n), says); passed > 0 {
			if _, err := to.Write(buf[:passed]); err != nil {
				return
			}
			if passed < int64(n) {
				h.pass(1, true) // what is left of it is lost
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits until bytes may pass, and says how many.
func (h *hose) pass(n int64, says bool) int64 {
	h.mu.Lock()
	open := h.open
	select {
	case <-open:
		h.mu.Unlock()
		return n
	default:
	}
	if says && h.left > 0 {
		n = min(n, h.left)
		h.left -= n
		h.mu.Unlock()
		return n
	}
	asks := !says && h.left > 0
	h.mu.Unlock()
	if asks {
		return n
	}
	<-open
	return n
}

// A server that accepts and never answers, or stops in the middle of an answer, keeps
// nobody beyond the end of the context, whatever was asked.
func TestSilentServer(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		archiveURL := e.place(t)
		w := createWriter(t, archiveURL)
		item := storeAll(t, w, NewItem{Repo: "r", Path: "p", Commit: "c", By: "b", Content: noise(2*mariadbPiece + 100)})[0]
		h, through := newHose(t, archiveURL)
		r := openReader(t, through)
		found, err := r.Lookup(t.Context(), []string{item.Tombstone})
		if err != nil {
			t.Fatal(err)
		}
		a := found[item.Tombstone]
		asks := map[string]func(ctx context.Context) error{
			"Lookup": func(ctx context.Context) error { _, err := r.Lookup(ctx, []string{item.Tombstone}); return err },
			"Blobs": func(ctx context.Context) error {
				return r.Blobs(ctx, []string{a.ID}, func(string, []byte) error { return nil })
			},
			"Open": func(ctx context.Context) error {
				s, err := r.Open(ctx, a)
				if err == nil {
					_, err = io.Copy(io.Discard, s)
					_ = s.Close()
				}
				return err
			},
			"Show": func(ctx context.Context) error { _, err := r.Show(ctx, item.Tombstone); return err },
			"opening": func(ctx context.Context) error {
				another, err := OpenReader(ctx, through)
				if err == nil {
					err = another.Close()
				}
				return err
			},
		}
		for name, ask := range asks {
			for what, says := range map[string]int64{"nothing": 0, "half an answer": 300, "much of an answer": 1 << 20} {
				if says > 300 && name != "Blobs" && name != "Open" {
					continue // the answer is shorter
				}
				if err := ask(t.Context()); err != nil { // connections are warm
					t.Fatalf("%s: %v", name, err)
				}
				h.closeTap(says)
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				start := time.Now()
				err := ask(ctx)
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("%s, the server says %s: it took %v", name, what, took)
				}
				if !errors.Is(err, context.DeadlineExceeded) && (says == 0 || err != nil) {
					t.Errorf("%s, the server says %s: %v", name, what, err)
				}
				cancel()
				h.openTap()
			}
		}
	})
}

// The probe does not wait for connections that are all busy.
func TestPingBesideBusyConnections(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		archiveURL := e.place(t)
		storeAll(t, createWriter(t, archiveURL), newItems(1, func(int) []byte { return []byte("content") })...)
		r := openReader(t, archiveURL)
		var id string
		for _, i := range list(t, r, Query{}) {
			found, err := r.Lookup(t.Context(), []string{i.Tombstone})
			if err != nil {
				t.Fatal(err)
			}
			id = found[i.Tombstone].ID
		}
		conns := readers
		if p, ok := r.source.(*postgres); ok {
			conns = int(p.pool.Config().MaxConns)
		}
		begun, done := make(chan struct{}), make(chan struct{})
		var all sync.WaitGroup
		for range conns {
			all.Go(func() {
				err := r.Blobs(t.Context(), []string{id}, func(string, []byte) error {
					begun <- struct{}{}
					<-done
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
			<-begun
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := r.Ping(ctx); err != nil {
			t.Error(err)
		}
		close(done)
		all.Wait()
	})
}

// While somebody has locked one of the tables nothing can be restored, and the probe
// says so.
func TestPingLockedTables(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		archiveURL := e.place(t)
		createWriter(t, archiveURL)
		r := openReader(t, archiveURL)
		for _, table := range []string{"item", "artifact"} {
			if err := r.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			unlock := e.lock(t, archiveURL, table)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			err := r.Ping(ctx)
			cancel()
			wantCode(t, err, schemas.CodeArchiveDown)
			unlock()
		}
		if err := r.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// lock locks a table of a server until unlock is called.
func (e engine) lock(t *testing.T, archiveURL, table string) (unlock func()) {
	t.Helper()
	if e.name == MariaDB {
		db := openMariaDBTest(t, archiveURL)
		if _, err := db.Exec(`LOCK TABLES ` + table + ` WRITE`); err != nil {
			t.Fatal(err)
		}
		return func() { _ = db.Close() }
	}
	conn, err := pgx.Connect(t.Context(), archiveURL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE `+table); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(context.Background()) }
}

// A server that has hung is away to the probe, and back when it goes on.
func TestPingSilentServer(t *testing.T) {
	everyServer(t, func(t *testing.T, e engine) {
		archiveURL := e.place(t)
		createWriter(t, archiveURL)
		h, through := newHose(t, archiveURL)
		r := openReader(t, through)
		for range 3 {
			if err := r.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.closeTap(0)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			err := r.Ping(ctx)
			cancel()
			wantCode(t, err, schemas.CodeArchiveDown)
			if err != nil && errors.Is(err, context.DeadlineExceeded) {
				t.Error("it looks like the caller's own deadline:", err)
			}
			h.openTap()
		}
	})
}
