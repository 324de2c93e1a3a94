package faults

import (
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

// s3Faults stands before an S3 server and answers some requests in its place.
type s3Faults struct {
	// url is where it listens.
	url string
	// keys are the paths of the objects of items, by output.
	keys map[string]string

	server *httputil.ReverseProxy
	// elsewhere is where redirects lead; it stands for the address at which a cloud
	// tells a machine its secrets.
	elsewhere         string
	redirects, astray atomic.Int64

	mu     sync.Mutex
	faults map[string]*s3Fault // by path
	// every is how all requests are answered; nil for no such way.
	every answer
}

// s3Fault is how requests of a method for one object are answered, so many times.
type s3Fault struct {
	method string
	left   int
	how    answer
}

// answer answers a request in the server's place.
type answer func(s *s3Faults, w http.ResponseWriter, r *http.Request)

// answers are a way in which requests for an item's object are answered, and what
// the item comes to.
type answers struct {
	name  string
	code  schemas.Code
	times func(*rand.Rand) int
	how   answer
}

// How often a fault strikes: each time, or so seldom that the attempts at an item are
// enough, each of which asks up to three times after most errors.
func always(*rand.Rand) int         { return 1 << 30 }
func several(random *rand.Rand) int { return 1 + random.IntN(5) }
func few(random *rand.Rand) int     { return 1 + random.IntN(objectAttempts-1) }
func once(*rand.Rand) int           { return 1 }

func newS3Faults(t *testing.T, random *rand.Rand, server *s3test.Server) *s3Faults {
	t.Helper()
	target, err := url.Parse(server.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	s := &s3Faults{keys: map[string]string{}, faults: map[string]*s3Fault{}}
	transport := &http.Transport{}
	s.server = &httputil.ReverseProxy{
		// The host stays as it was signed.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
		},
		Transport:    transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.astray.Add(1)
		_, _ = io.WriteString(w, "a secret")
	}))
	s.elsewhere = elsewhere.URL + "/latest/meta-data/iam/security-credentials/"
	front := httptest.NewUnstartedServer(s)
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.Start()
	s.url = front.URL
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		elsewhere.Close()
		transport.CloseIdleConnections()
	})
	return s
}

// all has every request answered in this way; nil ends it.
func (s *s3Faults) all(how answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.every = how
}

// ServeHTTP implements http.Handler.
func (s *s3Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if how := s.of(r); how != nil {
		how(s, w, r)
		return
	}
	s.server.ServeHTTP(w, r)
}

// of is how a request is to be answered; nil is for the server.
func (s *s3Faults) of(r *http.Request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults[r.URL.Path]
	switch {
	case s.every != nil:
		return s.every
	case f == nil || f.method != r.Method || f.left == 0:
		return nil
	}
	f.left--
	return f.how
}

// status answers with an error.
func status(code int, name string) answer {
	return func(_ *s3Faults, w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(code)
		if name != "" {
			_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>a fault of the test</Message></Error>", name)
		}
	}
}

// redirect sends a request elsewhere.
func redirect(code int) answer {
	return func(s *s3Faults, w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		s.redirects.Add(1)
		w.Header().Set("Location", s.elsewhere)
		w.WriteHeader(code)
	}
}

// endless answers with something and then with the same again and again.
func endless(first, again []byte) answer {
	return func(_ *s3Faults, w http.ResponseWriter, r *http.Request) { flood(w, r, first, again) }
}

// endlessAfter answers as the server does, and then goes on.
func endlessAfter(again []byte) answer {
	return func(s *s3Faults, w http.ResponseWriter, r *http.Request) {
		answered := s.ask(r)
		flood(w, r, answered.Body.Bytes(), again)
	}
}

// flood writes, not too fast, until the other side has had enough.
func flood(w http.ResponseWriter, r *http.Request, first, again []byte) {
	w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	_, err := w.Write(first)
	piece := make([]byte, 0, 64<<10)
	for len(piece)+len(again) <= cap(piece) {
		piece = append(piece, again...)
	}
	for err == nil && r.Context().Err() == nil {
		_, err = w.Write(piece)
		<-time.After(time.Millisecond)
	}
}

// ask asks the server in the client's place.
func (s *s3Faults) ask(r *http.Request) *httptest.ResponseRecorder {
	answered := httptest.NewRecorder()
	s.server.ServeHTTP(answered, r)
	return answered
}

// cutOff breaks off in the middle of the server's answer.
func cutOff(s *s3Faults, w http.ResponseWriter, r *http.Request) {
	answered := s.ask(r)
	for name, values := range answered.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answered.Code)
	_, _ = w.Write(answered.Body.Bytes()[:answered.Body.Len()/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// resetting resets the connection before the server sees anything.
func resetting(_ *s3Faults, w http.ResponseWriter, _ *http.Request) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// answerLost has the server do it, and resets the connection instead of saying so.
func answerLost(s *s3Faults, w http.ResponseWriter, r *http.Request) {
	_ = s.ask(r)
	resetting(s, w, r)
}

// answeredWithError has the server do it, and says that it has failed.
func answeredWithError(s *s3Faults, w http.ResponseWriter, r *http.Request) {
	_ = s.ask(r)
	status(http.StatusInternalServerError, "InternalError")(s, w, r)
}

// cutOffOnItsWay resets the connection after half of what is written.
func cutOffOnItsWay(s *s3Faults, w http.ResponseWriter, r *http.Request) {
	length := r.ContentLength
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r.Body, length/2), broken{}), r.Body}
	_ = s.ask(r)
	resetting(s, w, r)
}

// broken is the end of what breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("a fault of the test") }

// silent never answers.
func silent(_ *s3Faults, _ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}
