package objects

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const content = "the artifact's content"

func sum(s string) string {
	d := sha256.Sum256([]byte(s))
	return hex.EncodeToString(d[:])
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, endpoint string) *Store {
	t.Helper()
	s, err := Open(Config{Endpoint: endpoint, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: 5 * time.Second})
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func TestConfig(t *testing.T) {
	t.Parallel()
	notPEM := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(notPEM, []byte("no certificate"), 0o600))
	for _, tt := range []struct {
		name string
		cfg  Config
		says string // empty: it is accepted
	}{
		{"zero", Config{}, ""},
		{"https", Config{Endpoint: "https://s3.example.com:9000/"}, ""},
		{"loopback", Config{Endpoint: "http://127.0.0.1:9000"}, ""},
		{"loopback, version 6", Config{Endpoint: "http://[::1]:9000"}, ""},
		{"localhost", Config{Endpoint: "http://localhost:9000"}, ""},
		{"in the clear", Config{Endpoint: "http://s3.example.com"}, "EXHUME_S3_INSECURE"},
		{"in the clear, allowed", Config{Endpoint: "http://s3.example.com", Insecure: true}, ""},
		{"no scheme", Config{Endpoint: "s3.example.com"}, "EXHUME_S3_ENDPOINT"},
		{"other scheme", Config{Endpoint: "ftp://s3.example.com"}, "EXHUME_S3_ENDPOINT"},
		{"path", Config{Endpoint: "https://s3.example.com/bucket"}, "EXHUME_S3_ENDPOINT"},
		{"password", Config{Endpoint: "https://me:hunter2@s3.example.com"}, "EXHUME_S3_ENDPOINT"},
		{"one key", Config{AccessKey: "me"}, "EXHUME_S3_SECRET_KEY"},
		{"below localhost", Config{Endpoint: "http://s3.LOCALHOST.:9000", Style: StyleVirtual}, ""},
		{"not below localhost", Config{Endpoint: "http://s3localhost:9000"}, "EXHUME_S3_INSECURE"},
		{"style", Config{Style: "odd"}, "EXHUME_S3_STYLE"},
		{"no name for the bucket", Config{Endpoint: "http://127.0.0.1:9000", Style: StyleVirtual}, "EXHUME_S3_STYLE"},
		{"no CA file", Config{CAFile: "/nowhere/ca.pem"}, "EXHUME_S3_CA"},
		{"bad CA file", Config{CAFile: notPEM}, "EXHUME_S3_CA"},
	} {
		s, err := Open(tt.cfg)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) || (s == nil) != (err != nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error holds the password: %v", tt.name, err)
		}
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string][2]string{
		"s3://bucket":         {"bucket", ""},
		"s3://bucket/":        {"bucket", ""},
		"s3://bucket/a/b":     {"bucket", "a/b"},
		"s3://bucket/a%2Fb?#": {"bucket", "a%2Fb?#"},
		"s3://b":              {},
		"s3:///key":           {},
		"s3://me:pw@bucket/k": {},
		"s3://Bucket/k":       {},
		"s3://../k":           {},
		"s3://a..b/k":         {},
		"https://bucket/key":  {},
		"bucket/key":          {},
	} {
		bucket, key, err := ParseURL(url)
		if got := [2]string{bucket, key}; got != want || (err != nil) != (want[0] == "") {
			t.Errorf("%s: %q, %v", url, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"s3://bucket/key":              "s3://bucket/key",
		"s3://me:pw@bucket/key":        "s3://***@bucket/key",
		"https://h/k?X-Amz-Signature=": "https://h/k?***",
		"https://me:p/w@h/k#x":         "https://***@h/k#***",
		"me:pw@host":                   "***@host",
	} {
		if got := Redact(url); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}

// The server must be asked to check what arrives.
func TestWrongDigestIsRefusedByTheServer(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	s, bucket := openStore(t, srv.Endpoint()), srv.Bucket(t)
	if err := s.Put(t.Context(), bucket, "k", []byte(content), sum("other"), false); !Is(err, Failing) {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Stat(t.Context(), bucket, "k"); !Is(err, Missing) {
		t.Errorf("it is visible: %v", err)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	s, bucket := openStore(t, srv.Endpoint()), srv.Bucket(t)
	denied, err := Open(Config{Endpoint: srv.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: "wrong"})
	must(t, err)
	t.Cleanup(denied.Close)
	unnamed := openStore(t, "https://nowhere.invalid")
	ctx := t.Context()
	must(t, s.Put(ctx, bucket, "k", []byte(content), sum(content), true))
	stat := func(s *Store, bucket, key string) error { _, err := s.Stat(ctx, bucket, key); return err }
	get := func(s *Store, bucket, key string) error { _, _, err := s.Get(ctx, bucket, key); return err }
	for name, tt := range map[string]struct {
		err  error
		want Kind
	}{
		"no key, HEAD":    {stat(s, bucket, "none"), Missing},
		"no key, GET":     {get(s, bucket, "none"), Missing},
		"no bucket":       {get(s, "nowhere", "k"), NoBucket},
		"bucket missing":  {s.CheckBucket(ctx, "nowhere"), NoBucket},
		"wrong secret":    {stat(denied, bucket, "k"), Denied},
		"taken":           {s.Put(ctx, bucket, "k", []byte("x"), sum("x"), true), Taken},
		"below an object": {s.Put(ctx, bucket, "k/below", []byte("x"), sum("x"), true), BadKey},
		"long name":       {s.Put(ctx, bucket, strings.Repeat("n", 300), []byte("x"), sum("x"), true), BadKey},
		"upload is gone":  {(&Upload{store: s, bucket: bucket, key: "u", id: "gone"}).Part(ctx, []byte(content)), Gone},
		"nobody there":    {stat(openStore(t, "http://127.0.0.1:1"), bucket, "k"), Away},
		"name of no host": {stat(unnamed, bucket, "k"), Away},
	} {
		if !Is(tt.err, tt.want) || strings.Contains(tt.err.Error(), "\n") {
			t.Errorf("%s: %#v", name, tt.err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Stat(ended, bucket, "k")
	if _, ours := errors.AsType[*Error](err); ours || !errors.Is(err, context.Canceled) {
		t.Errorf("context ended: %v", err)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		code   string
		want   Kind
	}{
		"slow down":        {503, "SlowDown", Failing},
		"unavailable":      {503, "", Failing},
		"bad gateway":      {502, "", Failing},
		"too many":         {429, "", Failing},
		"conflict":         {409, "ConditionalRequestConflict", Failing},
		"quota":            {403, "QuotaExceeded", Full},
		"storage full":     {507, "XMinioStorageFull", Full},
		"forbidden":        {403, "AccessDenied", Denied},
		"token is old":     {400, "ExpiredToken", Denied},
		"not implemented":  {501, "NotImplemented", Unsupported},
		"bad request":      {400, "InvalidRequest", Refused},
		"another region":   {301, "PermanentRedirect", Refused},
		"condition, plain": {412, "", Taken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var elsewhere atomic.Bool
			other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Store(true) }))
			defer other.Close()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", other.URL)
				w.WriteHeader(tt.status)
				if tt.code != "" {
					_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>two\nlines</Message></Error>", tt.code)
				}
			}))
			defer srv.Close()
			s := openStore(t, srv.URL)
			err := s.Put(t.Context(), "bucket", "k", []byte(content), sum(content), false)
			if !Is(err, tt.want) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "s3://bucket/k") {
				t.Errorf("%#v", err)
			}
			if elsewhere.Load() {
				t.Error("it followed the redirect")
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	const public, metadata = "93.184.216.34", "169.254.169.254"
	for _, tt := range []struct {
		host    string
		private bool
		addr    string
		want    bool
	}{
		{"s3.example.com", false, public, true},
		{"s3.example.com", false, "2606:2800:220:1::1", true},
		{"s3.example.com", false, "127.0.0.1", false},
		{"s3.example.com", false, "::1", false},
		{"s3.example.com", false, "10.1.2.3", false},
		{"s3.example.com", false, "192.168.1.1", false},
		{"s3.example.com", false, "172.20.0.2", false},
		{"s3.example.com", false, "fd00::1", false},
		{"s3.example.com", false, "100.64.0.1", false},
		{"s3.example.com", false, metadata, false},
		{"s3.example.com", false, "fe80::1", false},
		{"s3.example.com", false, "0.0.0.0", false},
		{"s3.example.com", false, "::", false},
		{"s3.example.com", false, "::ffff:127.0.0.1", false},
		{"s3.example.com", false, "::ffff:169.254.169.254", false},
		{"s3.example.com", false, "64:ff9b::a9fe:a9fe", false},
		{"s3.example.com", false, "2002:a9fe:a9fe::1", false},
		{"s3.example.com", false, "224.0.0.1", false},
		{"s3.example.com", true, "172.20.0.2", true},
		{"s3.example.com", true, "127.0.0.1", true},
		{"s3.example.com", true, metadata, false},
		{"s3.example.com", true, "fe80::1", false},
		{"localhost", false, "127.0.0.1", true},
		{"localhost", false, "::1", true},
		{"localhost", false, "10.1.2.3", false},
		{"s3.localhost", false, "127.0.0.1", true},
		{"s3.Localhost.", false, "::1", true},
		{"s3.localhost", false, "10.1.2.3", false},
		{"evillocalhost", false, "127.0.0.1", false},
		{"localhost.example.com", false, "127.0.0.1", false},
		{"10.1.2.3", false, "10.1.2.3", true},
		{"10.1.2.3", true, "10.1.2.4", false},
		{metadata, false, metadata, true},
	} {
		d := newDialer(tt.host, tt.private, time.Second)
		addr := netip.MustParseAddr(tt.addr)
		err := d.Control("tcp", netip.AddrPortFrom(addr, 443).String(), nil)
		if (err == nil) != tt.want {
			t.Errorf("%s (private %v) at %s: %v", tt.host, tt.private, tt.addr, err)
		}
	}
}

// A name that means loopback must not lead to what listens there.
func TestNameLeadsToLoopback(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close() //nolint:errcheck // a test
	d := newDialer("s3.example.com", false, time.Second)
	c, err := d.dial(t.Context(), "tcp", strings.Replace(l.Addr().String(), "127.0.0.1", "localhost", 1))
	if err == nil {
		_ = c.Close()
		t.Fatal("connected")
	}
	if kindOf(err) != Refused || !strings.Contains(err.Error(), "EXHUME_S3_PRIVATE") {
		t.Errorf("kind %v: %v", kindOf(err), err)
	}
}

// The names below localhost are not asked for, and both kinds of address tried.
func TestLocalhostNeedsNoNameServer(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		must(t, err)
		defer l.Close() //nolint:errcheck // a test
		_, port, err := net.SplitHostPort(l.Addr().String())
		must(t, err)
		d := newDialer("localhost", false, time.Second)
		d.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			t.Error("a name server was asked")
			return nil, errors.New("there is none")
		}}
		c, err := d.dial(t.Context(), "tcp", net.JoinHostPort("bucket.localhost", port))
		must(t, err)
		must(t, c.Close())
	}
}

