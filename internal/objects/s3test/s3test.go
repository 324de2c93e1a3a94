// Package s3test runs a real S3-compatible server for tests: versitygw over a
// temporary directory, on a loopback port. 'make test-deps' builds the program
// where it is missing; a test fails, and is never skipped, when it is.
package s3test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/exhume/exhume/internal/proctest"
)

// The credentials of every server.
const (
	AccessKey = "exhume"
	SecretKey = "exhume-test-secret" //nolint:gosec // of servers that live as long as a test
)

// Server is one S3 server. Kill and Start let a test take it away for a while;
// its data and its port stay the same.
type Server struct {
	dir     string
	port    int
	program string
	client  *minio.Client
	process *proctest.Process
}

// domain is what stands behind the bucket in the host of a request that names it
// there.
const domain = "localhost"

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
	s := &Server{dir: dir, port: proctest.FreePort(tb), program: program(tb)}
	s.process = proctest.New(s.command, s.ready)
	s.client, err = minio.New(s.address(), &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: "us-east-1", MaxRetries: 1,
		BucketLookup: minio.BucketLookupPath, Transport: &http.Transport{DisableKeepAlives: true}, // no goroutines are left
	})
	if err == nil {
		err = os.Mkdir(s.data(), 0o755)
	}
	if err == nil {
		err = s.process.Start()
	}
	if err != nil {
		s.remove()
		tb.Fatal(err)
	}
	return s
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
func (s *Server) Endpoint() string { return "http://" + s.address() }

// VirtualEndpoint is the server's URL for requests that name the bucket before
// the host: http://bucket.localhost:port. The system need not know such names.
func (s *Server) VirtualEndpoint() string { return fmt.Sprintf("http://%s:%d", domain, s.port) }

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

// Dir is where the server keeps the objects of a bucket, as files by their keys.
func (s *Server) Dir(bucket string) string { return filepath.Join(s.data(), bucket) }

// Start starts the server again after Kill.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	if err := s.process.Start(); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// data is where the server keeps its buckets.
func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command() *exec.Cmd {
	cmd := exec.Command(s.program, "--port", s.address(), "--access", AccessKey, "--secret", SecretKey,
		"--region", "us-east-1", "--virtual-domain", domain, "--keep-alive", "--quiet", "posix", s.data())
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TMPDIR=" + s.dir}
	return cmd
}

func (s *Server) ready(ctx context.Context) error {
	_, err := s.client.ListBuckets(ctx)
	return err
}

// Kill kills the server.
func (s *Server) Kill() { s.process.End(syscall.SIGKILL) }

// Freeze stops the server from answering, without ending its connections, until
// Thaw.
func (s *Server) Freeze(tb testing.TB) {
	tb.Helper()
	if err := s.process.Freeze(); err != nil {
		tb.Fatal(err)
	}
}

// Thaw ends Freeze.
func (s *Server) Thaw() { s.process.Thaw() }

func (s *Server) remove() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}
