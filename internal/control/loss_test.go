package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/control"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// fleet is a collector's role, put together as the program does, on a NATS server
// whose data can be taken away. Its worker is the test.
type fleet struct {
	*testing.T
	port int
	dir  string
	ns   *server.Server
	js   jetstream.JetStream // of somebody with a tool

	broker    *broker.Broker
	ledger    *ledger.Ledger
	collector *collector.Collector
	control   *control.Control
	evidence  string
	held      []*broker.Delivery
	now       time.Time
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) must(err error) {
	f.Helper()
	must(f, err)
}

func (f *fleet) startServer() {
	f.Helper()
	ns, err := server.NewServer(&server.Options{
		ServerName: "n", Host: "127.0.0.1", Port: f.port, NoLog: true, NoSigs: true, JetStream: true, StoreDir: f.dir, JetStreamMaxStore: 1 << 40,
	})
	f.must(err)
	ns.Start()
	if !ns.ReadyForConnections(time.Minute) {
		f.Fatal("the server is not ready")
	}
	f.ns, f.port = ns, ns.Addr().(*net.TCPAddr).Port
}

func (f *fleet) stopServer() {
	f.ns.Shutdown()
	f.ns.WaitForShutdown()
}

// kinds are where ledgers are.
var kinds = map[string]func(testing.TB) string{
	"SQLite":     func(t testing.TB) string { return filepath.Join(t.TempDir(), "ledger.sqlite") },
	"PostgreSQL": dbtest.PostgresURL,
}

func newFleet(t *testing.T, where func(testing.TB) string) *fleet {
	t.Helper()
	f := &fleet{T: t, port: server.RANDOM_PORT, dir: filepath.Join(t.TempDir(), "nats"), evidence: t.TempDir(), now: time.Now()}
	f.startServer()
	t.Cleanup(func() { f.stopServer() })
	url := fmt.Sprintf("nats://127.0.0.1:%d", f.port)
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	must(t, err)
	t.Cleanup(nc.Close)
	f.js, err = jetstream.New(nc)
	must(t, err)
	f.broker, err = broker.Connect(t.Context(), broker.Options{URL: url, Log: zerolog.Nop()})
	must(t, err)
	t.Cleanup(func() { must(t, f.broker.Close()) })
	must(t, f.broker.Setup(t.Context()))
	f.ledger, err = ledger.OpenWith(t.Context(), where(t), ledger.Options{Migrate: true})
	must(t, err)
	t.Cleanup(func() { must(t, f.ledger.Close()) })
	lines, err := evidence.Open(f.evidence)
	must(t, err)
	t.Cleanup(func() { must(t, lines.Close()) })
	book, err := collector.OpenBook(t.Context(), bookLedger{f.ledger}, lines, collector.Options{Backend: "sqlite"})
	must(t, err)
	f.collector = collector.New(book, queue{f.broker}, nil, zerolog.Nop())
	submit := func(context.Context, *control.Control, schemas.Batch, iter.Seq2[schemas.Request, error], int64) error {
		return nil
	}
	f.control, err = control.New(t.Context(), book, f.broker, records{f.ledger.Reader}, f.ledger, f.collector.FinishIfDone, submit, zerolog.Nop())
	must(t, err)
	f.collector.Judge = f.control.Judge
	return f
}

type bookLedger struct{ *ledger.Ledger }

func (l bookLedger) Record(ctx context.Context, results []schemas.Result, failures []schemas.Failure, note collector.NoteFresh) ([]schemas.Summary, error) {
	rec, err := l.Ledger.Record(ctx, results, failures, note)
	return rec.Batches, err
}

type queue struct{ *broker.Broker }

func (q queue) Results(ctx context.Context, n int, wait time.Duration) ([]collector.Message, error) {
	got, err := q.Broker.Results(ctx, n, wait)
	msgs := make([]collector.Message, len(got))
	for i, d := range got {
		msgs[i] = d
	}
	return msgs, err
}

// records is as much of a ledger as is asked for here.
type records struct{ *ledger.Reader }

