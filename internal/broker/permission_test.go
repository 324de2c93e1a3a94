package broker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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
		"reserving": {"publish", "$KV.EXHUME_FLEET.rate.fleet.items", func(ctx context.Context, b *Broker) error {
			_, err := b.Reserve(ctx, "fleet.items", 1, 1)
			return err
		}, "", ""},
		"steering": {"publish", "$KV.EXHUME_FLEET.steering", func(ctx context.Context, b *Broker) error {
			return b.SetSteering(ctx, schemas.Steering{})
		}, "", ""},
		"fleet": {"publish", "$JS.API.CONSUMER.CREATE.KV_EXHUME_FLEET.>", func(ctx context.Context, b *Broker) error {
			return b.WatchFleet(ctx, func(schemas.Steering) {})
		}, "$JS.API.CONSUMER.CREATE.KV_EXHUME_FLEET.", "$JS.API.CONSUMER.CREATE.KV_EXHUME_FLEET."},
		"status": {"subscribe", "exhume.worker.>", func(_ context.Context, b *Broker) error {
			_, err := b.AnswerStatus(nil)
			return err
		}, "exhume.worker.status", "exhume.worker.status"},
		"workers": {"publish", "exhume.worker.status", func(ctx context.Context, b *Broker) error {
			_, err := b.Workers(ctx, schemas.WorkerQuestion{}, time.Minute)
			return err
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
		_, err := b.API().Why(t.Context(), schemas.WhyQuery{})
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

// The users of deploy/nats/nats.conf may do what their roles need, and not what is
// others' to do.
func TestUsersOfTheFleet(t *testing.T) {
	for _, role := range []string{"COLLECTOR", "WORKER", "SUBMITTER"} {
		t.Setenv("NATS_"+role+"_PASSWORD", "secret")
	}
	t.Setenv("NATS_SERVER_NAME", "test")
	o, err := server.ProcessConfigFile("../../deploy/nats/nats.conf")
	must(t, err)
	o.Host, o.Port, o.HTTPPort, o.StoreDir, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir(), true, true
	o.JetStreamMaxStore = 1 << 40 // whatever this disk has
	ns, err := server.NewServer(o)
	must(t, err)
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	as := func(user string) *Broker {
		return connect(t, Options{URL: ns.ClientURL(), User: user, Password: "secret"})
	}
	collector := as("collector")
	must(t, collector.Setup(t.Context()))
	worker, submitter := as("worker"), as("submitter")
	for _, b := range []*Broker{worker, submitter} {
		must(t, b.Ready(t.Context()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	must(t, collector.Activate(ctx, schemas.Batch{ID: "b"}))
	must(t, submitter.PublishCanary(ctx, requests(0, 10)))
	must(t, submitter.Publish(ctx, requests(10, 20), 1))
	if last, err := submitter.LastCanary(ctx, "b"); err != nil || last != 9 {
		t.Errorf("last %d, %v", last, err)
	}
	got := take(t, worker, 100, 0)
	if len(indexes(t, got)) != 20 {
		t.Errorf("got %v", indexes(t, got))
	}
	must(t, worker.Requeue(ctx, []schemas.RequestGroup{schemas.NewRequestGroup(requests(3, 4))}))

	shown, watched := make(chan schemas.Steering, 10), make(chan error, 1)
	watching, stop := context.WithCancel(ctx)
	go func() { watched <- worker.WatchFleet(watching, func(s schemas.Steering) { shown <- s }) }()
	<-shown
	must(t, collector.SetSteering(ctx, schemas.Steering{Limits: []schemas.Limit{{Scope: schemas.ScopeFleet}}}))
	if s := <-shown; len(s.Limits) != 1 {
		t.Errorf("got %v", s)
	}
	stop()
	must(t, <-watched)
	for range 2 {
		_, err := worker.Reserve(ctx, "fleet.items", 1, 1)
		must(t, err)
	}
	if err := worker.SetSteering(ctx, schemas.Steering{}); !fault.Is(err, schemas.CodeBrokerDenied) {
		t.Errorf("a worker steers the fleet: %v", err)
	}

	heard := make(chan *nats.Msg, 10)
	sub, err := submitter.nc.ChanSubscribe(schemas.WorkerEventSubject("w"), heard)
	must(t, err)
	defer sub.Unsubscribe() //nolint:errcheck // the connection is closed then
	must(t, submitter.Ping(ctx))
	worker.TellOfWorker(schemas.WorkerEvent{Worker: "w"})
	select {
	case <-heard:
	case <-ctx.Done():
		t.Error("nobody hears of a worker's breaker")
	}

	silence, err := worker.AnswerStatus(func(schemas.WorkerQuestion) schemas.WorkerStatus { return schemas.WorkerStatus{Worker: "w"} })
	must(t, err)
	defer silence()
	for range 3 {
		answers, err := collector.Workers(ctx, schemas.WorkerQuestion{}, 2*time.Second)
		must(t, err)
		if len(answers) != 1 || answers[0].Worker != "w" {
			t.Errorf("got %v", answers)
		}
	}
	if _, err := submitter.Workers(ctx, schemas.WorkerQuestion{}, time.Second); !fault.Is(err, schemas.CodeBrokerDenied) {
		t.Errorf("a submitter asks the workers: %v", err)
	}
	if _, err := submitter.AnswerStatus(nil); !fault.Is(err, schemas.CodeBrokerDenied) {
		t.Errorf("a submitter passes for a worker: %v", err)
	}
}
