package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// calls are all that a server is asked for.
func calls(s *Store) map[string]func(context.Context) error {
	u := &Upload{store: s, bucket: "bucket", key: "k", id: "id"}
	return map[string]func(context.Context) error{
		"stat":         func(ctx context.Context) error { _, err := s.Stat(ctx, "bucket", "k"); return err },
		"check bucket": func(ctx context.Context) error { return s.CheckBucket(ctx, "bucket") },
		"put":          func(ctx context.Context) error { return s.Put(ctx, "bucket", "k", []byte(content), sum(content), true) },
		"begin":        func(ctx context.Context) error { _, err := s.Begin(ctx, "bucket", "k", sum(content)); return err },
		"part":         func(ctx context.Context) error { return u.Part(ctx, []byte(content)) },
		"complete":     func(ctx context.Context) error { return u.Complete(ctx, true) },
		"sweep":        func(ctx context.Context) error { return s.Sweep(ctx, "bucket", "k", time.Now()) },
		"get": func(ctx context.Context) error {
			body, _, err := s.Get(ctx, "bucket", "k")
			if err == nil {
				_, err = io.Copy(io.Discard, io.LimitReader(body, 1<<20))
				_ = body.Close()
			}
			return err
		},
	}
}

// serve starts a server for a test. What hangs in it ends with the test.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	ended, end := context.WithCancel(context.Background())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ended, cancel)()
		h(w, r.WithContext(ctx))
	}))
	t.Cleanup(func() {
		end()
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL
}

// What the server of a source answers is the item's own, or a reason to wait.
func TestReaderAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		code   string
		want   schemas.Code
	}{
		"forbidden":    {403, "AccessDenied", schemas.CodeArtifactDenied},
		"unauthorized": {401, "", schemas.CodeArtifactDenied},
		"no key":       {404, "NoSuchKey", schemas.CodeArtifactMissing},
		"no bucket":    {404, "NoSuchBucket", schemas.CodeArtifactMissing},
		"no text":      {404, "", schemas.CodeArtifactMissing},
		"too many":     {429, "", schemas.CodeArchiveError},
		"slow down":    {503, "SlowDown", schemas.CodeArchiveError},
		"broken":       {500, "InternalError", schemas.CodeArchiveError},
		"bad gateway":  {502, "", schemas.CodeArchiveError},
		"bad request":  {400, "InvalidRequest", schemas.CodeArtifactDenied},
		"redirect":     {307, "TemporaryRedirect", schemas.CodeArtifactDenied},
		"no content":   {204, "", schemas.CodeArchiveError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
				w.Header().Set("Location", "http://169.254.169.254/latest/meta-data/")
				w.WriteHeader(tt.status)
				if tt.code != "" {
					_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message></Error>", tt.code)
				}
			})
			r, err := NewReader([]Source{{openStore(t, url), "bucket", ""}}, nil)
			must(t, err)
			_, _, err = read(t.Context(), r, "s3://bucket/k")
			if fault.CodeOf(err) != tt.want || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v (%s)", err, fault.CodeOf(err))
			}
			if n := asked.Load(); n > tries {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
}

// No answer leads anywhere else: neither to an address that tells secrets to whoever
// comes from here, nor to another server.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int64
	other := serve(t, func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, to := range []string{"http://169.254.169.254/latest/meta-data/iam/", other + "/bucket/k", "file:///etc/passwd"} {
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", to)
				w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
				w.WriteHeader(status)
				_, _ = fmt.Fprintf(w, "<Error><Code>TemporaryRedirect</Code><Endpoint>%s</Endpoint><Region>eu-west-1</Region></Error>", to)
			})
			for name, call := range calls(openStore(t, url)) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				if err := call(ctx); !Is(err, Refused) {
					t.Errorf("%s, %d to %s: %v", name, status, to, err)
				}
				cancel()
			}
		}
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("the other server was asked %d times", n)
	}
}