func (r records) Results(ctx context.Context, q schemas.ResultsQuery) iter.Seq2[schemas.Result, error] {
	return r.Reader.Results(ctx, q.Batch, ledger.Filter{ResultFilter: q.ResultFilter, From: q.From})
}

func (r records) Count(ctx context.Context, id string, f schemas.ResultFilter) (int64, error) {
	return r.Reader.Count(ctx, id, ledger.Filter{ResultFilter: f})
}

func (r records) Steering(ctx context.Context) (s schemas.Steering, err error) {
	text, _, err := r.Setting(ctx, schemas.KeySteering)
	if err != nil {
		return s, err
	}
	return schemas.ParseSteering(text)
}

const items = 600

func (f *fleet) submit(change func(*schemas.Batch)) {
	f.Helper()
	b := schemas.Batch{ID: "b", Actor: "ops", Manifest: "m", ManifestSHA256: "aa", Settings: schemas.Settings{Root: "/r"}}
	change(&b)
	_, err := producer.Submit(f.Context(), f.control, f.broker, producer.Submission{Batch: b, Total: items, Items: func(yield func(schemas.Request, error) bool) {
		for i := range int64(items) {
			if !yield(schemas.Request{Index: i, Tombstone: fmt.Sprint("t", i), Output: fmt.Sprint("o", i), Actor: "ops"}, nil) {
				return
			}
		}
	}})
	f.must(err)
}

func (f *fleet) batch() schemas.Summary {
	f.Helper()
	s, found, err := f.ledger.Find(f.Context(), "b")
	f.must(err)
	if !found {
		f.Fatal("the batch is gone")
	}
	return s
}

// take takes up to n messages as a worker does; none when there is no consumer.
func (f *fleet) take(n int) []*broker.Delivery {
	f.Helper()
	got, err := f.broker.Requests(f.Context(), "b", n, 0)
	if err != nil {
		return nil
	}
	return got
}

// work restores, or cancels, what comes of up to n messages.
func (f *fleet) work(n int) {
	f.Helper()
	for n > 0 {
		got := f.take(min(n, 100))
		if len(got) == 0 || !f.settle(got) {
			return
		}
		n -= len(got)
	}
}

// settle stores results and acknowledges, or gives back what cannot be stored.
func (f *fleet) settle(got []*broker.Delivery) bool {
	f.Helper()
	outcome, code := schemas.OutcomeRestored, schemas.Code("")
	if f.batch().Stopping() {
		outcome, code = schemas.OutcomeCancelled, schemas.CodeItemCancelled
	}
	g := schemas.ResultGroup{Batch: "b", Worker: "w"}
	for _, d := range got {
		var q schemas.RequestGroup
		f.must(json.Unmarshal(d.Data(), &q))
		for i := range q.Items {
			r := q.Request(i)
			if r.Tombstone != fmt.Sprint("t", r.Index) || r.Output != fmt.Sprint("o", r.Index) || r.Actor != "ops" {
				f.Errorf("another request: %+v", r)
			}
			g.Results = append(g.Results, schemas.Result{Request: r, Outcome: outcome, Code: code, Attempts: 1, Worker: "w", Size: 1, FinishedAt: time.Now()})
		}
	}
	err := f.broker.PublishResults(f.Context(), g)
	for _, d := range got {
		if err == nil {
			f.must(d.Ack())
		} else { // there is no stream that takes them
			f.must(d.Nak(0))
		}
	}
	return err == nil
}

// rounds lets time pass, n times as much as is between two looks at a batch, and
// works and records meanwhile. It says whether the batch has ended.
func (f *fleet) rounds(n int, look bool) bool {
	f.Helper()
	for range n {
		if look {
			f.look()
		}
		f.work(2 * items)
		if err := f.collector.Drain(f.Context()); err != nil {
			f.Log(err) // what it takes from is lost
		}
		if f.batch().State.Final() {
			return true
		}
	}
	return false
}

