package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const (
	// tryTimeout bounds one look at whether the broker is ready.
	tryTimeout = 5 * time.Second
	// tellEvery is how often Waiting is told.
	tellEvery = 5 * time.Second
	// minLevel is the level of JetStream's API that has atomic publishing.
	minLevel = 2
)

// Connect connects to a NATS server that runs elsewhere, and makes sure that
// JetStream answers there. It waits up to StartTimeout for a server that is not
// there yet; what waiting cannot mend fails at once. Once connected, the broker
// stays so: it reconnects for ever.
//
// The error of a broker that is away carries CodeBrokerDown, that of one that
// does not let this user work CodeBrokerDenied.
func Connect(ctx context.Context, o Options) (*Broker, error) {
	b := newBroker(o)
	opts, err := b.natsOptions()
	if err != nil {
		return nil, err
	}
	err = b.await(ctx, func(ctx context.Context) error {
		if b.nc == nil {
			if err := b.dial(opts); err != nil {
				return b.refused(err)
			}
		}
		return b.probe(ctx)
	})
	if err != nil {
		if b.nc != nil {
			_ = b.Close() // the error that counts is the other one
		}
		return nil, err
	}
	return b, nil
}

// Ready makes sure that a collector has set the fleet up: that streams and
// buckets are there. It waits for it as Connect waits. Roles other than the
// collector call it before anything else; its error carries CodeNoCollector.
func (b *Broker) Ready(ctx context.Context) error {
	return b.await(ctx, func(ctx context.Context) error {
		for _, s := range b.streams() {
			_, err := b.js.Stream(ctx, s.Name)
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				return fault.New(schemas.CodeNoCollector, "%s: no collector has set the fleet up yet (there is no stream %s): start 'exhume collector'", b.opts, s.Name)
			}
			if err != nil {
				return b.unavailable(err)
			}
		}
		return nil
	})
}

// await tries until it succeeds, fails for good, or StartTimeout is over.
func (b *Broker) await(ctx context.Context, try func(context.Context) error) error {
	start := time.Now()
	var told time.Time
	for {
		bounded, cancel := context.WithTimeout(ctx, tryTimeout)
		err := try(bounded)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !fault.Is(err, schemas.CodeBrokerDown) && !fault.Is(err, schemas.CodeNoCollector) {
			return err
		}
		switch left := b.opts.StartTimeout - time.Since(start); {
		case b.opts.StartTimeout <= 0:
			return err
		case left <= 0:
			return fault.New(fault.CodeOf(err), "%w; waited %s for it", err, b.opts.StartTimeout)
		default:
			if b.opts.Waiting != nil && time.Since(told) >= tellEvery {
				told = time.Now()
				b.opts.Waiting(err)
			}
			pause(ctx, min(left, time.Second/2))
		}
	}
}

// dial connects once.
func (b *Broker) dial(opts []nats.Option) (err error) {
	var set natscontext.Settings
	if b.opts.Context != "" {
		b.nc, set, err = natscontext.Connect(b.opts.Context, opts...)
	} else {
		b.nc, err = nats.Connect(b.opts.URL, opts...)
	}
	if err != nil {
		b.nc = nil
		return err
	}
	timeout := jetstream.WithDefaultTimeout(callTimeout)
	switch {
	case set.JSAPIPrefix != "":
		b.api = strings.TrimSuffix(set.JSAPIPrefix, ".") + "."
		b.js, err = jetstream.NewWithAPIPrefix(b.nc, set.JSAPIPrefix, timeout)
	case set.JSDomain != "":
		b.api = "$JS." + set.JSDomain + ".API."
		b.js, err = jetstream.NewWithDomain(b.nc, set.JSDomain, timeout)
	default:
		b.api = jetstream.DefaultAPIPrefix
		b.js, err = jetstream.New(b.nc, timeout)
	}
	if err != nil {
		b.nc.Close()
		b.nc = nil
		return err
	}
	b.js = guarded{b.js, b}
	return nil
}

// refused explains why there is no connection.
func (b *Broker) refused(err error) error {
	var opError *net.OpError
	var dnsError *net.DNSError
	_, alert := errors.AsType[tls.AlertError](err)
	_, badServer := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrNkeysNotSupported):
		return fmt.Errorf("%s: the broker refuses these credentials (%w): check user, password, token, credentials or NKey file", b.opts, err)
	case badServer:
		return fmt.Errorf("%s: the broker's certificate is not trusted (%w): name the CA that signed it", b.opts, err)
	case alert, errors.Is(err, nats.ErrTLS):
		return fmt.Errorf("%s: the broker ends the TLS handshake (%w): does it ask for a client certificate and key?", b.opts, err)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%s: the broker does not speak TLS: use nats:// and no CA or certificate, or turn TLS on there", b.opts)
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout), errors.As(err, &opError), errors.As(err, &dnsError):
		return fault.New(schemas.CodeBrokerDown, "%s: no broker answers (%w): is the NATS server running, and is this its address?", b.opts, err)
	default:
		return fmt.Errorf("%s: cannot connect to the broker: %w", b.opts, err)
	}
}

// probe makes sure that JetStream is there and may be used.
func (b *Broker) probe(ctx context.Context) error {
	if on, level := b.nc.ConnectedServerJetStream(); on && level < minLevel {
		return fmt.Errorf("%s: the server is version %s and exhume needs nats-server 2.12 or newer (better 2.15)", b.opts, b.nc.ConnectedServerVersion())
	}
	_, err := b.js.Stream(ctx, schemas.StreamRestore)
	if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return b.unavailable(err)
}

// unavailable explains why JetStream does not do what it should.
func (b *Broker) unavailable(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%s: JetStream is not enabled for this account: give it JetStream limits on the server", b.opts)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%s: JetStream is not enabled: start the server with 'jetstream: enabled' in its configuration, or with -js", b.opts)
	case fault.Is(err, schemas.CodeBrokerDenied):
		return err
	default:
		return fault.New(schemas.CodeBrokerDown, "%s: JetStream does not answer (%w): has its cluster a quorum?", b.opts, err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
