package integration

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

// left describes what waits in the world's broker: requests, consumers of
// batches, results that nobody acknowledged, active batches, retry records.
func (w *world) left(t *testing.T) []string {
	t.Helper()
	js := w.openBroker(t)
	var left []string
	for _, name := range []string{schemas.StreamRestore, schemas.StreamResults} {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().State.Msgs; n > 0 && name == schemas.StreamRestore {
			left = append(left, fmt.Sprintf("%d requests", n))
		}
		consumers := s.ListConsumers(t.Context())
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
		kv, err := js.KeyValue(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := kv.ListKeys(t.Context())
		if err != nil {
			t.Fatal(err)
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
func (w *world) openBroker(t *testing.T) jetstream.JetStream {
	t.Helper()
	if w.nats != "" {
		return connectNATS(t, w.nats)
	}
	ns, err := server.NewServer(&server.Options{
		DontListen: true, NoLog: true, NoSigs: true, JetStream: true, JetStreamMaxStore: 1 << 50,
		StoreDir: filepath.Join(w.cfg.Exhume.StateDir, "broker"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker does not start")
	}
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return connectNATS(t, "", nats.InProcessServer(ns))
}

// connectNATS connects to a server until the test ends.
func connectNATS(t *testing.T, url string, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
