package broker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/proctest"
	"github.com/exhume/exhume/schemas"
)

const anyone = "" // a server that asks for nothing

func TestConnectWaitsForTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(t, "late", anyone)
	waiting := make(chan error, 1)
	connected := make(chan error, 1)
	var b *Broker
	go func() {
		var err error
		b, err = Connect(t.Context(), Options{URL: s.url(), StartTimeout: time.Minute, Waiting: func(err error) { waiting <- err }})
		connected <- err
	}()
	if err := <-waiting; !fault.Is(err, schemas.CodeBrokerDown) || !strings.Contains(err.Error(), s.url()) {
		t.Errorf("waiting for %v", err)
	}
	s.start()
	must(t, <-connected)
	must(t, b.Ping(t.Context()))
	must(t, b.Close())
}

func TestConnectGivesUp(t *testing.T) {
	t.Parallel()
	url := fmt.Sprintf("nats://ops:secret@127.0.0.1:%d", proctest.FreePort(t))
	for _, timeout := range []time.Duration{0, 10 * time.Millisecond} {
		_, err := Connect(t.Context(), Options{URL: url, StartTimeout: timeout})
		if !fault.Is(err, schemas.CodeBrokerDown) || !strings.Contains(err.Error(), "is the NATS server running") ||
			strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "waited") != (timeout > 0) {
			t.Errorf("timeout %s: got error %v", timeout, err)
		}
	}
}

// Options that cannot work are refused before any server is asked, and tell no
// secret.
func TestOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	here := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(here, nil, 0o600))
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"none":          {Options{}, "no broker is named"},
		"both":          {Options{URL: "nats://u:secret@h", Context: "c"}, "both a URL (nats://***@h) and a NATS context (c)"},
		"scheme":        {Options{URL: "http://u:secret@h"}, `"http://***@h": want nats://`},
		"no host":       {Options{URL: "nats://u:secret@"}, `"nats://***@": want nats://`},
		"bad escape":    {Options{URL: "nats://u:%secret@h"}, `"nats://***@h": want nats://`},
		"second":        {Options{URL: "nats://h,nats://u:sec ret@h:x"}, `"nats://h,nats://***@h:x": want nats://`},
		"creds":         {Options{URL: "h", Creds: "/missing"}, "credentials file: stat /missing"},
		"nkey":          {Options{URL: "h", NKey: "/missing"}, "NKey seed file: stat /missing"},
		"empty nkey":    {Options{URL: "h", NKey: here}, "NKey seed file " + here},
		"ca":            {Options{URL: "h", CA: "/missing"}, "CA: stat /missing"},
		"half a pair":   {Options{URL: "h", Cert: here}, "needs its key"},
		"no such names": {Options{Context: "exhume-test-missing"}, `NATS context "exhume-test-missing"`},
	} {
		_, err := Connect(t.Context(), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sec ret") {
			t.Errorf("%s: got error %v, want %q", name, err, c.want)
		}
	}
}

func TestConnectWithCredentials(t *testing.T) {
	t.Parallel()
	user, err := nkeys.CreateUser()
	must(t, err)
	public, err := user.PublicKey()
	must(t, err)
	seed, err := user.Seed()
	must(t, err)
	seedFile := filepath.Join(t.TempDir(), "user.nk")
	must(t, os.WriteFile(seedFile, seed, 0o600))
	s := startServer(t, fmt.Sprintf(`authorization { users: [ { user: ops, password: "pass:w@rd" }, { nkey: %s } ] }`, public))
	token := startServer(t, `authorization { token: "a-token" }`)
	for name, o := range map[string]Options{
		"password":        {URL: s.url(), User: "ops", Password: "pass:w@rd"},
		"password in URL": {URL: fmt.Sprintf("nats://ops:pass%%3Aw%%40rd@127.0.0.1:%d", s.port)},
		"NKey":            {URL: s.url(), NKey: seedFile},
		"token":           {URL: token.url(), Token: "a-token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			must(t, connect(t, o).Ping(t.Context()))
		})
	}
	t.Run("wrong", func(t *testing.T) {
		t.Parallel()
		for _, o := range []Options{
			{URL: s.url()}, {URL: s.url(), User: "ops", Password: "wrong"}, {URL: token.url(), Token: "wrong"}, {URL: token.url(), NKey: seedFile},
		} {
			o.StartTimeout = time.Minute // waiting would not help, once the server is there
			_, err := Connect(t.Context(), o)
			if err == nil || fault.Is(err, schemas.CodeBrokerDown) || !strings.Contains(err.Error(), "refuses these credentials") {
				t.Errorf("got error %v", err)
			}
		}
	})
}

func TestConnectWithTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	serverCert, serverKey := ca.issue(t, "server")
	clientCert, clientKey := ca.issue(t, "client")
	s := startServer(t, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", serverCert, serverKey, ca.file))
	good := Options{URL: strings.Replace(s.url(), "nats:", "tls:", 1), CA: ca.file, Cert: clientCert, Key: clientKey}
	must(t, connect(t, good).Ping(t.Context()))

	plain := startServer(t, anyone)
	must(t, connect(t, Options{URL: plain.url()}).Ping(t.Context()))
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no client certificate": {func(o *Options) { o.Cert, o.Key = "", "" }, "does it ask for a client certificate"},
		"another authority":     {func(o *Options) { o.CA = newAuthority(t).file }, "name the CA that signed it"},
		"no TLS there":          {func(o *Options) { o.URL = plain.url() }, "the broker does not speak TLS"},
	} {
		o := good
		o.StartTimeout = time.Minute
		c.change(&o)
		_, err := Connect(t.Context(), o)
		if err == nil || fault.Is(err, schemas.CodeBrokerDown) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func TestConnectWithContext(t *testing.T) {
	t.Parallel()
	s := startServer(t, `authorization { users: [ { user: ops, password: secret } ] }`)
	file := filepath.Join(t.TempDir(), "fleet.json")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `{"url": %q, "user": "ops", "password": "secret"}`, s.url()), 0o600))
	b := connect(t, Options{Context: file})
	must(t, b.Setup(t.Context()))
	must(t, b.Ready(t.Context()))
}

// A domain changes the subjects of JetStream's API.
func TestContextWithDomain(t *testing.T) {
	t.Parallel()
	s := newServer(t, "hub", anyone)
	text, err := os.ReadFile(s.config)
	must(t, err)
	must(t, os.WriteFile(s.config, []byte(strings.Replace(string(text), "jetstream {", "jetstream { domain: hub,", 1)), 0o600))
	s.start()
	file := filepath.Join(t.TempDir(), "hub.json")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `{"url": %q, "jetstream_domain": "hub"}`, s.url()), 0o600))
	b := connect(t, Options{Context: file})
	must(t, b.Setup(t.Context()))
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
	must(t, b.Publish(t.Context(), requests(0, 3), 1))
	for _, d := range take(t, b, 3, time.Minute) {
		must(t, d.Ack())
	}
	must(t, b.SetRetry(t.Context(), "b", 1, schemas.Retry{Attempts: 1}))
	if r, err := b.Retry(t.Context(), "b", 1); err != nil || r.Attempts != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestConnectNamesWhatJetStreamLacks(t *testing.T) {
	t.Parallel()
	without := newServer(t, "without", anyone)
	must(t, os.WriteFile(without.config, fmt.Appendf(nil, "listen: 127.0.0.1:%d\nlog_file: /dev/null", without.port), 0o600))
	without.start()
	account := startServer(t, `accounts { A: { users: [ { user: a, password: a } ] }, B: { jetstream: enabled } }`)
	denied := startServer(t, `authorization { users: [ { user: a, password: a, permissions: { publish: "other" } } ] }`)
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"server":  {Options{URL: without.url()}, "JetStream is not enabled: start the server"},
		"account": {Options{URL: account.url(), User: "a", Password: "a"}, "JetStream is not enabled for this account"},
		"user":    {Options{URL: denied.url(), User: "a", Password: "a"}, `does not let this user work (nats: permissions violation: Permissions Violation for Publish to "$JS.API`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.o.StartTimeout = time.Minute
			_, err := Connect(t.Context(), c.o)
			if err == nil || fault.Is(err, schemas.CodeBrokerDown) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	s := startServer(t, anyone)
	collector := connect(t, Options{URL: s.url()})
	at, err := Connect(t.Context(), Options{URL: s.url()})
	must(t, err)
	if err := at.Ready(t.Context()); !fault.Is(err, schemas.CodeNoCollector) || !strings.Contains(err.Error(), "start 'exhume collector'") {
		t.Errorf("got error %v", err)
	}
	must(t, at.Close())
	var waiting []error
	worker := connect(t, Options{URL: s.url(), Waiting: func(err error) {
		waiting = append(waiting, err)
		must(t, collector.Setup(t.Context()))
	}})
	must(t, worker.Ready(t.Context()))
	if len(waiting) != 1 || !fault.Is(waiting[0], schemas.CodeNoCollector) {
		t.Errorf("waited for %v", waiting)
	}
}

// A server that goes and comes back is connected to again, and what it kept is there.
func TestReconnect(t *testing.T) {
	t.Parallel()
	s := startServer(t, anyone)
	var log lines
	b := connect(t, Options{URL: s.url(), Log: zerolog.New(&log)})
	must(t, b.Setup(t.Context()))
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
	must(t, b.Publish(t.Context(), requests(0, 10), 1))
	seen := make(chan string, 10)
	done := make(chan error, 1)
	go func() {
		done <- b.WatchBatches(t.Context(), func(b schemas.Batch) { seen <- b.ID }, func(string) {})
	}()
	if id := <-seen; id != "b" {
		t.Errorf("saw %s", id)
	}
	s.kill()
	for b.nc.IsConnected() {
		pause(t.Context(), time.Millisecond)
	}
	if err := b.Ping(t.Context()); !fault.Is(err, schemas.CodeBrokerDown) {
		t.Errorf("got error %v", err)
	}
	must(t, b.Progress(schemas.Summary{})) // nobody hears it, and nobody has to
	turnAway(t, s.port, 4)
	s.start()
	must(t, b.Publish(t.Context(), requests(10, 20), 1)) // waits until the server is back
	if got := indexes(t, take(t, b, 100, time.Minute)); len(got) != 20 {
		t.Errorf("got %v", got)
	}
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "c"}))
	for id := range seen { // the watch goes on
		if id == "c" {
			break
		}
	}
	for _, want := range []string{"lost the broker", "connected to the broker again"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	must(t, b.Close())
	if err := <-done; err == nil && t.Context().Err() == nil {
		t.Error("the watch ends without an error")
	}
}

