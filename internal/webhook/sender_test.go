package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// The example that the specification's libraries are tested with.
func TestSignatureOfTheSpecification(t *testing.T) {
	t.Parallel()
	got := signatures(keysOf(t, oldSecret), "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// With two secrets a receiver that knows either finds its signature.
func TestRotation(t *testing.T) {
	t.Parallel()
	at, body := time.Unix(1614265330, 0), []byte("{}")
	got := signatures(keysOf(t, "  "+oldSecret+" \n"+rawSecret), "e", at, body)
	want := signatures(keysOf(t, oldSecret), "e", at, body) + " " + signatures(keysOf(t, rawSecret), "e", at, body)
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	const password = "s3cr3t"
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{URL: "", Secret: rawSecret}, "no URL"},
		{Config{URL: "https://ops:" + password + "@host:x/", Secret: rawSecret}, "malformed"},
		{Config{URL: "https:///" + password, Secret: rawSecret}, "want https://host/path"},
		{Config{URL: "ftp://host/" + password, Secret: rawSecret}, `scheme "ftp"`},
		{Config{URL: "host/" + password, Secret: rawSecret}, "want https://host/path"},
		{Config{URL: "http://ops:" + password + "@host/" + password, Secret: rawSecret}, "webhook http://host: without TLS"},
		{Config{URL: "http://localhost.example.com/", Secret: rawSecret}, "without TLS"},
		{Config{URL: "http://10.0.0.1/", Secret: rawSecret}, "without TLS"},
		{Config{URL: "https://host/", Secret: " "}, "no secret"},
		{Config{URL: "https://host/", Secret: password}, "secret 1 has 6 bytes"},
		{Config{URL: "https://host/", Secret: rawSecret + " whsec_" + password}, "secret 2 is not base64"},
		{Config{URL: "https://host/", Secret: "whsec_c2hvcnQ="}, "secret 1 has 5 bytes"},
	} {
		_, err := New(c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q with %q: got error %v, want %q", c.config.URL, c.config.Secret, err, c.want)
		} else if strings.Contains(err.Error(), password) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
	for _, c := range []Config{
		{URL: "https://host/"}, {URL: "http://localhost:8080"}, {URL: "http://127.0.0.7/"}, {URL: "http://[::1]:80/"},
		{URL: "http://host/", Insecure: true},
	} {
		c.Secret = rawSecret
		if _, err := New(c); err != nil {
			t.Errorf("%s: %v", c.URL, err)
		}
	}
}

// event is a message about a batch.
func event(id string) schemas.Webhook {
	return schemas.NewWebhook(schemas.BatchEvent{
		ID: id, Batch: "b", Change: schemas.ChangePause, To: schemas.StatePaused, At: time.Date(2026, 11, 22, 18, 34, 16, 0, time.UTC),
	}, &schemas.Summary{})
}

func TestSendOverTLS(t *testing.T) {
	t.Parallel()
	r := &receiver{t: t}
	server := httptest.NewTLSServer(r)
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())

	s := newSender(t, Config{URL: server.URL + "/hook", TLS: &tls.Config{RootCAs: pool}})
	must(t, s.Send(t.Context(), event("e1")))
	got := r.got()
	if len(got) != 1 {
		t.Fatalf("%d posts", len(got))
	}
	if diff := cmp.Diff(event("e1"), got[0].body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if got[0].body.Type != "batch.pause" {
		t.Errorf("type %s", got[0].body.Type)
	}

	// Of a server that nobody vouches for, nothing is told.
	stranger := newSender(t, Config{URL: server.URL + "/hook"})
	if err := stranger.Send(t.Context(), event("e2")); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got error %v", err)
	}
	if n := len(r.got()); n != 1 {
		t.Errorf("%d posts", n)
	}
}

func TestSendClassifies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		gone   bool
		text   string
	}{
		{200, false, ""},
		{204, false, ""},
		{299, false, ""},
		{304, false, "answered 304"},
		{400, false, "answered 400 Bad Request"},
		{404, false, "answered 404"},
		{410, true, "answered 410 Gone"},
		{500, false, "answered 500"},
	} {
		server := httptest.NewServer(&receiver{t: t, answer: status(c.status)})
		err := newSender(t, Config{URL: server.URL}).Send(t.Context(), event("e"))
		server.Close()
		if errors.Is(err, ErrGone) != c.gone || (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%d: got error %v", c.status, err)
		}
	}
}

// A redirect is an answer as any other: nobody follows it.
func TestRedirect(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 303, 307, 308} {
		elsewhere := &receiver{t: t}
		there := httptest.NewServer(elsewhere)
		here := httptest.NewServer(&receiver{t: t, answer: func(_ int, _ post, w http.ResponseWriter) {
			w.Header().Set("Location", there.URL)
			w.WriteHeader(code)
		}})
		err := newSender(t, Config{URL: here.URL}).Send(t.Context(), event("e"))
		if e := (*StatusError)(nil); !errors.As(err, &e) || e.Status != code || !strings.Contains(err.Error(), "not followed") {
			t.Errorf("%d: got error %v", code, err)
		}
		if n := len(elsewhere.got()); n != 0 {
			t.Errorf("%d: %d posts at the other address", code, n)
		}
		here.Close()
		there.Close()
	}
}

func TestSlowReceiver(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(&receiver{t: t, answer: func(int, post, http.ResponseWriter) { <-release }})
	defer server.Close()
	defer close(release)
	s := newSender(t, Config{URL: server.URL + "/?token=s3cr3t", Timeout: 50 * time.Millisecond})
	err := s.Send(t.Context(), event("e"))
	if err == nil || !strings.Contains(err.Error(), "no answer within 50ms") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v", err)
	}
	if strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("the error shows a secret: %v", err)
	}
}

// An answer without end takes neither memory nor time.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	sent := make(chan int, 1)
	server := httptest.NewServer(&receiver{t: t, answer: func(_ int, _ post, w http.ResponseWriter) {
		total := 0
		for {
			n, err := w.Write(make([]byte, 1<<16))
			if total += n; err != nil {
				sent <- total
				return
			}
		}
	}})
	defer server.Close()
	must(t, newSender(t, Config{URL: server.URL}).Send(t.Context(), event("e")))
	// What the kernel holds of the connection comes on top.
	if n := <-sent; n > 64<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

func TestSendRefusesIDs(t *testing.T) {
	t.Parallel()
	s := newSender(t, Config{URL: "http://localhost"})
	for _, id := range []string{"", "a.b", "a b", "a\nb", "ä", strings.Repeat("a", 257)} {
		if err := s.Send(t.Context(), event(id)); err == nil || !strings.Contains(err.Error(), "event id") {
			t.Errorf("%q: got error %v", id, err)
		}
	}
}

// Credentials of the URL are sent, and never shown.
func TestCredentials(t *testing.T) {
	t.Parallel()
	user := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		user <- name + " " + password
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer server.Close()
	s := newSender(t, Config{URL: strings.Replace(server.URL, "//", "//ops:s3cr3t@", 1) + "/s3cr3t?s3cr3t"})
	err := s.Send(t.Context(), event("e"))
	if err == nil || strings.Contains(err.Error()+s.String(), "s3cr3t") {
		t.Errorf("got %v from %s", err, s)
	}
	if got := <-user; got != "ops s3cr3t" {
		t.Errorf("the receiver saw %s", got)
	}
}
