package broker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// atOnce bounds calls that are to end at once. It is shorter than any time that
// a call gives itself, so that a call that waits for that ends otherwise.
const atOnce = 8 * time.Second

// userWithout is the configuration of a server with a user that may do all but
// one thing, publish or subscribe, and of one that may do everything.
func userWithout(do, subject string) string {
	return fmt.Sprintf(`authorization { users: [ { user: all, password: all },
		{ user: some, password: some, permissions: { %s: { deny: [ "%s" ] } } } ] }`, do, subject)
}

// as are options for a user of userWithout.
func (s *testServer) as(user string) Options {
	return Options{URL: s.url(), User: user, Password: user}
}

// fleetWithout is a server with a collector and a batch, and a connection to it
// of a user that lacks a right.
func fleetWithout(t *testing.T, do, subject string, collector Service) (s *testServer, user *Broker) {
	t.Helper()
	s = startServer(t, userWithout(do, subject))
	all := connect(t, s.as("all"))
	must(t, all.Setup(t.Context()))
	must(t, all.Activate(t.Context(), schemas.Batch{ID: "b"}))
	serve(t, all, collector)
	return s, unprobed(t, s.as("some"))
}

// unprobed connects without asking whether JetStream answers.
func unprobed(t *testing.T, o Options) *Broker {
	t.Helper()
	b := newBroker(o)
	opts, err := b.natsOptions()
	must(t, err)
	must(t, b.dial(opts))
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

// What the server denies ends at once, and the error says what to grant.
func TestDeniedCallsEndAtOnce(t *testing.T) {
	t.Parallel()
	get := func(ctx context.Context, b *Broker) error {
		_, err := b.API().Get(ctx, "b")
		return err
	}
	for name, c := range map[string]struct {
		do, subject string
		call        func(context.Context, *Broker) error
		denied      string // the subject, if it is not what is denied
		grant       string // if it is not what is denied
	}{
		"call":   {"publish", "exhume.api.batch.get", get, "", "exhume.api.>"},
		"answer": {"subscribe", "_INBOX.>", get, "_INBOX.", "_INBOX.>"},
		"connection": {"subscribe", "_INBOX.>", func(ctx context.Context, b *Broker) error {
			o := b.opts
			o.StartTimeout = time.Minute
			_, err := Connect(ctx, o)
			return err
		}, "_INBOX.", "_INBOX.>"},
		"ready":   {"publish", "$JS.API.STREAM.INFO.EXHUME_RESULTS", func(ctx context.Context, b *Broker) error { return b.Ready(ctx) }, "", ""},
		"request": {"publish", "exhume.restore.b.new", func(ctx context.Context, b *Broker) error { return b.Publish(ctx, requests(0, 1), 1) }, "", "exhume.restore.>"},
		"requests": {"publish", "exhume.restore.b.new", func(ctx context.Context, b *Broker) error {
			return b.Publish(ctx, requests(0, 100), 1)
		}, "", "exhume.restore.>"},
		"single request": {"publish", "exhume.restore.single", func(ctx context.Context, b *Broker) error {
			return b.PublishSingle(ctx, "one", schemas.SingleRequest{})
		}, "", "exhume.restore.>"},
		"results": {"publish", "exhume.result.w.b", func(ctx context.Context, b *Broker) error {
			return b.PublishResults(ctx, schemas.ResultGroup{Batch: "b", Worker: "w"})
		}, "", "exhume.result.>"},
		"last request": {"publish", "$JS.API.STREAM.MSG.GET.EXHUME_RESTORE", func(ctx context.Context, b *Broker) error {
			_, err := b.LastIndex(ctx, "b")
			return err
		}, "", ""},
		"pull": {"publish", "$JS.API.CONSUMER.MSG.NEXT.EXHUME_RESTORE.b", func(ctx context.Context, b *Broker) error {
			_, err := b.Requests(ctx, "b", 1, time.Minute)
			return err
		}, "", ""},
		"lag": {"publish", "$JS.API.CONSUMER.INFO.EXHUME_RESULTS.collector", func(ctx context.Context, b *Broker) error {
			_, err := b.Unrecorded(ctx)
			return err
		}, "", ""},
		"batches": {"publish", "$JS.API.CONSUMER.CREATE.KV_EXHUME_BATCHES.>", func(ctx context.Context, b *Broker) error {
			return b.WatchBatches(ctx, func(schemas.Batch) {}, func(string) {})
		}, "$JS.API.CONSUMER.CREATE.KV_EXHUME_BATCHES.", "$JS.API.CONSUMER.CREATE.KV_EXHUME_BATCHES."},
		"attempts": {"publish", "$JS.API.STREAM.MSG.GET.KV_EXHUME_RETRIES", func(ctx context.Context, b *Broker) error {
			_, err := b.Retry(ctx, "b", 1)
			return err
		}, "", ""},
		"keeping attempts": {"publish", "$KV.EXHUME_RETRIES.b.1", func(ctx context.Context, b *Broker) error {
			return b.SetRetry(ctx, "b", 1, schemas.Retry{})
		}, "", ""},
		"consumer": {"publish", "$JS.API.CONSUMER.CREATE.EXHUME_RESTORE.c.exhume.restore.c.*", func(ctx context.Context, b *Broker) error {
			return b.Activate(ctx, schemas.Batch{ID: "c"})
		}, "", ""},
		"stream": {"publish", "$JS.API.STREAM.CREATE.EXHUME_RESTORE", func(ctx context.Context, b *Broker) error {
			must(t, b.js.DeleteStream(ctx, schemas.StreamRestore))
			return b.Setup(ctx)
		}, "", ""},
		"events": {"subscribe", "exhume.event.>", func(_ context.Context, b *Broker) error {
			_, err := b.WatchEvents("b", func(schemas.Summary) {})
			return err
		}, "exhume.event.batch.b", "exhume.event.batch.b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, b := fleetWithout(t, c.do, c.subject, &service{})
			if c.denied == "" {
				c.denied = c.subject
			}
			if c.grant == "" {
				c.grant = c.subject
			}
			for range 2 { // the server denies a subscription once only
				ctx, cancel := context.WithTimeout(t.Context(), atOnce)
				err := c.call(ctx, b)
				cancel()
				if !fault.Is(err, schemas.CodeBrokerDenied) {
					t.Fatalf("got error %v", err)
				}
				kind := map[string]string{"publish": "Publish", "subscribe": "Subscription"}[c.do]
				for _, want := range []string{kind + ` to "` + c.denied, `allow it to ` + c.do + ` to "` + c.grant, b.opts.String()} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q does not say %q", err, want)
					}
				}
				if name == "stream" {
					break // it is gone
				}
			}
		})
	}
}