// turnAway hangs up on so many connections.
func turnAway(t *testing.T, port, n int) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	must(t, err)
	must(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute)))
	for range n {
		c, err := l.Accept()
		must(t, err)
		must(t, c.Close())
	}
	must(t, l.Close())
}

func TestReclaimLeavesOtherBrokersAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, anyone)
	for name, b := range map[string]*Broker{"outside": connect(t, Options{URL: s.url()}), "listening": listening(t, Credentials{})} {
		must(t, b.Setup(t.Context()))
		must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
		must(t, b.Publish(t.Context(), requests(0, 5), 1))
		take(t, b, 5, time.Minute)
		must(t, b.Reclaim(t.Context()))
		if again := take(t, b, 5, 0); len(again) > 0 {
			t.Errorf("%s: what is in the hands of others was taken away", name)
		}
	}
}

// Nobody who held messages of an embedded broker has its new token.
func TestReclaimWithANewToken(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{Token: "new"})
	must(t, b.Setup(t.Context()))
	must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
	must(t, b.Publish(t.Context(), requests(0, 5), 1))
	take(t, b, 5, time.Minute)
	must(t, b.Reclaim(t.Context()))
	if again := take(t, b, 5, time.Minute); len(again) != 5 {
		t.Errorf("%d messages come again", len(again))
	}
}

func TestReconnectDelay(t *testing.T) {
	t.Parallel()
	for _, attempts := range []int{0, 1, 3, 6, 100} {
		most := map[int]time.Duration{0: time.Second / 4, 1: time.Second / 4, 3: time.Second, 6: 8 * time.Second, 100: 8 * time.Second}[attempts]
		for range 100 {
			if d := reconnectDelay(attempts); d < most/4 || d > most {
				t.Errorf("after %d attempts %s, want %s at most", attempts, d, most)
			}
		}
	}
}

// authority signs certificates.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a := &authority{key: key, cert: certificate("ca")}
	a.cert.IsCA, a.cert.BasicConstraintsValid, a.cert.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	must(t, err)
	a.file = writePEM(t, "CERTIFICATE", der)
	return a
}

// issue gives the files of a certificate for this host and of its key.
func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, certificate(name), a.cert, &key.PublicKey, a.key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", keyDER)
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file.pem")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return file
}