// All that is asked of a server, with the bucket named before the host.
func TestVirtualStyle(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	bucket := srv.Bucket(t)
	s, err := Open(Config{
		Endpoint: srv.VirtualEndpoint(), Style: StyleVirtual, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: 5 * time.Second,
	})
	must(t, err)
	t.Cleanup(s.Close)
	ctx := t.Context()
	must(t, s.CheckBucket(ctx, bucket))
	if err := s.CheckBucket(ctx, "nowhere"); !Is(err, NoBucket) {
		t.Errorf("no bucket: %v", err)
	}
	r, err := NewReader([]Source{{s, bucket, "p"}}, nil)
	must(t, err)
	defer r.Close() //nolint:errcheck // nothing was written
	for _, key := range []string{"p/k", "p/d/odd é+%41?#&="} {
		must(t, s.Put(ctx, bucket, key, []byte(content), sum(content), true))
		if err := s.Put(ctx, bucket, key, []byte("x"), sum("x"), true); !Is(err, Taken) {
			t.Errorf("%s: put again: %v", key, err)
		}
		o, err := s.Stat(ctx, bucket, key)
		if err != nil || o.Size != int64(len(content)) || o.SHA256 != sum(content) {
			t.Errorf("%s: %+v, %v", key, o, err)
		}
		if got, size, err := read(ctx, r, URL(bucket, key)); got != content || size != int64(len(content)) || err != nil {
			t.Errorf("%s: %q of %d bytes, %v", key, got, size, err)
		}
	}
	if _, err := s.Stat(ctx, bucket, "none"); !Is(err, Missing) {
		t.Errorf("no key: %v", err)
	}

	large := strings.Repeat("0123456789", MinPart/5) // two parts
	for _, onlyNew := range []bool{true, false} {
		u, err := s.Begin(ctx, bucket, "p/large", sum(large))
		must(t, err)
		must(t, u.Part(ctx, []byte(large[:MinPart])))
		must(t, u.Part(ctx, []byte(large[MinPart:])))
		must(t, u.Complete(ctx, onlyNew))
	}
	u, err := s.Begin(ctx, bucket, "p/large", sum(large))
	must(t, err)
	must(t, u.Part(ctx, []byte(content)))
	if err := u.Complete(ctx, true); !Is(err, Taken) {
		t.Errorf("complete again: %v", err)
	}
	u.Abort(t.Context())
	if got, _, err := read(ctx, r, URL(bucket, "p/large")); sum(got) != sum(large) || err != nil {
		t.Errorf("large: %d bytes, %v", len(got), err)
	}

	// The listing of uploads.
	stale, err := s.Begin(ctx, bucket, "p/stale", sum(""))
	must(t, err)
	must(t, s.Sweep(ctx, bucket, "p/", time.Now().Add(time.Hour)))
	if err := stale.Part(ctx, []byte(content)); !Is(err, Gone) {
		t.Errorf("part of what was swept: %v", err)
	}
	for u := range srv.Client().ListIncompleteUploads(ctx, bucket, "", true) {
		t.Errorf("left behind: %+v", u)
	}
}

