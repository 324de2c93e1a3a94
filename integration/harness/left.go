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
		if n := s.CachedInfo().State.Msgs; n > 0 && name == schemas.StreamRestore {
			left = append(left, fmt.Sprintf("%d requests", n))
		}
		consumers := s.ListConsumers(tb.Context())
		for c := range consumers.Info() {
			if c.Name == schemas.Single {
				continue // it stands for ever
			}
			if n := c.NumPending + uint64(c.NumAckPending); n > 0 || name == schemas.StreamRestore {
				left = append(left, fmt.Sprintf("consumer %s of %s with %d messages", c.Name, name, n))
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
			left = append(left, bucket+" "+key)
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
