package harness

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/internal/proctest"
)

// NATS is a NATS server with JetStream in a process of its own. Its data and its
// port stay the same however often it ends and starts.
type NATS struct {
	// URL is where clients connect.
	URL string
	// Store is where its data lie.
	Store string

	process *proctest.Process
	within  []string
}

// NewNATS runs a NATS server until the test ends.
func NewNATS(tb testing.TB) *NATS {
	tb.Helper()
	n := newNATS(tb, "n1", proctest.FreePort(tb), "")
	n.Start(tb)
	return n
}

// NewCluster runs a cluster of three NATS servers until the test ends.
func NewCluster(tb testing.TB) []*NATS {
	tb.Helper()
	var routes []string
	var ports []int
	for range 3 {
		port := proctest.FreePort(tb)
		ports = append(ports, port)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	var all []*NATS
	started := make(chan error, len(ports))
	for i, port := range ports {
		n := newNATS(tb, fmt.Sprint("n", i+1), proctest.FreePort(tb), fmt.Sprintf(
			"cluster { name: c, listen: \"127.0.0.1:%d\", routes: [%s] }\n", port, strings.Join(routes, ", ")))
		all = append(all, n)
		go func() { started <- n.process.Start() }() // none answers before there are two
	}
	for range all {
		if err := <-started; err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

// newNATS is a server that does not run yet.
func newNATS(tb testing.TB, name string, port int, more string) *NATS {
	tb.Helper()
	program, err := natsServer()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	n := &NATS{URL: fmt.Sprintf("nats://127.0.0.1:%d", port), Store: filepath.Join(dir, "store")}
	config := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("server_name: %s\nlisten: \"127.0.0.1:%d\"\nmax_payload: 8MB\n"+
		"jetstream { store_dir: %q, sync_interval: always, max_file_store: 1PB }\n%s", name, port, n.Store, more)
	if err := errors.Join(os.Mkdir(n.Store, 0o755), os.WriteFile(config, []byte(text), 0o644)); err != nil {
		tb.Fatal(err)
	}
	n.process = proctest.New(func() *exec.Cmd {
		args := append(append([]string{}, n.within...), program, "-c", config)
		return exec.Command(args[0], args[1:]...)
	}, n.answers)
	tb.Cleanup(n.Kill)
	return n
}

// answers says whether JetStream answers.
func (n *NATS) answers(ctx context.Context) error {
	nc, err := nats.Connect(n.URL, nats.NoReconnect(), nats.Timeout(time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = js.AccountInfo(ctx)
	return err
}

// Start starts the server, unless it runs, and waits until JetStream answers.
func (n *NATS) Start(tb testing.TB) {
	tb.Helper()
	if err := n.process.Start(); err != nil {
		tb.Fatal(err)
	}
}

// Kill kills the server, if it runs.
func (n *NATS) Kill() { n.process.End(syscall.SIGKILL) }

// Stop stops the server in order.
func (n *NATS) Stop() { n.process.End(syscall.SIGTERM) }

// Freeze has the server stand still, with its connections open, until Thaw.
func (n *NATS) Freeze(tb testing.TB) {
	tb.Helper()
	if err := n.process.Freeze(); err != nil {
		tb.Fatal(err)
	}
}

// Thaw ends Freeze.
func (n *NATS) Thaw() { n.process.Thaw() }

// Lose removes all data of the server, which must not run.
func (n *NATS) Lose(tb testing.TB) {
	tb.Helper()
	if err := errors.Join(os.RemoveAll(n.Store), os.Mkdir(n.Store, 0o755)); err != nil {
		tb.Fatal(err)
	}
}

// Within puts a command before the server's from its next start on, which is to
// execute it.
func (n *NATS) Within(command ...string) { n.within = command }

// Said is what the server has written since it was last started.
func (n *NATS) Said() string { return n.process.Output() }

// Address is the host and port of a URL.
func Address(tb testing.TB, of string) string {
	tb.Helper()
	u, err := url.Parse(of)
	if err != nil {
		tb.Fatal(err)
	}
	return u.Host
}