func TestAuthorities(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	for file, want := range map[string]Kind{ca: Missing, "": Refused} {
		s, err := Open(Config{Endpoint: srv.URL, CAFile: file})
		must(t, err)
		defer s.Close()
		_, err = s.Stat(t.Context(), "bucket", "k")
		if !Is(err, want) || want == Refused && !strings.Contains(err.Error(), "EXHUME_S3_CA") {
			t.Errorf("authorities %q: %v", file, err)
		}
	}
}

// read reads what a URL points at.
func read(ctx context.Context, r *Reader, url string) (string, int64, error) {
	body, size, err := r.Open(ctx, url)
	if err != nil {
		return "", 0, err
	}
	b, err := io.ReadAll(body)
	return string(b), size, errors.Join(err, body.Close())
}

func TestReaderAllowList(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	s, bucket, closed := openStore(t, srv.Endpoint()), srv.Bucket(t), srv.Bucket(t)
	dir := t.TempDir()
	allowed, outside := filepath.Join(dir, "allowed"), filepath.Join(dir, "outside")
	must(t, os.MkdirAll(filepath.Join(allowed, "d é"), 0o755))
	for _, key := range []string{"pre/fix/k", "pre/fix/odd é+%41?#", "pre/fixed", "k"} {
		must(t, s.Put(t.Context(), bucket, key, []byte(content), sum(content), false))
	}
	must(t, s.Put(t.Context(), closed, "k", []byte(content), sum(content), false))
	must(t, os.WriteFile(filepath.Join(allowed, "d é", "f"), []byte(content), 0o600))
	must(t, os.WriteFile(outside, []byte("secret"), 0o600))
	must(t, os.Symlink("d é/f", filepath.Join(allowed, "link")))
	must(t, os.Symlink("../outside", filepath.Join(allowed, "escape")))
	must(t, os.Symlink(outside, filepath.Join(allowed, "absolute")))
	must(t, unix.Mkfifo(filepath.Join(allowed, "fifo"), 0o600))

	r, err := NewReader([]Source{{s, bucket, "pre/fix/"}}, []string{allowed})
	must(t, err)
	defer r.Close() //nolint:errcheck // nothing was written
	const missing, denied = schemas.CodeArtifactMissing, schemas.CodeArtifactDenied
	for _, tt := range []struct {
		url  string
		want schemas.Code
		says string
	}{
		{"s3://" + bucket + "/pre/fix/k", "", ""},
		{"s3://" + bucket + "/pre/fix/odd é+%41?#", "", ""},
		{"file://" + allowed + "/d%20%C3%A9/f", "", ""},
		{"file://localhost" + allowed + "/link", "", ""},
		{"s3://" + bucket + "/pre/fix/none", missing, "none"},
		{"s3://" + bucket + "/pre/fixed", denied, setting},
		{"s3://" + bucket + "/k", denied, setting},
		{"s3://" + bucket + "/pre/fix/../../k", missing, "clean"},
		{"s3://" + bucket + "/pre/fix//k", missing, "clean"},
		{"s3://" + bucket, missing, "clean"},
		{"s3://" + closed + "/k", denied, setting},
		{"s3://me:hunter2@" + bucket + "/k", missing, "***"},
		{"file://" + outside, denied, setting},
		{"file://" + allowed + "/../outside", missing, "clean"},
		{"file://" + allowed + "/%2e%2e/outside", missing, "clean"},
		{"file://" + allowed + "/escape", denied, "escape"},
		{"file://" + allowed + "/absolute", denied, "escape"},
		{"file://" + allowed + "/fifo", missing, "regular"},
		{"file://" + allowed + "/d%20%C3%A9", missing, "regular"},
		{"file://" + allowed, denied, setting},
		{"file://" + allowed + "/none", missing, "no such file"},
		{"file://host" + allowed + "/link", missing, "file:///PATH"},
		{"file:" + allowed + "/link", "", ""},
		{"http://169.254.169.254/latest", missing, "want s3"},
		{"https://me:hunter2@example.com/k?token=hunter2", missing, "want s3"},
		{"/etc/passwd", missing, "want s3"},
		{"", missing, "want s3"},
		{"purged://dual-control", schemas.CodeArtifactPurged, "purged"},
	} {
		got, size, err := read(t.Context(), r, tt.url)
		switch {
		case tt.want == "":
			if got != content || size != int64(len(content)) || err != nil {
				t.Errorf("%s: %q of %d bytes, %v", tt.url, got, size, err)
			}
		case err == nil || fault.CodeOf(err) != tt.want || !strings.Contains(err.Error(), tt.says):
			t.Errorf("%s: %q, %v", tt.url, got, err)
		case strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error holds the password: %v", tt.url, err)
		}
	}
}

