// Package s3test runs a real S3-compatible server for tests: versitygw over a
// temporary directory, on a loopback port. 'make test-deps' builds the program
// where it is missing; a test fails, and is never skipped, when it is.
package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"
)

// The credentials of every server.
const (
	AccessKey = "exhume"
	SecretKey = "exhume-test-secret" //nolint:gosec // of servers that live as long as a test
)

// startTimeout bounds how long a server may take until it answers.
const startTimeout = time.Minute

// Server is one S3 server. Kill and Start let a test take it away for a while;
// its data and its port stay the same.
type Server struct {
	dir, address string
	program      string
	client       *minio.Client

	mu     sync.Mutex
	cmd    *exec.Cmd
	ended  chan struct{}
	output bytes.Buffer
}

// shared is the server that tests running at the same time share.
var shared struct {
	sync.Mutex
	server *Server
	users  int
}

var buckets atomic.Int64

// StartServer gives a server that tests share: it starts with the first of those
// that run at the same time and ends with the last.
func StartServer(tb testing.TB) *Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.users == 0 {
		shared.server = newServer(tb)
	}
	shared.users++
	tb.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users == 0 {
			shared.server.remove()
		}
	})
	return shared.server
}

// StartOwnServer starts a server of the test's own, which it may kill.
func StartOwnServer(tb testing.TB) *Server {
	tb.Helper()
	s := newServer(tb)
	tb.Cleanup(s.remove)
	return s
}

func newServer(tb testing.TB) *Server {
	tb.Helper()
	dir, err := os.MkdirTemp("", "exhume-s3-")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{dir: dir, address: freeAddress(tb), program: program(tb)}
	s.client, err = minio.New(s.address, &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: "us-east-1", MaxRetries: 1,
		BucketLookup: minio.BucketLookupPath, Transport: &http.Transport{DisableKeepAlives: true}, // no goroutines are left
	})
	if err == nil {
		err = s.start()
	}
	if err != nil {
		s.remove()
		tb.Fatal(err)
	}
	return s
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody connected
	return l.Addr().String()
}

// program finds the server's program: that of the module's tools, or one in the
// path.
func program(tb testing.TB) string {
	tb.Helper()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err == nil {
		p := filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), "bin", "tools", "versitygw")
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	p, err := exec.LookPath("versitygw")
	if err != nil {
		tb.Fatal("versitygw is not installed; 'make test-deps' installs it")
	}
	return p
}

// Endpoint is the server's URL.
func (s *Server) Endpoint() string { return "http://" + s.address }

// Client is for what a test does behind the package's back.
func (s *Server) Client() *minio.Client { return s.client }

// Bucket makes an empty bucket.
func (s *Server) Bucket(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("bucket-%d", buckets.Add(1))
	if err := s.client.MakeBucket(context.Background(), name, minio.MakeBucketOptions{}); err != nil {
		tb.Fatal(err)
	}
	return name
}

// Start starts the server again after Kill.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	if err := s.start(); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	cmd := exec.Command(s.program, "--port", s.address, "--access", AccessKey, "--secret", SecretKey,
		"--region", "us-east-1", "--keep-alive", "--quiet", "posix", data)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TMPDIR=" + s.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.output.Reset()
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	started, ended := make(chan error, 1), make(chan struct{})
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
		return err
	}
	s.cmd, s.ended = cmd, ended
	return s.await()
}

// await waits until the server answers.
func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		_, err := s.client.ListBuckets(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return errors.New("versitygw ended: " + s.output.String())
		case <-ctx.Done():
			return fmt.Errorf("versitygw does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill kills the server.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.ended
	s.cmd = nil
}

// Freeze stops the server from answering, without ending its connections, until
// Thaw.
func (s *Server) Freeze(tb testing.TB) {
	tb.Helper()
	err := s.cmd.Process.Signal(syscall.SIGSTOP)
	if err == nil {
		// It may answer until the system has stopped all of its threads.
		err = unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// Thaw ends Freeze.
func (s *Server) Thaw() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *Server) remove() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}
