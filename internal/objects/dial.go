package objects

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// dialer connects to the endpoint alone: to public addresses, and to others as
// far as the configuration names or allows them.
type dialer struct {
	net.Dialer
	host    string
	private bool
	stall   time.Duration
}

func newDialer(host string, private bool, stall time.Duration) *dialer {
	d := &dialer{host: host, private: private, stall: stall}
	d.Timeout = min(10*time.Second, stall)
	// Control sees what the name was resolved to, just before the connection is
	// made; nothing can change in between.
	d.Control = func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if addr := a.Addr().Unmap().WithZone(""); !d.allows(addr) {
			return &addressError{d.host, addr}
		}
		return nil
	}
	return d
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{c, d.stall}, nil
}

// connect connects to an address. What localhost and the names below it mean
// does not depend on a name server (RFC 6761), many of which know none of them.
func (d *dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !isLocalhost(host) {
		return d.DialContext(ctx, network, address)
	}
	c, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err == nil {
		return c, nil
	}
	if c, err := d.DialContext(ctx, network, net.JoinHostPort("::1", port)); err == nil {
		return c, nil
	}
	return nil, err
}

// isLocalhost says whether a name always means loopback: localhost, or one below
// it, as a bucket's is in StyleVirtual.
func isLocalhost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func (d *dialer) allows(addr netip.Addr) bool {
	if literal, err := netip.ParseAddr(d.host); err == nil {
		return literal.Unmap().WithZone("") == addr
	}
	switch {
	case addr.IsLoopback():
		return d.private || isLocalhost(d.host)
	case addr.IsPrivate() || carrierGrade.Contains(addr):
		return d.private
	}
	return isPublic(addr)
}

// carrierGrade is shared by the customers of a provider, and much used inside
// of clouds.
var carrierGrade = netip.MustParsePrefix("100.64.0.0/10")

// special are the networks that are neither public nor private: documentation,
// benchmarks, reserved ones, and those that embed an address of the older
// version, which might be anything.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
}

func isPublic(addr netip.Addr) bool {
	if !addr.IsGlobalUnicast() || addr.IsPrivate() || carrierGrade.Contains(addr) {
		return false
	}
	for _, p := range special {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// addressError says that a name leads where no connection may go.
type addressError struct {
	host string
	addr netip.Addr
}

func (e *addressError) Error() string {
	const not = "%s leads to %s, which is no public address"
	if e.addr.IsLoopback() || e.addr.IsPrivate() || carrierGrade.Contains(e.addr) {
		return fmt.Sprintf(not+"; EXHUME_S3_PRIVATE=true allows it", e.host, e.addr)
	}
	return fmt.Sprintf(not, e.host, e.addr)
}

// conn fails when nothing moves for too long.
type conn struct {
	net.Conn
	stall time.Duration
}

func (c *conn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write also gives the read that is waiting for the answer new time.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
