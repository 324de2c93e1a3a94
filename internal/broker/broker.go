// Package broker is everything that exhume knows about NATS: connecting to a
// server or running one inside the process, the streams, consumers and buckets,
// how messages are published, fetched and settled, and how the control API is
// served and called.
package broker

import (
	"errors"
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
	opts Options
	nc   *nats.Conn
	js   jetstream.JetStream
	api  string         // the prefix of the subjects of JetStream's API
	ns   *server.Server // nil unless embedded
	// denials reach the calls that they concern.
	denials *denials
	// listens says that others can reach an embedded broker, reclaims that none of
	// those who could before it was started can still do so.
	listens, reclaims bool
	// activating is held while a batch's consumer is set up.
	activating sync.Mutex
	// trimming is held while requests that are done are removed, and guards trimmed: up
	// to which sequence that was tried, by batch. Sequences never come again.
	trimming sync.Mutex
	trimmed  map[string]uint64
	// publishTimeout bounds one try at a publication. A message that was on its way to
	// a server that died, or whose connection broke, is never answered.
	publishTimeout time.Duration

	mu        sync.Mutex
	buckets   map[string]jetstream.KeyValue
	clock     time.Time // what the server's clock showed at clockAt; see serverTime
	clockAt   time.Time
	reclaimed map[string]reclaim // by stream and consumer; see Reclaim
	denied    error              // what the server forbade last
	closing   bool
}

func newBroker(o Options) *Broker {
	return &Broker{opts: o.withDefaults(), denials: newDenials(), publishTimeout: publishTimeout, buckets: map[string]jetstream.KeyValue{}, reclaimed: map[string]reclaim{}, trimmed: map[string]uint64{}}
}

// Close sends what is still buffered (acknowledgements), disconnects, and stops
// an embedded server. A broker that is away is not waited for: what it does not
// learn only repeats harmless work.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	var err error
	if b.nc.IsConnected() {
		err = b.nc.FlushTimeout(callTimeout)
	}
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