// What stands there, but whoever keeps it does not let it be read.
func TestReaderDenied(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	s, bucket := openStore(t, srv.Endpoint()), srv.Bucket(t)
	must(t, s.Put(t.Context(), bucket, "k", []byte(content), sum(content), true))
	wrong, err := Open(Config{Endpoint: srv.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: "wrong"})
	must(t, err)
	t.Cleanup(wrong.Close)
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	for name, tt := range map[string]struct {
		source Source
		want   schemas.Code
	}{
		"wrong secret":        {Source{wrong, bucket, ""}, schemas.CodeArtifactDenied},
		"not to be trusted":   {Source{openStore(t, untrusted.URL), bucket, ""}, schemas.CodeArtifactDenied},
		"bucket is not there": {Source{s, "nowhere", ""}, schemas.CodeArtifactMissing},
		"nobody there":        {Source{openStore(t, "http://127.0.0.1:1"), bucket, ""}, schemas.CodeArchiveDown},
	} {
		r, err := NewReader([]Source{tt.source}, nil)
		must(t, err)
		if _, _, err := read(t.Context(), r, "s3://"+tt.source.Bucket+"/k"); fault.CodeOf(err) != tt.want {
			t.Errorf("%s: %v (%s)", name, err, fault.CodeOf(err))
		}
	}
}

