package broker

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/exhume/exhume/schemas"
)

// cutter passes connections on to a server and can cut them.
type cutter struct {
	net.Listener
	server string
	wg     sync.WaitGroup
	// answers and bytes are how many answers of the server, and how many bytes to it,
	// still pass before the connection is cut; below zero nothing is.
	answers, bytes atomic.Int64
	cuts           atomic.Int64
}

func newCutter(t *testing.T, server string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cutter{Listener: l, server: server}
	c.answers.Store(-1)
	c.bytes.Store(-1)
	c.wg.Go(c.run)
	t.Cleanup(func() {
		_ = l.Close()
		c.wg.Wait()
	})
	return c
}

func (c *cutter) run() {
	for {
		client, err := c.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		// What is passed on goes in order; what is cut ends both ways.
		pass := func(from, to net.Conn, cut func(data []byte) bool) {
			defer from.Close() //nolint:errcheck // cut
			defer to.Close()   //nolint:errcheck // cut
			data := make([]byte, 32<<10)
			for {
				n, err := from.Read(data)
				if err != nil {
					return
				}
				if cut(data[:n]) {
					c.cuts.Add(1)
					return
				}
				if _, err := to.Write(data[:n]); err != nil {
					return
				}
			}
		}
		c.wg.Go(func() { pass(client, server, func(data []byte) bool { return spent(&c.bytes, int64(len(data))) }) })
		c.wg.Go(func() {
			pass(server, client, func(data []byte) bool { return spent(&c.answers, int64(bytes.Count(data, []byte("MSG _INBOX")))) })
		})
	}
}

// spent takes n from what is left and says whether that was the end of it, once.
func spent(left *atomic.Int64, n int64) bool {
	for {
		now := left.Load()
		if now < 0 || n == 0 {
			return false
		}
		next := now - n
		if left.CompareAndSwap(now, next) {
			return next < 0
		}
	}
}

// Wherever the connection breaks in a publication, its requests are stored, once,
// and results at least once.
func TestPublishThroughBrokenConnections(t *testing.T) {
	t.Parallel()
	s := startServer(t, anyone)
	direct := connect(t, Options{URL: s.url()})
	must(t, direct.Setup(t.Context()))
	for name, cut := range map[string]func(*cutter){
		"before the question for room is answered": func(c *cutter) { c.answers.Store(0) },
		"before the first answer":                  func(c *cutter) { c.answers.Store(1) },
		"in the middle":                            func(c *cutter) { c.bytes.Store(60 << 10) },
		"before the last answer":                   func(c *cutter) { c.answers.Store(2) },
	} {
		id := fmt.Sprintf("b%x", len(name))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCutter(t, s.url()[len("nats://"):])
			b := connect(t, Options{URL: "nats://" + c.Addr().String()})
			b.publishTimeout = 500 * time.Millisecond
			must(t, direct.Activate(t.Context(), schemas.Batch{ID: id}))
			all := requests(0, 900)
			for i := range all {
				all[i].Batch = id
			}
			cut(c)
			must(t, b.Publish(t.Context(), all, 1))
			if c.cuts.Load() != 1 {
				t.Errorf("the connection was cut %d times", c.cuts.Load())
			}
			got, err := direct.Requests(t.Context(), id, 2000, time.Minute)
			must(t, err)
			if n := len(got); n != 900 || indexes(t, got)[899] != 899 {
				t.Errorf("%d requests are stored, want 900", n)
			}
		})
	}
	t.Run("results", func(t *testing.T) {
		t.Parallel()
		c := newCutter(t, s.url()[len("nats://"):])
		b := connect(t, Options{URL: "nats://" + c.Addr().String()})
		b.publishTimeout = 500 * time.Millisecond
		c.answers.Store(0)
		g := schemas.ResultGroup{Batch: "b", Worker: "w", Results: make([]schemas.Result, 1)}
		if err := b.PublishResults(t.Context(), g); err == nil {
			t.Error("results pass for stored although nobody said so")
		}
		retry(t, func() error { return b.PublishResults(t.Context(), g) })
		if n := stored(t, direct, schemas.StreamResults); n != 2 {
			t.Errorf("%d messages are stored, want one that was not answered, and another", n)
		}
	})
}

// What the server says decides whether a publication is repeated.
func TestUnknownEnds(t *testing.T) {
	t.Parallel()
	api := func(code jetstream.ErrorCode, text string) error {
		return fmt.Errorf("publish: %w", &jetstream.APIError{ErrorCode: code, Description: text})
	}
	for _, c := range []struct {
		err                     error
		unknown, full, repeated bool
	}{
		{err: errors.New("other")},
		{err: fmt.Errorf("publish: %w", &net.OpError{Op: "write", Err: syscall.EPIPE}), unknown: true},
		{err: nats.ErrTimeout, unknown: true},
		{err: nats.ErrConnectionClosed},
		{err: api(10008, "no leader"), unknown: true},
		{err: api(10158, "in process"), unknown: true},
		{err: jetstreamext.ErrBatchPublishIncomplete, unknown: true},
		{err: jetstreamext.ErrAtomicPublishTooManyInflight, unknown: true},
		{err: api(jetstreamext.JSErrCodeBatchPublishDuplicateMsgID, "duplicate"), repeated: true},
		{err: api(10077, "maximum bytes exceeded"), full: true},
		{err: api(10077, "maximum messages exceeded")},
		{err: api(10023, "insufficient resources"), full: true},
		{err: api(10002, "resource limits exceeded for account"), full: true},
		{err: api(10047, "insufficient storage resources available"), full: true},
		{err: api(10052, "no permission")},
	} {
		if unknown, full, repeated := unknownEnd(c.err), isFull(c.err), errors.Is(c.err, errDuplicate); unknown != c.unknown || full != c.full || repeated != c.repeated {
			t.Errorf("%v: unknown %v, full %v, repeated %v", c.err, unknown, full, repeated)
		}
	}
}
