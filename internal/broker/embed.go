package broker

import (
	"fmt"
	"net"
	"os"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// EmbedOption changes how Embed runs its server.
type EmbedOption func(*embedding) error

// embedding is an embedded broker in the making.
type embedding struct {
	server server.Options
	bounds Bounds
}

// Within sets how much the broker keeps at most. Of a disk that is smaller nothing
// is reserved.
func Within(b Bounds) EmbedOption {
	return func(e *embedding) error {
		e.bounds = b
		return nil
	}
}

// Credentials are what a listening server asks for: user and password, or a
// token, which must be a new one at each start. All empty asks for nothing.
type Credentials struct {
	User, Password string
	Token          string
}

// Listen lets other processes join: the server listens on addr, host:port; port
// 0 takes a free one (see Address). What it hears is not encrypted. Without
// credentials, whoever reaches the address may do everything, so that they are
// required anywhere but on loopback.
func Listen(addr string, c Credentials) EmbedOption {
	return func(e *embedding) error {
		at, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			return fmt.Errorf("listen on %q: %w; want host:port", addr, err)
		}
		switch {
		case c.Token != "" && c.User+c.Password != "":
			return fmt.Errorf("listen on %q: give a token, or a user and a password, not both", addr)
		case (c.User == "") != (c.Password == ""):
			return fmt.Errorf("listen on %q: a user needs a password, and the other way round", addr)
		case c == Credentials{} && !at.IP.IsLoopback():
			return fmt.Errorf("listen on %q: others could reach it, so a user and a password, or a token, must be set; or listen on 127.0.0.1", addr)
		}
		// The server itself would only be silent about an address that it cannot have.
		l, err := net.ListenTCP("tcp", at)
		if err != nil {
			return fmt.Errorf("listen on %q: %w", addr, err)
		}
		o := &e.server
		o.DontListen, o.Host, o.Port = false, at.IP.String(), at.Port
		if at.IP == nil {
			o.Host = "0.0.0.0"
		}
		if at.Port == 0 {
			o.Port = server.RANDOM_PORT
		}
		o.Username, o.Password, o.Authorization = c.User, c.Password, c.Token
		return l.Close()
	}
}

// Embed runs a NATS server inside this process that keeps its streams below dir
// and syncs every write, and connects to it. Without Listen nobody else can
// reach it.
func Embed(dir string, opts ...EmbedOption) (*Broker, error) {
	b, err := runEmbedded(dir, opts)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	return b, nil
}

func runEmbedded(dir string, opts []EmbedOption) (*Broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	e := &embedding{server: server.Options{
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
	}}
	for _, set := range opts {
		if err := set(e); err != nil {
			return nil, err
		}
	}
	o := &e.server
	ns, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	b := newBroker(Options{User: o.Username, Password: o.Password, Token: o.Authorization, Bounds: e.bounds})
	b.ns, b.listens, b.reclaims = ns, !o.DontListen, o.DontListen || o.Authorization != ""
	if err := b.start(dir); err != nil {
		ns.Shutdown()
		return nil, err
	}
	return b, nil
}

// start starts the server in the process and connects to it.
func (b *Broker) start(dir string) error {
	b.ns.Start()
	if !b.ns.JetStreamEnabled() {
		return fmt.Errorf("it cannot keep its streams in %s; is the directory writable, and its content the broker's own?", dir)
	}
	if !b.ns.ReadyForConnections(callTimeout) {
		return fmt.Errorf("not ready after %s; is %s on a working disk?", callTimeout, dir)
	}
	opts, err := b.opts.auth()
	if err != nil {
		return err
	}
	return b.dial(append(opts, nats.InProcessServer(b.ns)))
}

// Address is where an embedded server listens, host:port; empty when it does not.
func (b *Broker) Address() string {
	if b.ns == nil || !b.listens {
		return ""
	}
	return b.ns.Addr().String()
}