// look lets the control role look at the broker, which may have just come back.
func (f *fleet) look() {
	f.Helper()
	for {
		f.now = f.now.Add(11 * time.Second)
		err := f.control.LookAt(f.Context(), f.now)
		if err == nil {
			return
		}
		f.must(f.Context().Err())
		f.Log(err)
	}
}

// ends waits until the batch has ended. The server is a little behind with what it
// says of acknowledgements.
func (f *fleet) ends() {
	f.Helper()
	for end := time.Now().Add(time.Minute); !f.rounds(1, true); {
		if time.Now().After(end) {
			f.Fatalf("the batch does not end: %+v", f.batch())
		}
	}
}

// check checks what holds for a batch that has ended.
func (f *fleet) check(want schemas.State) {
	f.Helper()
	s := f.batch()
	if s.State != want || s.Counts.Done() != items {
		f.Errorf("%s with %+v, want %s", s.State, s.Counts, want)
	}
	kept, counted, err := f.ledger.Audit(f.Context(), "b")
	f.must(err)
	if kept != counted {
		f.Errorf("counts %+v, results %+v", kept, counted)
	}
	lines, err := evidence.CountItems(f.Context(), f.evidence, "b")
	f.must(err)
	if lines != items {
		f.Errorf("%d lines of evidence, want %d", lines, items)
	}
	if next, err := f.ledger.KeptTo(f.Context(), "b"); err != nil || next != 0 {
		f.Errorf("requests are kept to %d after the end, %v", next, err)
	}
}

func (f *fleet) requeued() (n int) {
	f.Helper()
	events, err := f.ledger.Events(f.Context(), "b", 0)
	f.must(err)
	for _, e := range events {
		if e.Change == schemas.ChangeRequeue {
			n++
		}
	}
	return n
}

func (f *fleet) stream(name string) jetstream.Stream {
	f.Helper()
	s, err := f.js.Stream(f.Context(), name)
	f.must(err)
	return s
}

func (f *fleet) deleteStream(name string) {
	f.Helper()
	f.must(f.js.DeleteStream(f.Context(), name))
}

// losses are ways in which a broker loses what it holds, in the middle of a batch
// of which some messages are in hand.
var losses = map[string]struct {
	lose func(f *fleet)
	// requests says that some are gone, and not just the way to them.
	requests bool
}{
	"everything": {func(f *fleet) {
		f.stopServer()
		f.must(os.RemoveAll(f.dir))
		f.startServer()
	}, true},
	"stream of requests": {func(f *fleet) { f.deleteStream(schemas.StreamRestore) }, true},
	"all requests":       {func(f *fleet) { f.must(f.stream(schemas.StreamRestore).Purge(f.Context())) }, true},
	"first requests": {func(f *fleet) {
		s := f.stream(schemas.StreamRestore)
		is := s.CachedInfo().State
		f.must(s.Purge(f.Context(), jetstream.WithPurgeSequence(is.FirstSeq+is.Msgs*2/3)))
	}, true},
	"some requests": {func(f *fleet) {
		s := f.stream(schemas.StreamRestore)
		for is := s.CachedInfo().State; is.FirstSeq <= is.LastSeq; is.FirstSeq += 7 {
			f.must(s.DeleteMsg(f.Context(), is.FirstSeq))
		}
	}, true},
	"results that are not recorded": {func(f *fleet) {
		f.settle(f.held)
		f.held = nil
		f.must(f.stream(schemas.StreamResults).Purge(f.Context()))
	}, true},
	"stream of results": {func(f *fleet) {
		f.settle(f.held)
		f.held = nil
		f.deleteStream(schemas.StreamResults)
	}, true},
	"buckets": {func(f *fleet) {
		for _, b := range []string{schemas.BucketBatches, schemas.BucketRetries, schemas.BucketFleet} {
			f.deleteStream("KV_" + b)
		}
	}, false},
	"consumer": {func(f *fleet) { f.must(f.stream(schemas.StreamRestore).DeleteConsumer(f.Context(), "b")) }, false},
	"collector's consumer": {func(f *fleet) {
		f.must(f.stream(schemas.StreamResults).DeleteConsumer(f.Context(), "collector"))
	}, false},
}

