package harness

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Break is what is wrong with the network of a Proxy; the zero value is nothing.
type Break struct {
	// Refuse has all connections reset, those that are there and new ones.
	Refuse bool
	// HoldUp keeps back what clients say, HoldDown what the server says, until the
	// next Set: as a network does that loses packets, which are sent again.
	HoldUp, HoldDown bool
	// Delay is how long each piece of what clients say is under way.
	Delay time.Duration
	// Errors is the share of the pieces that clients send at which the connection is
	// reset instead.
	Errors float64
	// Times is how often LoseRequest and LoseAnswer take effect together (default 1).
	Times int
	// LoseRequest has the connection reset instead of passing on what a client says
	// with this in it; LoseAnswer passes it on and resets the connection at the
	// server's answer: the client cannot know what has become of it.
	LoseRequest, LoseAnswer []byte
}

// Proxy passes TCP connections on to a server and breaks them. It is safe for
// concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	all      sync.WaitGroup

	mu     sync.Mutex
	random *rand.Rand
	now    Break
	// changed is closed at the next Set.
	changed chan struct{}
	links   map[*link]bool
	struck  int
}

// link is one connection through a proxy.
type link struct {
	client, server net.Conn
	gone           chan struct{} // closed when it is broken
	once           sync.Once
	doomed         bool // the next answer is lost; guarded by the proxy
}

// NewProxy runs a proxy for a server (host:port) until the test ends. What is left
// to chance is drawn from the seed.
func NewProxy(tb testing.TB, target string, seed uint64) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{
		listener: l, target: target, random: rand.New(rand.NewPCG(seed, 0)),
		changed: make(chan struct{}), links: map[*link]bool{},
	}
	p.all.Go(p.accept)
	tb.Cleanup(func() {
		_ = l.Close()
		p.Set(Break{Refuse: true})
		p.all.Wait()
	})
	return p
}

// Addr is where the proxy listens: host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set breaks the network in this way from now on, and in no other.
func (p *Proxy) Set(b Break) {
	p.mu.Lock()
	p.now = b
	p.now.Times = max(1, b.Times)
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if b.Refuse {
		p.Reset()
	}
}

// Reset resets all connections that there are.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Struck is how often Errors, LoseRequest and LoseAnswer have taken effect.
func (p *Proxy) Struck() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.struck
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.serve(c) })
	}
}

// serve connects a client with the server, until one of them ends it.
func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		setReset(client)
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server, gone: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = true
	refuse := p.now.Refuse
	p.mu.Unlock()
	if refuse {
		l.reset()
	}
	var both sync.WaitGroup
	both.Go(func() { p.pass(l, client, server, true) })
	both.Go(func() { p.pass(l, server, client, false) })
	both.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pass passes on what one side says.
func (p *Proxy) pass(l *link, from io.Reader, to io.Writer, up bool) {
	defer l.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.delayed(l, up) {
			return
		}
		if n > 0 && p.strikes(l, buf[:n], up) {
			l.reset()
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// delayed returns when a piece may be passed on, false when the link is broken
// before.
func (p *Proxy) delayed(l *link, up bool) bool {
	for {
		p.mu.Lock()
		now, changed := p.now, p.changed
		p.mu.Unlock()
		if up && !now.HoldUp && now.Delay > 0 {
			select {
			case <-time.After(now.Delay):
				return true
			case <-l.gone:
				return false
			}
		}
		if up && !now.HoldUp || !up && !now.HoldDown {
			return true
		}
		select {
		case <-changed:
		case <-l.gone:
			return false
		}
	}
}

// strikes says whether the connection is reset instead of passing on a piece.
func (p *Proxy) strikes(l *link, piece []byte, up bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	strikes := false
	switch lose := func(what []byte) bool { return len(what) > 0 && p.now.Times > 0 && bytes.Contains(piece, what) }; {
	case !up:
		return l.doomed
	case lose(p.now.LoseAnswer):
		l.doomed = true
		p.now.Times--
		p.struck++
		return false
	case lose(p.now.LoseRequest):
		strikes = true
		p.now.Times--
	case p.now.Errors > 0:
		strikes = p.random.Float64() < p.now.Errors
	}
	if strikes {
		p.struck++
	}
	return strikes
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.gone)
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

// reset ends a link as a host does that has forgotten it.
func (l *link) reset() {
	setReset(l.client)
	setReset(l.server)
	l.close()
}

func setReset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

// Via is a URL whose server is reached through a proxy.
func Via(tb testing.TB, of string, p *Proxy) string {
	tb.Helper()
	return strings.Replace(of, Address(tb, of), p.Addr(), 1)
}
