// Package dbtest runs real database servers for tests: PostgreSQL and MariaDB
// from the installed programs, on a loopback port and in a temporary directory
// of their own. 'make test-deps' installs the programs where they are missing; a
// test fails, and is never skipped, when they are.
package dbtest

import (
	"context"
	"fmt"
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

	"go.uber.org/goleak"

	"github.com/exhume/exhume/internal/proctest"
)

// Server is one database server. Stop and Start let a test take it away for a
// while; its data and its port stay the same.
type Server struct {
	dir   string
	port  int
	args  []string // the server's command line
	ready func(context.Context) error
	// signal is what makes the server end at once, without losing anything.
	signal  syscall.Signal
	process *proctest.Process
}

// newServer makes a server's directory and chooses its port.
func newServer(tb testing.TB) *Server {
	tb.Helper()
	dir, err := os.MkdirTemp("", "exhume-db-")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{dir: dir, port: proctest.FreePort(tb)}
	s.process = proctest.New(
		func() *exec.Cmd { return s.command(s.args...) },
		func(ctx context.Context) error { return s.ready(ctx) })
	if id, ok := servant(); ok {
		if err := os.Chown(dir, int(id.Uid), int(id.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
	return s
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
	proctest.DieWithParent(cmd)
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
	if err := s.process.Start(); err != nil {
		tb.Fatal(err)
	}
}

// Stop stops the server at once, as a crash of its host's power would not: what
// was committed is kept.
func (s *Server) Stop() { s.process.End(s.signal) }

// Kill kills the server.
func (s *Server) Kill() { s.process.End(syscall.SIGKILL) }

// Freeze stops the server from answering, without ending its connections, until
// Thaw. PostgreSQL serves each connection by a process of its own: those that are
// open are served on, and new ones get no answer. It panics when the server does
// not run, for then the test would prove nothing.
func (s *Server) Freeze() {
	if err := s.process.Freeze(); err != nil {
		panic(fmt.Sprintf("freezing %s: %v", s.args[0], err))
	}
}

// Thaw ends Freeze.
func (s *Server) Thaw() { s.process.Thaw() }

func (s *Server) remove() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}

// shared are the servers that the tests of one package share.
var shared struct {
	sync.Mutex
	servers []*Server
}

// Main runs a package's tests and ends the servers that they share. A goroutine
// that is left behind then fails the run.
func Main(m *testing.M) { goleak.VerifyTestMain(withServers{m}) }

// withServers are tests that share servers, which end with them.
type withServers struct{ tests *testing.M }

// Run implements goleak.TestingM.
func (w withServers) Run() int {
	defer Stop()
	return w.tests.Run()
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