// Whatever the broker loses, the batch ends, with one result for each item.
func TestLosses(t *testing.T) {
	t.Parallel()
	for name, loss := range losses {
		for kind, where := range kinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				f := newFleet(t, where)
				f.submit(func(*schemas.Batch) {})
				f.work(50)
				f.must(f.collector.Drain(t.Context()))
				f.held = f.take(20)
				loss.lose(f)
				for _, d := range f.held {
					_ = d.Ack() // what is restored meanwhile is lost, too, if its results are
				}
				if loss.requests && f.rounds(12, false) {
					t.Fatal("it ends without anybody's looking after it: nothing was lost")
				}
				f.ends()
				f.check(schemas.StateSucceeded)
				if n := f.requeued(); loss.requests && n == 0 {
					t.Error("no event tells of it")
				}
			})
		}
	}
}

// In the middle of a sample, only the sample is published again, until it has
// passed.
func TestLossOfTheSample(t *testing.T) {
	t.Parallel()
	f := newFleet(t, kinds["SQLite"])
	f.submit(func(b *schemas.Batch) { b.Terms.Canary = &schemas.Canary{Size: 20} })
	f.work(5)
	f.must(f.collector.Drain(t.Context()))
	f.must(f.stream(schemas.StreamRestore).Purge(t.Context()))
	for f.requeued() == 0 {
		f.look()
	}
	if n := f.stream(schemas.StreamRestore).CachedInfo().State.Msgs; n != 15 {
		t.Errorf("%d messages are there again, want 15 of the sample", n)
	}
	f.ends()
	f.check(schemas.StateSucceeded)
}

// What is lost of a batch that is being cancelled gets its result, too.
func TestLossOfWhatIsCancelled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, kinds["SQLite"])
	f.submit(func(*schemas.Batch) {})
	f.work(50)
	f.must(f.collector.Drain(t.Context()))
	_, err := f.control.Change(t.Context(), schemas.BatchChange{
		BatchRef: schemas.BatchRef{Ref: "b"}, Command: schemas.Command{ID: "c", Actor: "ops"}, Change: schemas.ChangeCancel,
	})
	f.must(err)
	f.deleteStream(schemas.StreamRestore)
	f.ends()
	f.check(schemas.StateCancelled)
}

// A paused batch waits with it until it is resumed.
func TestLossWhilePaused(t *testing.T) {
	t.Parallel()
	f := newFleet(t, kinds["SQLite"])
	f.submit(func(b *schemas.Batch) { b.State = schemas.StatePaused })
	f.deleteStream(schemas.StreamRestore)
	change := func(to schemas.Change) {
		t.Helper()
		_, err := f.control.Change(t.Context(), schemas.BatchChange{
			BatchRef: schemas.BatchRef{Ref: "b"}, Command: schemas.Command{ID: string(to), Actor: "ops"}, Change: to,
		})
		f.must(err)
	}
	if f.rounds(12, true); f.requeued() > 0 {
		t.Error("requests of a paused batch are published")
	}
	change(schemas.ChangeResume)
	f.ends()
	f.check(schemas.StateSucceeded)
}

// Whoever submits while the broker loses everything submits again; what is lost
// behind a producer that goes on is found when it is done.
func TestLossWhileSubmitting(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"submits again": true, "goes on": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, kinds["SQLite"])
			broken := fmt.Errorf("interrupted")
			lost := false
			attempt := func() error {
				_, err := producer.Submit(t.Context(), f.control, f.broker, producer.Submission{
					Batch: schemas.Batch{ID: "b", Actor: "ops", ManifestSHA256: "aa"}, Total: 1000 + items,
					Items: func(yield func(schemas.Request, error) bool) {
						for i := range int64(1000 + items) {
							r := schemas.Request{Index: i, Tombstone: fmt.Sprint("t", i), Output: fmt.Sprint("o", i), Actor: "ops"}
							var err error
							if i == 1200 && !lost { // the first 512 are published
								lost = true
								f.deleteStream(schemas.StreamRestore)
								if again {
									err = broken
								} else {
									f.look()
								}
							}
							if !yield(r, err) {
								return
							}
						}
					},
				})
				return err
			}
			err := attempt()
			if again {
				if err == nil {
					t.Fatal("it was not interrupted")
				}
				f.look()
				err = attempt()
			}
			f.must(err)
			f.ends()
			if n := f.requeued(); (n == 0) != again {
				t.Errorf("requests were published again %d times", n)
			}
			if s := f.batch(); s.State != schemas.StateSucceeded || s.Counts.Restored != 1000+items {
				t.Errorf("%s with %+v", s.State, s.Counts)
			}
		})
	}
}