func TestFileFaults(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]schemas.Code{
		unix.EACCES: schemas.CodeArtifactDenied, unix.EPERM: schemas.CodeArtifactDenied,
		errors.New("path escapes from parent"): schemas.CodeArtifactDenied,
		unix.ENOENT:                            schemas.CodeArtifactMissing, unix.ENOTDIR: schemas.CodeArtifactMissing,
		unix.ELOOP: schemas.CodeArtifactMissing, unix.ENXIO: schemas.CodeArtifactMissing,
		unix.EMFILE: schemas.CodeArchiveError, unix.EIO: schemas.CodeArchiveError, unix.ESTALE: schemas.CodeArchiveError,
	} {
		if got := fileFault("file:///f", err); fault.CodeOf(got) != want || !errors.Is(got, err) {
			t.Errorf("%v: %v (%s), want %s", err, got, fault.CodeOf(got), want)
		}
	}
}

// fileChild tells a copy of the test binary, which is nobody in particular, what
// to read.
const fileChild = "OBJECTS_FILE_CHILD"

// A file that this user may not read. Root may read every file, so the test is
// run by somebody else then.
func TestReaderFileDenied(t *testing.T) {
	if url := os.Getenv(fileChild); url != "" {
		r, err := NewReader(nil, []string{filepath.Dir(strings.TrimPrefix(url, "file://"))})
		must(t, err)
		defer r.Close() //nolint:errcheck // nothing was written
		if _, _, err := read(t.Context(), r, url); fault.CodeOf(err) != schemas.CodeArtifactDenied {
			t.Errorf("%v (%s)", err, fault.CodeOf(err))
		}
		return
	}
	t.Parallel()
	// Not below t.TempDir, which is closed to others.
	dir, err := os.MkdirTemp("", "exhume-denied-")
	must(t, err)
	defer os.RemoveAll(dir) //nolint:errcheck // a test
	must(t, os.Chmod(dir, 0o755))
	secret := filepath.Join(dir, "secret")
	must(t, os.WriteFile(secret, []byte(content), 0))
	program := filepath.Join(dir, "test")
	binary, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(program, binary, 0o755))
	c := exec.Command(program, "-test.run=^TestReaderFileDenied$")
	c.Dir, c.Env = dir, append(os.Environ(), fileChild+"=file://"+secret)
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNewReaderRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sources []Source
		dirs    []string
	}{
		{nil, []string{"relative"}},
		{nil, []string{t.TempDir(), "/nowhere/at/all"}},
		{[]Source{{nil, "bucket", "../x"}}, nil},
	} {
		if _, err := NewReader(tt.sources, tt.dirs); err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("%v: %v", tt, err)
		}
	}
}

