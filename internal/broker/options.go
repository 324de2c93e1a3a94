package broker

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// Options say how Connect reaches a broker, and what Setup makes there. Either
// URL or Context must be set.
type Options struct {
	// URL is one address, or several of one cluster with commas between:
	// nats://host:4222, tls://host:4222, ws://, wss://.
	URL string
	// Context is the name of a context of the nats command line tool. What is
	// set here besides counts for more than what is in it.
	Context string
	// Name is what the server calls the connection, a role and its host.
	Name string

	// Creds is a credentials file (JWT and key), NKey a file with an NKey seed.
	Creds, NKey    string
	User, Password string
	Token          string
	// CA, Cert and Key are PEM files: the server's CA, and what the client shows
	// for itself.
	CA, Cert, Key string

	// StartTimeout is how long Connect and Ready wait for what is not there yet;
	// 0 does not wait. Waiting, if set, is told every few seconds what for.
	StartTimeout time.Duration
	Waiting      func(err error)
	// Log is told when the connection is lost, comes back, or is denied something.
	Log zerolog.Logger

	// Replicas is on how many servers of a cluster streams and buckets are kept
	// (default 1).
	Replicas int
	Bounds
}

// Bounds are how much the broker keeps at most. Zero values mean the defaults. The
// server reserves the bytes when Setup makes a stream.
type Bounds struct {
	// QueueBytes bounds the stream of requests (default 8 GiB, about 50 million
	// items that wait). A full queue refuses requests; it has room again when
	// items are done.
	QueueBytes int64
	// ResultsBytes bounds the stream of results (default 6 GiB, about 12 million
	// results). While a collector records, it keeps at most three quarters of that;
	// full of results that nobody has recorded, it refuses more.
	ResultsBytes int64
	// ResultsAge is how long results are kept after they are recorded, where
	// ResultsBytes allows (default 30 days), so that ledger and evidence could be
	// rebuilt from them.
	ResultsAge time.Duration
	// RetriesBytes bounds the records of failed attempts (default 1 GiB, about two
	// million items). Beyond it the oldest are forgotten: their items are tried more
	// often then, never less.
	RetriesBytes int64
}

func (b Bounds) withDefaults() Bounds {
	b.QueueBytes = cmp.Or(b.QueueBytes, 8<<30)
	b.ResultsBytes = cmp.Or(b.ResultsBytes, 6<<30)
	b.ResultsAge = cmp.Or(b.ResultsAge, 30*24*time.Hour)
	b.RetriesBytes = cmp.Or(b.RetriesBytes, 1<<30)
	return b
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "exhume"
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	o.Bounds = o.Bounds.withDefaults()
	return o
}

// String names the broker, without secrets.
func (o Options) String() string {
	switch {
	case o.Context != "":
		return fmt.Sprintf("NATS context %q", o.Context)
	case o.URL != "":
		return Redact(o.URL)
	default:
		return "embedded broker"
	}
}

// validate finds what no server would have to be asked for.
func (o Options) validate() error {
	switch {
	case o.URL == "" && o.Context == "":
		return errors.New("no broker is named: give its URL (nats://host:4222) or the name of a NATS context")
	case o.URL != "" && o.Context != "":
		return fmt.Errorf("broker: both a URL (%s) and a NATS context (%s) are given: leave one out", Redact(o.URL), o.Context)
	case (o.Cert == "") != (o.Key == ""):
		return errors.New("broker: a client certificate needs its key, and the other way round")
	}
	for _, f := range []struct{ what, path string }{
		{"credentials file", o.Creds}, {"NKey seed file", o.NKey}, {"CA", o.CA}, {"client certificate", o.Cert}, {"client key", o.Key},
	} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			return fmt.Errorf("broker: %s: %w", f.what, err)
		}
	}
	if o.URL == "" {
		return nil
	}
	for part := range strings.SplitSeq(o.URL, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") {
			part = "nats://" + part
		}
		// What the parser says of a URL repeats the URL, with its password.
		u, err := url.Parse(part)
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return fmt.Errorf("broker URL %q: want nats://host:4222 or tls://host:4222, several with commas between, special characters of a password as %%XX", Redact(o.URL))
		}
	}
	return nil
}

// auth are the options by which the server knows who connects.
func (o Options) auth() (opts []nats.Option, err error) {
	if o.User != "" {
		opts = append(opts, nats.UserInfo(o.User, o.Password))
	}
	if o.Token != "" {
		opts = append(opts, nats.Token(o.Token))
	}
	if o.Creds != "" {
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(o.NKey)
		if err != nil {
			return nil, fmt.Errorf("broker: NKey seed file %s: %w", o.NKey, err)
		}
		opts = append(opts, nkey)
	}
	if o.CA != "" {
		opts = append(opts, nats.RootCAs(o.CA))
	}
	if o.Cert != "" {
		opts = append(opts, nats.ClientCert(o.Cert, o.Key))
	}
	return opts, nil
}

// natsOptions are those of a connection that never gives up.
func (b *Broker) natsOptions() ([]nats.Option, error) {
	o, log := b.opts, b.opts.Log
	if err := o.validate(); err != nil {
		return nil, err
	}
	auth, err := o.auth()
	return append(auth,
		nats.Name(o.Name),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		// Credentials may be renewed while the broker refuses the old ones.
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(15*time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			b.denials.forget()
			if !b.isClosing() {
				log.Warn().Err(err).Str("broker", o.String()).Msg("lost the broker; connecting again")
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info().Str("broker", nc.ConnectedUrlRedacted()).Msg("connected to the broker again")
		}),
		nats.ErrorHandler(func(nc *nats.Conn, _ *nats.Subscription, err error) {
			b.trouble(err)
			b.deny(nc, err)
		}),
	), err
}

// reconnectDelay spreads the clients of a broker that comes back: up to 250 ms
// at first, doubling up to 8 s.
func reconnectDelay(attempts int) time.Duration {
	most := 250 * time.Millisecond << min(max(attempts-1, 0), 5)
	return most/4 + rand.N(most*3/4) //nolint:gosec // spreads load, guards nothing
}

// trouble is told of what goes wrong outside any call.
func (b *Broker) trouble(err error) {
	b.mu.Lock()
	again := b.denied != nil && b.denied.Error() == err.Error()
	if errors.Is(err, nats.ErrPermissionViolation) {
		b.denied = err
	}
	b.mu.Unlock()
	if !again {
		b.opts.Log.Error().Err(err).Str("broker", b.opts.String()).Msg("the broker reports trouble")
	}
}

func (b *Broker) isClosing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closing
}
