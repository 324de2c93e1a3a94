// Package webhook tells an operator's HTTP endpoint what happens to batches:
// each event is a signed POST in the form of the Standard Webhooks
// specification, repeated until it is accepted.
package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/schemas"
)

// maxAnswer is how many bytes are read of an answer's head, and of its body,
// which is dropped: a connection whose answer was read to its end is used again.
const maxAnswer = 64 << 10

// Config says where and how events are told. URL and Secret must be set.
type Config struct {
	// URL is where events are posted to: https, or http on this host. It may
	// hold credentials; of it only scheme and host are ever shown.
	URL string
	// Secret is "whsec_" and the base64 of the key, or a text that is the key
	// itself; 24 bytes at least. With several, spaces between, each signs: a
	// receiver can change from one to the other in its own time.
	Secret string
	// Insecure allows http to other hosts.
	Insecure bool
	// TLS, if set, is how https is spoken, say with a CA of one's own.
	TLS *tls.Config
	// Timeout bounds one POST (default 10 s).
	Timeout time.Duration
	// MaxAge is how old an event that is not accepted gets before it is given up
	// (default 72 h). Each is tried once, however old it is.
	MaxAge time.Duration
	// Log is told when events are not accepted, and when they are again.
	Log zerolog.Logger
}

// Sender posts events to one endpoint. It may be used from several goroutines.
type Sender struct {
	config Config
	shown  string
	keys   [][]byte
	client *http.Client
}

// New makes a sender, or says what is wrong with the configuration. Proxies are
// taken from the environment.
func New(c Config) (*Sender, error) {
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.MaxAge = cmp.Or(c.MaxAge, 72*time.Hour)
	shown, err := check(c)
	if err != nil {
		return nil, err
	}
	keys, err := parseSecrets(c.Secret)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = c.TLS.Clone()
	transport.MaxResponseHeaderBytes = maxAnswer
	transport.MaxIdleConnsPerHost = together
	return &Sender{c, shown, keys, &http.Client{
		Transport: transport,
		Timeout:   c.Timeout,
		// Whoever can redirect could choose where in this network events go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// check finds what is wrong with the URL, and gives as much of it as may be
// shown: paths and queries of webhooks often are as good as passwords.
func check(c Config) (shown string, err error) {
	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		return "", errors.New("webhook: no URL is given")
	case err != nil: // its text repeats the URL
		return "", errors.New("webhook: the URL is malformed: want https://host/path, special characters as %XX")
	case u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("webhook: the URL has scheme %q and host %q: want https://host/path", u.Scheme, u.Host)
	}
	shown = u.Scheme + "://" + u.Host
	if u.Scheme == "http" && !c.Insecure && !loopback(u.Hostname()) {
		return "", fmt.Errorf("webhook %s: without TLS everybody on the way can read it: use https, or allow http explicitly", shown)
	}
	return shown, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// String names the endpoint, without secrets.
func (s *Sender) String() string { return s.shown }

// ErrGone is in errors of Send when the receiver wants no events any more.
var ErrGone = errors.New("the receiver wants no events any more")

// StatusError is an answer that does not accept an event.
type StatusError struct {
	Status int
	// RetryAfter is how long the receiver wants to be left alone, 0 if it did not say.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Status/100 == 3 {
		text += "; redirects are not followed, configure the address that it leads to"
	}
	return text
}

// Unwrap is ErrGone for 410.
func (e *StatusError) Unwrap() error {
	if e.Status == http.StatusGone {
		return ErrGone
	}
	return nil
}

// safeID is what the id of an event may be: no full stop, which would blur what
// is signed, and nothing that has a meaning in a header.
var safeID = regexp.MustCompile(`^[A-Za-z0-9_:-]{1,256}$`)

// Send posts an event once. Any answer of 2xx accepts it; another one is a
// StatusError, and only one that wraps ErrGone need not be tried again.
func (s *Sender) Send(ctx context.Context, w schemas.Webhook) error {
	id := w.Data.Event.ID
	if !safeID.MatchString(id) {
		return fmt.Errorf("webhook %s: event id %q: want letters, digits, '-', '_' and ':' only", s, id)
	}
	body, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("webhook %s: event %s: %w", s, id, err)
	}
	if err := s.post(ctx, id, body); err != nil {
		return fmt.Errorf("webhook %s: %w", s, err)
	}
	return nil
}

func (s *Sender) post(ctx context.Context, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.config.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL is malformed") // the error's text repeats it
	}
	now := time.Now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "exhume")
	req.Header.Set(schemas.HeaderWebhookID, id)
	req.Header.Set(schemas.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(schemas.HeaderWebhookSignature, signatures(s.keys, id, now, body))
	resp, err := s.client.Do(req)
	if err != nil {
		if outer := (*url.Error)(nil); errors.As(err, &outer) {
			err = outer.Err // without the URL
			if outer.Timeout() {
				err = fmt.Errorf("no answer within %v: %w", s.config.Timeout, err)
			}
		}
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	// The status has decided; what comes after it may fail.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 == 2 {
		return nil
	}
	return &StatusError{resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"), now)}
}