// flaky serves one object, and breaks each answer off after some bytes.
type flaky struct {
	content string
	every   int
	etag    atomic.Value
	answers atomic.Int64
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		return // whether it is there at all
	}
	f.answers.Add(1)
	etag := f.etag.Load().(string)
	if match := r.Header.Get("If-Match"); match != "" && match != etag {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	var from int
	_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
	w.Header().Set("ETag", etag)
	w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", fmt.Sprint(len(f.content)-from))
	if from > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(f.content)-1, len(f.content)))
		w.WriteHeader(http.StatusPartialContent)
	}
	end := min(len(f.content), from+f.every)
	_, _ = io.WriteString(w, f.content[from:end])
	_ = http.NewResponseController(w).Flush()
	if end < len(f.content) {
		panic(http.ErrAbortHandler)
	}
}

func TestDownloadGoesOn(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("0123456789", 1000)
	for _, tt := range []struct {
		name    string
		every   int
		changes bool
		want    schemas.Code
		answers int64
	}{
		{"in one", len(whole), false, "", 1},
		{"in pieces", len(whole)/resumes - 100, false, "", resumes + 1},
		{"in too many", 100, false, schemas.CodeArchiveError, resumes + 1},
		{"changed meanwhile", 100, true, schemas.CodeArchiveError, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &flaky{content: whole, every: tt.every}
			f.etag.Store(`"one"`)
			srv := httptest.NewServer(f)
			defer srv.Close()
			r, err := NewReader([]Source{{openStore(t, srv.URL), "bucket", ""}}, nil)
			must(t, err)
			body, size, err := r.Open(t.Context(), "s3://bucket/k")
			must(t, err)
			if tt.changes {
				f.etag.Store(`"two"`)
			}
			got, err := io.ReadAll(body)
			if size != int64(len(whole)) || (err == nil) != (tt.want == "") || err != nil && fault.CodeOf(err) != tt.want {
				t.Errorf("size %d, %v", size, err)
			}
			if err == nil && string(got) != whole || !strings.HasPrefix(whole, string(got)) {
				t.Error("the content is wrong")
			}
			must(t, body.Close())
			if n := f.answers.Load(); n != tt.answers {
				t.Errorf("%d answers, want %d", n, tt.answers)
			}
		})
	}
}

