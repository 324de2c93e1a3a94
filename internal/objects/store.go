package objects

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// DefaultRegion is the region that is signed for unless told otherwise.
const DefaultRegion = "us-east-1"

// tries is how often a request is sent before its failure is believed. Whoever
// asked decides about further attempts.
const tries = 3

// answerTimeout bounds the question whether a server says anything at all.
const answerTimeout = 5 * time.Second

// Style says where requests name the bucket.
type Style string

// The styles.
const (
	// StylePath: https://host/bucket/key.
	StylePath Style = "path"
	// StyleVirtual: https://bucket.host/key.
	StyleVirtual Style = "virtual"
)

// Config says how one endpoint is reached. The zero value is Amazon's S3 without
// credentials.
type Config struct {
	// Endpoint is the server, https://host or https://host:port; empty means
	// Amazon's in the region.
	Endpoint string
	// Region is what requests are signed for (default DefaultRegion).
	Region string
	// Without AccessKey and SecretKey requests are anonymous. SessionToken
	// belongs to temporary keys.
	AccessKey, SecretKey, SessionToken string
	// Style is StyleVirtual at large public clouds and StylePath elsewhere,
	// unless given.
	Style Style
	// CAFile is a PEM file of authorities to trust besides the system's.
	CAFile string
	// Insecure allows http beyond loopback: contents travel in the clear.
	Insecure bool
	// Private allows an endpoint whose name leads to a loopback or private
	// address. An address that is written into Endpoint needs no permission, and
	// neither do the name localhost and those below it.
	Private bool
	// Stall is how long a connection may go on without a byte (default 1 min).
	Stall time.Duration
}

// Store is one S3-compatible endpoint. It is safe for concurrent use.
type Store struct {
	name      string // host and port
	endpoint  string
	client    minio.Core
	transport *http.Transport
}

// Open makes ready what is needed to speak to an endpoint, and does not speak
// to it yet. What is wrong with the configuration is an error of usage, without
// a code, that names the setting.
func Open(cfg Config) (*Store, error) {
	cfg.Region = cmp.Or(cfg.Region, DefaultRegion)
	cfg.Endpoint = cmp.Or(cfg.Endpoint, "https://s3."+cfg.Region+".amazonaws.com")
	cfg.Stall = cmp.Or(cfg.Stall, time.Minute)
	endpoint, err := parseEndpoint(cfg)
	if err != nil {
		return nil, err
	}
	if (cfg.AccessKey == "") != (cfg.SecretKey == "") {
		return nil, errors.New("object storage: access key and secret key go together (EXHUME_S3_ACCESS_KEY, EXHUME_S3_SECRET_KEY)")
	}
	lookup := minio.BucketLookupAuto
	switch cfg.Style {
	case "":
	case StylePath:
		lookup = minio.BucketLookupPath
	case StyleVirtual:
		if _, err := netip.ParseAddr(endpoint.Hostname()); err == nil {
			return nil, fmt.Errorf("object storage: endpoint %q is an address, before which no bucket can be named; use a name, or style %q (EXHUME_S3_STYLE)",
				cfg.Endpoint, StylePath)
		}
		lookup = minio.BucketLookupDNS
	default:
		return nil, fmt.Errorf("object storage: style %q: want %q or %q (EXHUME_S3_STYLE)", cfg.Style, StylePath, StyleVirtual)
	}
	roots, err := authorities(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	s := &Store{name: endpoint.Host, endpoint: endpoint.Scheme + "://" + endpoint.Host, transport: &http.Transport{
		DialContext:     newDialer(endpoint.Hostname(), cfg.Private, cfg.Stall).dial,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		// The default of two would make a group open its connections anew.
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     cfg.Stall / 2,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true, // a content is what was stored, gzip or not
	}}
	client, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds:        credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, cfg.SessionToken),
		Secure:       endpoint.Scheme == "https",
		Transport:    brief{s.transport},
		Region:       cfg.Region,
		BucketLookup: lookup,
		MaxRetries:   tries,
	})
	if err != nil {
		return nil, fmt.Errorf("object storage: endpoint %q: %w (EXHUME_S3_ENDPOINT)", cfg.Endpoint, err)
	}
	s.client = *client
	return s, nil
}

// Close closes the connections that nothing uses.
func (s *Store) Close() { s.transport.CloseIdleConnections() }

// answers says whether the server answers a question that costs it nothing, if
// only with an error. It tells one request that hangs from a server that does.
func (s *Store) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, s.endpoint, nil)
	if err != nil {
		return false
	}
	answer, err := s.transport.RoundTrip(r)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return true
}

func parseEndpoint(cfg Config) (*url.URL, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		// The text is left out: it may hold a password.
		return nil, errors.New("object storage: want an endpoint like https://HOST or https://HOST:PORT (EXHUME_S3_ENDPOINT)")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme != "http":
		return nil, fmt.Errorf("object storage: endpoint %q: want https (EXHUME_S3_ENDPOINT)", cfg.Endpoint)
	case !cfg.Insecure && !isLoopback(u.Hostname()):
		return nil, fmt.Errorf("object storage: endpoint %q sends contents in the clear; use https, or allow it with EXHUME_S3_INSECURE=true", cfg.Endpoint)
	}
	return u, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return isLocalhost(host) || err == nil && addr.Unmap().IsLoopback()
}

// authorities are those whose certificates are trusted; nil means the system's.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("object storage: authorities: %w (EXHUME_S3_CA)", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("object storage: %s holds no certificate in PEM form (EXHUME_S3_CA)", file)
	}
	return pool, nil
}
