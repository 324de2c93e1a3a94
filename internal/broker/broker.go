// Package broker is everything that exhume knows about NATS: connecting to a
// server or running one inside the process, the streams, consumers and buckets,
// and how messages are published, fetched and settled.
package broker

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// callTimeout bounds one call to the server. It is generous, because a call may
// wait for a disk that others keep busy; a broker that is gone is noticed by
// the connection's pings.
const callTimeout = 30 * time.Second

// Broker is a connection to JetStream. It is safe for concurrent use.
type Broker struct {
	nc *nats.Conn
	js jetstream.JetStream
	ns *server.Server // nil unless embedded

	mu        sync.Mutex
	buckets   map[string]jetstream.KeyValue
	reclaimed map[string]uint64 // by stream and consumer; see Reclaim
}

// Embed runs a NATS server inside this process, without any listener, that
// keeps its streams below dir and syncs every write, and connects to it.
func Embed(dir string) (*Broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	ns, err := server.NewServer(&server.Options{
		ServerName: "exhume",
		DontListen: true,
		NoLog:      true,
		NoSigs:     true,
		JetStream:  true,
		StoreDir:   dir,
		SyncAlways: true,
		// The streams have bounds of their own; this is only the sum that the
		// server lets them reserve.
		JetStreamMaxStore:  1 << 50,
		JetStreamMaxMemory: 64 << 20,
		MaxPayload:         8 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	ns.Start()
	if !ns.JetStreamEnabled() {
		ns.Shutdown()
		return nil, fmt.Errorf("embedded broker: it cannot keep its streams in %s; is the directory writable, and its content the broker's own?", dir)
	}
	if !ns.ReadyForConnections(callTimeout) {
		ns.Shutdown()
		return nil, fmt.Errorf("embedded broker: not ready after %s; is %s on a working disk?", callTimeout, dir)
	}
	b, err := connect("", nats.InProcessServer(ns))
	if err != nil {
		ns.Shutdown()
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	b.ns = ns
	return b, nil
}

func connect(url string, opts ...nats.Option) (*Broker, error) {
	nc, err := nats.Connect(url, append([]nats.Option{
		nats.Name("exhume"),
		nats.MaxReconnects(-1),
		nats.PingInterval(20 * time.Second),
	}, opts...)...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(callTimeout))
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &Broker{nc: nc, js: js, buckets: map[string]jetstream.KeyValue{}, reclaimed: map[string]uint64{}}, nil
}

// Close sends what is still buffered (acknowledgements), disconnects, and stops
// an embedded server.
func (b *Broker) Close() error {
	err := b.nc.FlushTimeout(callTimeout)
	if errors.Is(err, nats.ErrConnectionClosed) {
		err = nil
	}
	b.nc.Close()
	if b.ns != nil {
		b.ns.Shutdown()
		b.ns.WaitForShutdown()
	}
	return err
}