// Calls that need other rights are not disturbed by a denial on the connection.
func TestDenialsDisturbNobodyElse(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	collector := &service{hold: answer, holding: make(chan struct{})}
	_, b := fleetWithout(t, "publish", `exhume.api.batch.open", "exhume.restore.single`, collector)
	why, pulled := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := b.API().Why(t.Context(), "b")
		why <- err
	}()
	go func() {
		got, err := b.Requests(t.Context(), "b", 1, time.Minute)
		if err == nil && len(got) != 1 {
			err = fmt.Errorf("took %d", len(got))
		}
		pulled <- err
	}()
	<-collector.holding
	for range 10 {
		_, err := b.API().Open(t.Context(), schemas.Batch{ID: "c"})
		if !fault.Is(err, schemas.CodeBrokerDenied) {
			t.Errorf("open: %v", err)
		}
		if err := b.PublishSingle(t.Context(), "one", schemas.SingleRequest{}); !fault.Is(err, schemas.CodeBrokerDenied) {
			t.Errorf("single: %v", err)
		}
		if _, err := b.API().Get(t.Context(), "b"); err != nil {
			t.Errorf("get: %v", err)
		}
	}
	close(answer)
	must(t, <-why)
	must(t, b.Publish(t.Context(), requests(0, 5), 1))
	must(t, <-pulled)
}

// A subscription of the connection that was denied is asked for anew with the
// next connection, by whose time it may be granted.
func TestDenialEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, userWithout("subscribe", "_INBOX.>"))
	connect(t, s.as("all")) // waits for the server
	b := unprobed(t, s.as("some"))
	if err := b.probe(t.Context()); !fault.Is(err, schemas.CodeBrokerDenied) {
		t.Errorf("got error %v", err)
	}
	s.kill()
	text, err := os.ReadFile(s.config)
	must(t, err)
	must(t, os.WriteFile(s.config, []byte(strings.Replace(string(text), "_INBOX", "other", 1)), 0o600))
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for err = b.probe(ctx); err != nil; err = b.probe(ctx) { // until it is connected again
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		pause(ctx, 10*time.Millisecond)
	}
	must(t, b.Setup(t.Context()))
}

// Where JetStream has another prefix the server denies what it maps that to.
func TestDenialInADomain(t *testing.T) {
	t.Parallel()
	s := newServer(t, "hub", userWithout("publish", "$JS.API.CONSUMER.>"))
	text, err := os.ReadFile(s.config)
	must(t, err)
	must(t, os.WriteFile(s.config, []byte(strings.Replace(string(text), "jetstream {", "jetstream { domain: hub,", 1)), 0o600))
	s.start()
	all := connect(t, s.as("all"))
	must(t, all.Setup(t.Context()))
	file := filepath.Join(t.TempDir(), "hub.json")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `{"url": %q, "user": "some", "password": "some", "jetstream_domain": "hub"}`, s.url()), 0o600))
	b := connect(t, Options{Context: file})
	ctx, cancel := context.WithTimeout(t.Context(), atOnce)
	defer cancel()
	if _, err := b.Unrecorded(ctx); !fault.Is(err, schemas.CodeBrokerDenied) {
		t.Errorf("got error %v", err)
	}
}

func TestDeniedIn(t *testing.T) {
	t.Parallel()
	violates := func(text string) error {
		return fmt.Errorf("%w: Permissions Violation for %s", nats.ErrPermissionViolation, text)
	}
	for _, c := range []struct {
		err  error
		want right
	}{
		{violates(`Publish to "a.b"`), toPublish("a.b")},
		{violates(`Subscription to "a.>" using queue "q" (sid "7")`), toSubscribe("a.>")},
		{violates(`Subscription to "a\"b\\c", too many tokens`), toSubscribe(`a"b\c`)},
		{violates(`Publish with Reply of "a"`), right{}},
		{violates(`Publish to "a`), right{}},
		{nats.ErrSlowConsumer, right{}},
		{nil, right{}},
	} {
		if got, ok := deniedIn(c.err); got != c.want || ok != (c.want != right{}) {
			t.Errorf("%v: %v, %v", c.err, got, ok)
		}
	}
}