// A ledger that was lost makes the collector refuse, and nothing is removed.
func TestLossOfTheLedger(t *testing.T) {
	t.Parallel()
	f := newFleet(t, kinds["SQLite"])
	f.submit(func(*schemas.Batch) {})
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "other.sqlite"))
	f.must(err)
	defer func() { f.must(l.Close()) }()
	lines, err := evidence.Open(t.TempDir())
	f.must(err)
	defer func() { f.must(lines.Close()) }()
	book, err := collector.OpenBook(t.Context(), bookLedger{l}, lines, collector.Options{})
	f.must(err)
	_, err = control.New(t.Context(), book, f.broker, records{l.Reader}, l, f.collector.FinishIfDone, nil, zerolog.Nop())
	if !fault.Is(err, schemas.CodeLedgerLost) {
		t.Errorf("got error %v", err)
	}
	shown, others, err := f.broker.Activated(t.Context())
	if diff := cmp.Diff([]string{"b"}, slices.Concat(shown, others)); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	f.rounds(12, false)
	f.check(schemas.StateSucceeded)
}

// What is changed while the broker is away is shown when it is back, once.
func TestChangesWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	f := newFleet(t, kinds["SQLite"])
	f.submit(func(b *schemas.Batch) {
		b.Terms = schemas.Terms{Priority: schemas.PriorityBulk, MaxInFlight: 300, Canary: &schemas.Canary{Size: 20}}
	})
	_, err := f.control.Skip(t.Context(), schemas.ItemSkip{
		BatchRef: schemas.BatchRef{Ref: "b"}, Command: schemas.Command{ID: "s", Actor: "ops", Note: "damaged"}, Indexes: []int64{3},
	})
	f.must(err)
	f.look()
	f.stopServer()
	// What is recorded takes no second, and what is to be shown waits for longer.
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	yes, until := true, time.Now().Add(1000*time.Hour).In(time.FixedZone("", 7200))
	_, err = f.control.Change(soon(), schemas.BatchChange{
		BatchRef: schemas.BatchRef{Ref: "b"}, Command: schemas.Command{ID: "p", Actor: "ops"}, Change: schemas.ChangePause, Until: until,
	})
	_, ferr := f.control.ChangeFleet(soon(), schemas.FleetChange{Command: schemas.Command{ID: "f", Actor: "ops"}, Pause: &yes, Until: until})
	if err == nil || ferr == nil {
		t.Fatal("the broker is not away")
	}
	f.startServer()
	shown := func() bool {
		b, _, err := f.broker.Look(t.Context(), "b")
		f.must(err)
		s, err := f.broker.Steering(t.Context())
		f.must(err)
		return b != nil && b.State == schemas.StatePaused && s.Pause != nil
	}
	f.look()
	for end := time.Now().Add(time.Minute); !shown(); f.look() {
		if time.Now().After(end) {
			t.Fatal("it is not shown")
		}
	}
	puts := func() uint64 {
		return f.stream("KV_"+schemas.BucketBatches).CachedInfo().State.LastSeq + f.stream("KV_"+schemas.BucketFleet).CachedInfo().State.LastSeq
	}
	before := puts()
	for range 20 {
		f.look()
	}
	if n := puts() - before; n > 0 {
		t.Errorf("shown again %d times", n)
	}
}
