package harness

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// Left describes what waits in a broker: requests, consumers of batches, results
// that nobody acknowledged, active batches, retry records.
func Left(tb testing.TB, js jetstream.JetStream) []string {
	tb.Helper()
	var left []string
	for _, name := range []string{schemas.StreamRestore, schemas.StreamResults} {
		s, err := js.Stream(tb.Context(), name)
		if err != nil {
			tb.Fatal(err)
		}
		if now := s.CachedInfo().State; now.Msgs > 0 && name == schemas.StreamRestore {
			left = append(left, fmt.Sprintf("%d requests of %s to %s, number %d the last", now.Msgs, clock(now.FirstTime), clock(now.LastTime), now.LastSeq))
		}
		consumers := s.ListConsumers(tb.Context())
		for c := range consumers.Info() {
			if c.Name == schemas.Single {
				continue // it stands for ever
			}
			if n := c.NumPending + uint64(c.NumAckPending); n > 0 || name == schemas.StreamRestore {
				left = append(left, fmt.Sprintf("consumer %s of %s, made %s, with %d messages after number %d", c.Name, name, clock(c.Created), n, c.Delivered.Stream))
			}
		}
	}
	for _, bucket := range []string{schemas.BucketBatches, schemas.BucketRetries} {
		kv, err := js.KeyValue(tb.Context(), bucket)
		if err != nil {
			tb.Fatal(err)
		}
		keys, err := kv.ListKeys(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		for key := range keys.Keys() {
			if key == schemas.Single {
				continue
			}
			entry, err := kv.Get(tb.Context(), key)
			if err != nil {
				continue // it is gone just now
			}
			left = append(left, fmt.Sprintf("%s %s since %s: %s", bucket, key, clock(entry.Created()), entry.Value()))
		}
	}
	return left
}

// openBroker opens the world's streams with a server of its own. It fails when
// they are still in use.
func (w *World) openBroker(tb testing.TB) jetstream.JetStream {
	tb.Helper()
	if w.NATS != "" {
		return ConnectNATS(tb, w.NATS)
	}
	ns, err := server.NewServer(&server.Options{
		DontListen: true, NoLog: true, NoSigs: true, JetStream: true, JetStreamMaxStore: 1 << 50,
		StoreDir: filepath.Join(w.Config.Exhume.StateDir, "broker"),
	})
	if err != nil {
		tb.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		tb.Fatal("the broker does not start")
	}
	tb.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return ConnectNATS(tb, "", nats.InProcessServer(ns))
}

// ConnectNATS connects to a server until the test ends.
func ConnectNATS(tb testing.TB, url string, opts ...nats.Option) jetstream.JetStream {
	tb.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

func clock(at time.Time) string { return at.Format("15:04:05.000") }