func TestReaderServerKilled(t *testing.T) {
	t.Parallel()
	srv := s3test.StartOwnServer(t)
	s, bucket := openStore(t, srv.Endpoint()), srv.Bucket(t)
	large := strings.Repeat("0123456789", 4<<20)
	must(t, s.Put(t.Context(), bucket, "k", []byte(large), sum(large), true))
	r, err := NewReader([]Source{{s, bucket, ""}}, nil)
	must(t, err)
	body, _, err := r.Open(t.Context(), "s3://"+bucket+"/k")
	must(t, err)
	_, err = io.ReadFull(body, make([]byte, 10))
	must(t, err)
	srv.Kill()
	if _, err := io.Copy(io.Discard, body); fault.CodeOf(err) != schemas.CodeArchiveDown {
		t.Errorf("reading on: %v", err)
	}
	must(t, body.Close())
	if _, _, err := r.Open(t.Context(), "s3://"+bucket+"/k"); fault.CodeOf(err) != schemas.CodeArchiveDown {
		t.Errorf("opening: %v", err)
	}
	if err := r.Ping(t.Context()); fault.CodeOf(err) != schemas.CodeArchiveDown {
		t.Errorf("ping: %v", err)
	}
	srv.Start(t)
	must(t, r.Ping(t.Context()))
	got, _, err := read(t.Context(), r, "s3://"+bucket+"/k")
	if diff := cmp.Diff(sum(large), sum(got)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// A server that says nothing any more is away; one that only hangs on one object
// is not.
func TestReaderServerSilent(t *testing.T) {
	t.Parallel()
	srv := s3test.StartOwnServer(t)
	bucket := srv.Bucket(t)
	hanging := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			<-r.Context().Done()
		}
	}))
	defer hanging.Close()
	for endpoint, want := range map[string]schemas.Code{srv.Endpoint(): schemas.CodeArchiveDown, hanging.URL: schemas.CodeArchiveError} {
		s, err := Open(Config{Endpoint: endpoint, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: 300 * time.Millisecond})
		must(t, err)
		t.Cleanup(s.Close)
		r, err := NewReader([]Source{{s, bucket, ""}}, nil)
		must(t, err)
		srv.Freeze(t)
		if _, _, err := r.Open(t.Context(), "s3://"+bucket+"/k"); fault.CodeOf(err) != want {
			t.Errorf("%v (%s), want %s", err, fault.CodeOf(err), want)
		}
		srv.Thaw()
	}
}
