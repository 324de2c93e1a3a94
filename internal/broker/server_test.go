package broker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/exhume/exhume/internal/proctest"
	"github.com/exhume/exhume/schemas"
)

// serverConfig names the variable that makes of this test program a NATS server
// with that configuration file. A process of its own can be killed.
const serverConfig = "EXHUME_TEST_NATS_CONFIG"

// runServer runs a server until standard input ends, which it does when the
// tests do, however that happens.
func runServer(config string) {
	opts, err := server.ProcessConfigFile(config)
	if err == nil {
		var ns *server.Server
		if ns, err = server.NewServer(opts); err == nil {
			ns.ConfigureLogger()
			ns.Start()
			_, _ = io.Copy(io.Discard, os.Stdin)
			ns.Shutdown()
			ns.WaitForShutdown()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// testServer is a NATS server in a process of its own.
type testServer struct {
	t      testing.TB
	name   string
	port   int
	config string
	cmd    *exec.Cmd
	stdin  io.Closer
}

// newServer makes a server on loopback with JetStream that is not started yet.
// The text is more of its configuration.
func newServer(t testing.TB, name, text string) *testServer {
	t.Helper()
	dir := t.TempDir()
	s := &testServer{t: t, name: name, port: proctest.FreePort(t), config: filepath.Join(dir, "nats.conf")}
	text = fmt.Sprintf("server_name: %s\nlisten: 127.0.0.1:%d\njetstream { store_dir: %q, max_file_store: 100GB, sync_interval: always }\n%s",
		name, s.port, filepath.Join(dir, "js"), text)
	if os.Getenv("EXHUME_TEST_NATS_LOG") != "" {
		text += "\nlog_file: " + filepath.Join(os.Getenv("EXHUME_TEST_NATS_LOG"), name+".log") + "\n"
	} else {
		text += "\nlog_file: /dev/null\n"
	}
	must(t, os.WriteFile(s.config, []byte(text), 0o600))
	return s
}

func startServer(t testing.TB, text string) *testServer {
	t.Helper()
	s := newServer(t, "one", text)
	s.start()
	return s
}

func (s *testServer) start() {
	s.t.Helper()
	program, err := os.Executable()
	must(s.t, err)
	s.cmd = exec.Command(program)
	s.cmd.Env = append(os.Environ(), serverConfig+"="+s.config)
	s.cmd.Stderr = os.Stderr
	s.stdin, err = s.cmd.StdinPipe()
	must(s.t, err)
	must(s.t, s.cmd.Start())
	s.t.Cleanup(s.kill)
}

// kill ends the server without warning.
func (s *testServer) kill() {
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
	_ = s.cmd.Wait() // says that it was killed
	_ = s.stdin.Close()
	s.cmd = nil
}

func (s *testServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

// startCluster starts three servers that form a cluster.
func startCluster(t testing.TB) []*testServer {
	t.Helper()
	var routes []string
	for range 3 {
		routes = append(routes, fmt.Sprintf("nats-route://127.0.0.1:%d", proctest.FreePort(t)))
	}
	var all []*testServer
	for i, route := range routes {
		s := newServer(t, fmt.Sprintf("n%d", i), fmt.Sprintf("cluster { name: exhume, listen: %q, routes: [%s] }",
			strings.TrimPrefix(route, "nats-route://"), strings.Join(routes, ",")))
		s.start()
		all = append(all, s)
	}
	return all
}

func urls(servers []*testServer) string {
	var all []string
	for _, s := range servers {
		all = append(all, s.url())
	}
	return strings.Join(all, ",")
}

// connect connects to a server that was just started.
func connect(t testing.TB, o Options) *Broker {
	t.Helper()
	o.StartTimeout = time.Minute
	b, err := Connect(t.Context(), o)
	must(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// leader is the server that leads a stream.
func leader(t testing.TB, b *Broker, servers []*testServer) *testServer {
	t.Helper()
	s, err := b.js.Stream(t.Context(), schemas.StreamRestore)
	must(t, err)
	name := s.CachedInfo().Cluster.Leader
	i := slices.IndexFunc(servers, func(s *testServer) bool { return s.name == name })
	if i < 0 {
		t.Fatalf("no server %q", name)
	}
	return servers[i]
}
