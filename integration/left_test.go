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
			left = append(left, bucket+" "+key)
		}
	}
	return left
}

// openBroker opens the world's streams with a server of its own. It fails when
// they are still in use.
func (w *world) openBroker(t *testing.T) jetstream.JetStream {
	t.Helper()
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
	nc, err := nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nc.Close()
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
