// Package dbtest runs real database servers for tests: PostgreSQL and MariaDB
// from the installed programs, on a loopback port and in a temporary directory
// of their own. 'make test-deps' installs the programs where they are missing; a
// test fails, and is never skipped, when they are.
package dbtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds how long a server may take until it answers.
const startTimeout = 2 * time.Minute

// Server is one database server. Stop and Start let a test take it away for a
// while; its data and its port stay the same.
type Server struct {
	dir   string
	port  int
	args  []string // the server's command line
	ready func(context.Context) error
	// signal is what makes the server end at once, without losing anything.
	signal syscall.Signal

	mu     sync.Mutex
	cmd    *exec.Cmd
	ended  chan struct{}
	output bytes.Buffer
}

// newServer makes a server's directory and chooses its port.
func newServer(tb testing.TB) *Server {
	tb.Helper()
	dir, err := os.MkdirTemp("", "exhume-db-")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{dir: dir, port: freePort(tb)}
	if id, ok := servant(); ok {
		if err := os.Chown(dir, int(id.Uid), int(id.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

// freePort is a loopback port that nobody listens on.
func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody connected
	return l.Addr().(*net.TCPAddr).Port
}

// servant is whom database programs run as where the tests run as root, which
// they refuse.
func servant() (*syscall.Credential, bool) {
	if os.Geteuid() != 0 {
		return nil, false
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, false
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, true
}

// command is a program of the database, which ends when the tests do.
func (s *Server) command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "TMPDIR="+s.dir, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if id, ok := servant(); ok {
		cmd.SysProcAttr.Credential = id
	}
	return cmd
}

// run runs a program of the database to its end.
func (s *Server) run(tb testing.TB, args ...string) {
	tb.Helper()
	runtime.LockOSThread() // or the program could die with the thread
	defer runtime.UnlockOSThread()
	if out, err := s.command(args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", args[0], err, out)
	}
}

// Start starts the server, unless it runs, and waits until it answers.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return
	}
	s.output.Reset()
	cmd, started, ended := s.command(s.args...), make(chan error, 1), make(chan struct{})
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	go func() {
		// The server dies with the thread that started it, which is to be as
		// long as the tests run.
		runtime.LockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		tb.Fatal(err)
	}
	s.cmd, s.ended = cmd, ended
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := s.ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-ended:
			tb.Fatalf("%s ended: %s", s.args[0], s.output.String())
		case <-ctx.Done():
			tb.Fatalf("%s does not answer: %v", s.args[0], err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop stops the server at once, as a crash of its host's power would not: what
// was committed is kept.
func (s *Server) Stop() { s.end(s.signal) }

// Kill kills the server.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	<-s.ended
	s.cmd = nil
}

// Freeze stops the server from answering, without ending its connections, until
// Thaw.
func (s *Server) Freeze() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *Server) remove() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}

// shared are the servers that the tests of one package share.
var shared struct {
	sync.Mutex
	servers []*Server
}

// Main runs a package's tests, and ends the servers that they started.
func Main(m *testing.M) {
	code := m.Run()
	Stop()
	os.Exit(code)
}

// Stop ends the servers that tests share, for those who do not call Main.
func Stop() {
	shared.Lock()
	defer shared.Unlock()
	for _, s := range shared.servers {
		s.remove()
	}
	shared.servers = nil
}

// share keeps a server until Main ends.
func share(s *Server) {
	shared.Lock()
	defer shared.Unlock()
	shared.servers = append(shared.servers, s)
}

// program finds an installed program, in the path or in one of the directories.
func program(tb testing.TB, name string, directories ...string) string {
	tb.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, pattern := range directories {
		found, _ := filepath.Glob(filepath.Join(pattern, name))
		slices.Sort(found)
		if len(found) > 0 {
			return found[len(found)-1]
		}
	}
	tb.Fatalf("%s is not installed; 'make test-deps' installs it", name)
	return ""
}

func (s *Server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }
