package broker

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/exhume/exhume/schemas"
)

// listening is an embedded broker that other processes can join.
func listening(t testing.TB, c Credentials) *Broker {
	t.Helper()
	b, err := Embed(t.TempDir(), Listen("127.0.0.1:0", c))
	must(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, b.Setup(t.Context()))
	return b
}

func TestOthersJoinAnEmbeddedBroker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Credentials{
		"anyone":   {},
		"password": {User: "ops", Password: "secret"},
		"token":    {Token: "a-token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := listening(t, c)
			other := connect(t, Options{URL: b.Address(), User: c.User, Password: c.Password, Token: c.Token})
			must(t, other.Ready(t.Context()))
			must(t, b.Activate(t.Context(), schemas.Batch{ID: "b"}))
			must(t, other.Publish(t.Context(), requests(0, 3), 1))
			if got := indexes(t, take(t, b, 3, 0)); len(got) != 3 {
				t.Errorf("got %v", got)
			}
			if c == (Credentials{}) {
				return
			}
			if _, err := Connect(t.Context(), Options{URL: b.Address()}); err == nil || !strings.Contains(err.Error(), "refuses") {
				t.Errorf("without credentials: %v", err)
			}
		})
	}
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close() //nolint:errcheck // nobody connects
	for _, c := range []struct {
		addr string
		c    Credentials
		want string
	}{
		{"0.0.0.0:0", Credentials{}, "a user and a password, or a token, must be set"},
		{":0", Credentials{}, "a user and a password, or a token, must be set"},
		{"[::]:0", Credentials{}, "a user and a password, or a token, must be set"},
		{"127.0.0.1:0", Credentials{User: "ops"}, "needs a password"},
		{"127.0.0.1:0", Credentials{Password: "secret"}, "needs a password"},
		{"127.0.0.1:0", Credentials{User: "ops", Password: "secret", Token: "secret"}, "not both"},
		{"4222", Credentials{}, "want host:port"},
		{taken.Addr().String(), Credentials{}, "address already in use"},
	} {
		b, err := Embed(t.TempDir(), Listen(c.addr, c.c))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.addr) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s %+v: got error %v", c.addr, c.c, err)
		}
		if b != nil {
			must(t, b.Close())
		}
	}
	b, err := Embed(t.TempDir(), Listen(":0", Credentials{Token: "a-token"}))
	must(t, err)
	if b.Address() == "" {
		t.Error("it does not listen")
	}
	must(t, b.Close())
	if b = embed(t, t.TempDir()); b.Address() != "" {
		t.Errorf("it listens on %s", b.Address())
	}
}

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