// An answer without an end takes neither memory nor time without end.
func TestEndlessAnswers(t *testing.T) {
	for _, status := range []int{200, 403} {
		for _, body := range []string{"<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>", "<Error><Code>"} {
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
				w.Header().Set("ETag", `"e"`)
				w.WriteHeader(status)
				if r.Method == http.MethodHead {
					return
				}
				_, _ = io.WriteString(w, body)
				for r.Context().Err() == nil {
					if _, err := io.WriteString(w, strings.Repeat("y", 64<<10)); err != nil {
						return
					}
				}
			})
			for name, call := range calls(openStore(t, url)) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				err := call(ctx)
				if ctx.Err() != nil {
					t.Errorf("%s, %d %s: it does not end: %v", name, status, body, err)
				}
				cancel()
				runtime.ReadMemStats(&after)
				if used := int64(after.TotalAlloc - before.TotalAlloc); used > 16*answerBytes {
					t.Errorf("%s, %d %s: it took %d MiB", name, status, body, used>>20)
				}
			}
		}
	}
}

// A server that accepts and says nothing, or stops in the middle, keeps nobody beyond
// the end of the context.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]func(http.ResponseWriter){
		"nothing": func(http.ResponseWriter) {},
		"its headers": func(w http.ResponseWriter) {
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			w.Header().Set("Content-Length", "1000000")
			_ = http.NewResponseController(w).Flush()
		},
		"a part of the body": func(w http.ResponseWriter) {
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			_, _ = io.WriteString(w, "<Error><Co")
			_ = http.NewResponseController(w).Flush()
		},
	} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			says(w)
			<-r.Context().Done()
		})
		for what, call := range calls(openStore(t, url)) {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				start := time.Now()
				err := call(ctx)
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("it took %v", took)
				}
				// What is asked by HEAD, or is content with the headers, has its answer.
				if !errors.Is(err, context.DeadlineExceeded) && (name == "nothing" || err != nil) {
					t.Error(err)
				}
			})
		}
	}
}

// Bytes that are missing, too many or other ones than were stored.
func TestReaderWrongLengths(t *testing.T) {
	t.Parallel()
	const whole = "0123456789"
	const dates = "Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT\r\n"
	raw := func(answer string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+answer)
			_ = conn.Close()
		}
	}
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   schemas.Code
		got    string
	}{
		"longer than it says": {raw("Content-Length: 4\r\n" + dates + "\r\n" + whole), "", whole[:4]},
		"without a length": {func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, whole)
			_ = http.NewResponseController(w).Flush()
		}, "", whole},
		"shorter than it says": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "20")
			_, _ = io.WriteString(w, whole)
		}, schemas.CodeArchiveError, whole},
		"a negative length": {raw("Content-Length: -5\r\n" + dates + "\r\n" + whole), schemas.CodeArchiveError, ""},
		"no HTTP":           {raw(whole), schemas.CodeArchiveError, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, func(w http.ResponseWriter, q *http.Request) {
				w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
				w.Header().Set("ETag", `"e"`)
				if q.Method == http.MethodHead || q.Header.Get("Range") != "" {
					return
				}
				tt.answer(w)
			})
			r, err := NewReader([]Source{{openStore(t, url), "bucket", ""}}, nil)
			must(t, err)
			got, _, err := read(t.Context(), r, "s3://bucket/k")
			if got != tt.got || (err == nil) != (tt.want == "") || err != nil && fault.CodeOf(err) != tt.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// A stalled connection looks like the end of a context by its cause, and is none.
func TestStalledConnectionHasACode(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]schemas.Code{Away: schemas.CodeArchiveDown, Failing: schemas.CodeArchiveError} {
		if err := classify(&Error{kind, "stalled", context.DeadlineExceeded}); fault.CodeOf(err) != want {
			t.Errorf("%v (%s)", err, fault.CodeOf(err))
		}
	}
	if err := classify(context.DeadlineExceeded); err != context.DeadlineExceeded { //nolint:errorlint // it comes as it is
		t.Error(err)
	}
}
