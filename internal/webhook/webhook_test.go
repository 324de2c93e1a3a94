package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	oldSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	rawSecret = "correct-horse-battery-staple"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// post is one POST as a receiver got it.
type post struct {
	at     time.Time
	id     string
	sent   int64 // the timestamp of the header
	signed string
	body   schemas.Webhook
}

// receiver is a webhook's endpoint.
type receiver struct {
	t     testing.TB
	mu    sync.Mutex
	posts []post
	// answer, if set, answers the n-th POST from 1; 200 otherwise.
	answer func(n int, p post, w http.ResponseWriter)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	text, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender is gone
	}
	if req.Method != http.MethodPost || req.Header.Get("content-type") != "application/json" {
		r.t.Errorf("got %s of %s", req.Method, req.Header.Get("content-type"))
	}
	p := post{at: time.Now(), id: req.Header.Get("webhook-id"), signed: req.Header.Get("webhook-signature")}
	p.sent, _ = strconv.ParseInt(req.Header.Get("webhook-timestamp"), 10, 64)
	// What was signed is put together anew, from what has arrived.
	if want := signatures(keysOf(r.t, rawSecret), p.id, time.Unix(p.sent, 0), text); p.signed != want {
		r.t.Errorf("signature %s, want %s", p.signed, want)
	}
	if age := p.at.Unix() - p.sent; age < 0 || age > 5 {
		r.t.Errorf("timestamp is %d s off", age)
	}
	if err := json.Unmarshal(text, &p.body); err != nil || p.body.Data.Event.ID != p.id {
		r.t.Errorf("body %s (%v) with id %s", text, err, p.id)
	}
	r.mu.Lock()
	r.posts = append(r.posts, p)
	n := len(r.posts)
	r.mu.Unlock()
	if r.answer != nil {
		r.answer(n, p, w)
	}
}

func (r *receiver) got() []post {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.posts)
}

// ids are the ids of what was posted, in order.
func (r *receiver) ids() (ids []string) {
	for _, p := range r.got() {
		ids = append(ids, p.id)
	}
	return ids
}

func keysOf(t testing.TB, secret string) [][]byte {
	t.Helper()
	keys, err := parseSecrets(secret)
	must(t, err)
	return keys
}

// status answers with a code.
func status(code int) func(int, post, http.ResponseWriter) {
	return func(_ int, _ post, w http.ResponseWriter) { w.WriteHeader(code) }
}

// outbox is a Source in memory. It outlives the senders that it is read by.
type outbox struct {
	mu     sync.Mutex
	events []schemas.BatchEvent
	told   []string
	looks  int
	// noteErr, lookErr, if set, fail Told and Untold.
	noteErr, lookErr func() error
	// summaryErr, if set, fails Summary.
	summaryErr error
}

func (o *outbox) Untold(ctx context.Context, limit int) (all []schemas.BatchEvent, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looks++
	if o.lookErr != nil {
		if err := o.lookErr(); err != nil {
			return nil, err
		}
	}
	for _, e := range o.events {
		if len(all) < limit && !slices.Contains(o.told, e.ID) {
			all = append(all, e)
		}
	}
	return all, ctx.Err()
}

func (o *outbox) Told(ctx context.Context, ids []string, at time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at.IsZero() {
		return fmt.Errorf("told at no time")
	}
	if o.noteErr != nil {
		if err := o.noteErr(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o.told = append(o.told, ids...)
	return nil
}

func (o *outbox) Summary(_ context.Context, id string) (schemas.Summary, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.summaryErr != nil {
		return schemas.Summary{}, false, o.summaryErr
	}
	if id == "forgotten" {
		return schemas.Summary{}, false, nil
	}
	return schemas.Summary{
		Batch:  schemas.Batch{ID: id, Total: 7, Skips: []schemas.Skip{{Index: 3, By: "ops"}}},
		Counts: schemas.Counts{Restored: 5},
	}, true, nil
}

// add puts events into the box, "b-1" being the first of batch b.
func (o *outbox) add(ids ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		batch, no, _ := bytes.Cut([]byte(id), []byte("-"))
		n, _ := strconv.ParseInt(string(no), 10, 64)
		o.events = append(o.events, schemas.BatchEvent{
			ID: id, No: n, Batch: string(batch), Change: schemas.ChangeSeal, From: schemas.StateOpen, To: schemas.StateSealed, At: time.Now().UTC(),
		})
	}
}

func (o *outbox) done() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.told)
}

// newSender makes a sender that is left without connections in the end.
func newSender(t testing.TB, c Config) *Sender {
	t.Helper()
	if c.Secret == "" {
		c.Secret = rawSecret
	}
	s, err := New(c)
	must(t, err)
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// world is a receiver and a sender, joined by pipes: time in a bubble goes on
// while they wait for each other. Server and client are the real ones.
type world struct {
	*receiver
	*outbox
	sender *Sender
	wake   chan struct{}
	log    *logged
	// open is how many connections the receiver has.
	open atomic.Int32
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{receiver: &receiver{t: t}, outbox: &outbox{}, wake: make(chan struct{}, 1), log: &logged{}}
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: w.receiver, ConnState: func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			w.open.Add(1)
		case http.StateClosed:
			w.open.Add(-1)
		}
	}}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	w.sender = newSender(t, Config{URL: "http://localhost/hook", Log: zerolog.New(w.log)})
	w.sender.client.Transport.(*http.Transport).DialContext = l.dial
	t.Cleanup(func() {
		must(t, server.Close())
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return w
}

// run tells events until the function that it returns is called.
func (w *world) run(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.sender.Run(ctx, w.outbox, w.wake) }()
	return func() {
		t.Helper()
		cancel()
		must(t, <-ended)
	}
}

// pipes is a listener whose connections are pipes.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// logged collects what is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines are the messages with their levels.
func (l *logged) lines(t testing.TB) (lines []string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := json.NewDecoder(bytes.NewReader(l.text.Bytes())); d.More(); {
		var line struct{ Level, Message, Error string }
		must(t, d.Decode(&line))
		lines = append(lines, fmt.Sprintf("%s: %s: %s", line.Level, line.Message, line.Error))
	}
	return lines
}
