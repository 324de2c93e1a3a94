package destination

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
)

var _ restore.Group = (*BucketGroup)(nil)

// large takes several parts.
var large = strings.Repeat("exhumed\n", (2*partSize+partSize/2)/8)

func openStore(t testing.TB, endpoint string) *objects.Store {
	t.Helper()
	store, err := objects.Open(objects.Config{
		Endpoint: endpoint, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: 5 * time.Second,
	})
	must(t, err)
	t.Cleanup(store.Close)
	return store
}

// newBucket opens a prefix of a fresh bucket, and checks at the end that nothing
// but objects is left there.
func newBucket(t testing.TB, srv *s3test.Server) *Bucket {
	t.Helper()
	return newBucketBy(t, srv, openStore(t, srv.Endpoint()))
}

// newBucketBy is newBucket by way of a store of the server.
func newBucketBy(t testing.TB, srv *s3test.Server, store *objects.Store) *Bucket {
	t.Helper()
	name := srv.Bucket(t)
	b, err := OpenBucket(store, name, "pre/fix")
	must(t, err)
	t.Cleanup(func() {
		if left := uploads(t, srv, name); len(left) > 0 {
			t.Errorf("uploads left behind: %v", left)
		}
		if !b.held.TryAcquire(heldBytes) {
			t.Error("memory is still held")
		}
	})
	return b
}

func uploads(t testing.TB, srv *s3test.Server, bucket string) (keys []string) {
	t.Helper()
	for u := range srv.Client().ListIncompleteUploads(context.Background(), bucket, "", true) {
		must(t, u.Err)
		keys = append(keys, u.Key)
	}
	return keys
}

// stored are the objects of a bucket with their contents; large ones are
// shortened.
func stored(t testing.TB, srv *s3test.Server, bucket string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for o := range srv.Client().ListObjects(context.Background(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(t, o.Err)
		body, err := srv.Client().GetObject(context.Background(), bucket, o.Key, minio.GetObjectOptions{})
		must(t, err)
		content, err := io.ReadAll(body)
		must(t, err)
		must(t, body.Close())
		found[o.Key] = brief(string(content))
	}
	return found
}

func brief(content string) string {
	if len(content) > 100 {
		return fmt.Sprintf("%d bytes %s", len(content), sum([]byte(content)))
	}
	return content
}

// place makes an object behind the package's back, without metadata.
func placeObject(t testing.TB, srv *s3test.Server, bucket, key, content string) {
	t.Helper()
	_, err := srv.Client().PutObject(context.Background(), bucket, key, strings.NewReader(content), int64(len(content)),
		minio.PutObjectOptions{DisableMultipart: true})
	must(t, err)
}

func putObject(g *BucketGroup, slot int, output, content string) error {
	return g.Write(context.Background(), slot, output, int64(len(content)), sum([]byte(content)), func(w io.Writer) error {
		// In pieces that do not fit the parts.
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{strings.NewReader(content)}, make([]byte, 999_983))
		return err
	})
}

func TestBucketRoundTrip(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	for style, endpoint := range map[objects.Style]string{objects.StylePath: srv.Endpoint(), objects.StyleVirtual: srv.VirtualEndpoint()} {
		t.Run(string(style), func(t *testing.T) {
			t.Parallel()
			store, err := objects.Open(objects.Config{
				Endpoint: endpoint, Style: style, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: 5 * time.Second,
			})
			must(t, err)
			t.Cleanup(store.Close)
			roundTrip(t, srv, newBucketBy(t, srv, store))
		})
	}
}

func roundTrip(t *testing.T, srv *s3test.Server, b *Bucket) {
	t.Helper()
	contents := map[string]string{"empty": "", "d/small": ours, "d/é ü+%41?#&=": "odd name", "part": large[:partSize], "large": large}
	outputs := []string{"empty", "d/small", "d/é ü+%41?#&=", "part", "large"}
	g := b.Group(schemas.Settings{}, len(outputs))
	for i, output := range outputs {
		if _, _, err := g.Compare(t.Context(), i, output, 0, ""); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", output, err)
		}
		must(t, putObject(g, i, output, contents[output]))
	}
	if diff := cmp.Diff(map[string]string{}, stored(t, srv, b.name)); diff != "" {
		t.Errorf("visible before the commit (-want +got):\n%s", diff)
	}
	if codes := commit(g); len(codes) > 0 {
		t.Error(codes)
	}
	want := map[string]string{}
	for output, content := range contents {
		want["pre/fix/"+output] = brief(content)
	}
	if diff := cmp.Diff(want, stored(t, srv, b.name)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	again := b.Group(schemas.Settings{}, 1)
	for i, output := range outputs {
		content := []byte(contents[output])
		same, modified, err := again.Compare(t.Context(), i, output, int64(len(content)), sum(content))
		if !same || err != nil || time.Since(modified).Abs() > time.Minute {
			t.Errorf("%s: same %v, modified %v, %v", output, same, modified, err)
		}
		if same, _, err := again.Compare(t.Context(), i, output, int64(len(content)), sum([]byte("other"))); same || err != nil {
			t.Errorf("%s: same as other content: %v, %v", output, same, err)
		}
	}
	again.Abort()
}

func TestBucketPolicies(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	const exists = schemas.CodeDestinationExists
	refused := map[string]schemas.Code{"nothing": "", "same": "", "other": exists, "longer": exists}
	replaced := map[string]schemas.Code{}
	for policy, want := range map[schemas.Overwrite]map[string]schemas.Code{
		"": refused, schemas.OverwriteNever: refused,
		schemas.OverwriteIfDifferent: replaced, schemas.OverwriteAlways: replaced,
	} {
		for what, standing := range map[string]string{"nothing": "", "same": ours, "other": strings.ToUpper(ours), "longer": ours + ours} {
			for _, asUpload := range []bool{false, true} {
				t.Run(fmt.Sprint(policy, "/", what, "/", asUpload), func(t *testing.T) {
					t.Parallel()
					b := newBucket(t, srv)
					before := map[string]string{}
					if what != "nothing" {
						placeObject(t, srv, b.name, "pre/fix/f", standing)
						before["pre/fix/f"] = standing
					}
					if asUpload { // there is no room in memory
						must(t, b.held.Acquire(t.Context(), heldBytes))
						defer b.held.Release(heldBytes)
					}
					g := b.Group(schemas.Settings{Overwrite: policy}, 1)
					must(t, putObject(g, 7, "f", ours))
					if got := len(uploads(t, srv, b.name)) == 1; got != asUpload {
						t.Errorf("is an upload: %v, want %v", got, asUpload)
					}
					if diff := cmp.Diff(before, stored(t, srv, b.name)); diff != "" {
						t.Errorf("changed before the commit (-want +got):\n%s", diff)
					}
					got := commit(g)[7]
					if got != want[what] {
						t.Errorf("code %q, want %q", got, want[what])
					}
					if got == "" {
						before["pre/fix/f"] = ours
					}
					if diff := cmp.Diff(before, stored(t, srv, b.name)); diff != "" {
						t.Errorf("objects (-want +got):\n%s", diff)
					}
				})
			}
		}
	}
}

func TestBucketCompareReadsWhatHasNoMetadata(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	b := newBucket(t, srv)
	for key, content := range map[string]string{"same": ours, "other": strings.ToUpper(ours), "longer": ours + ours, "empty": ""} {
		placeObject(t, srv, b.name, "pre/fix/"+key, content)
		same, modified, err := b.Group(schemas.Settings{}, 1).Compare(t.Context(), 0, key, int64(len(ours)), sum([]byte(ours)))
		if same != (key == "same") || err != nil || modified.IsZero() {
			t.Errorf("%s: same %v since %v, %v", key, same, modified, err)
		}
	}
}

func TestBucketOneOutputTwiceInAGroup(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	for _, tt := range []struct {
		policy        schemas.Overwrite
		first, second string
		want          map[int]schemas.Code
		content       string
	}{
		{schemas.OverwriteNever, ours, ours, map[int]schemas.Code{}, ours},
		{schemas.OverwriteNever, ours, "other", map[int]schemas.Code{1: schemas.CodeDestinationExists}, ours},
		{schemas.OverwriteIfDifferent, ours, "other", map[int]schemas.Code{}, "other"},
	} {
		b := newBucket(t, srv)
		g := b.Group(schemas.Settings{Overwrite: tt.policy}, 8)
		must(t, putObject(g, 0, "f", tt.first))
		must(t, putObject(g, 1, "f", tt.second))
		if diff := cmp.Diff(tt.want, commit(g)); diff != "" {
			t.Errorf("%+v: codes (-want +got):\n%s", tt, diff)
		}
		if diff := cmp.Diff(map[string]string{"pre/fix/f": tt.content}, stored(t, srv, b.name)); diff != "" {
			t.Errorf("%+v: objects (-want +got):\n%s", tt, diff)
		}
	}
}

// Groups write the same key at the same time: one wins, and the others are
// content if theirs was the same.
func TestBucketRace(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	const groups = 8
	for name, content := range map[string]func(i int) string{
		"same":        func(int) string { return ours },
		"other":       func(i int) string { return fmt.Sprint("content ", i) },
		"same, large": func(int) string { return large[:partSize+8] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBucket(t, srv)
			var mu sync.Mutex
			codes := map[schemas.Code]int{}
			var all sync.WaitGroup
			for i := range groups {
				all.Go(func() {
					g := b.Group(schemas.Settings{Overwrite: schemas.OverwriteNever}, 1)
					if err := putObject(g, 0, "f", content(i)); err != nil {
						t.Error(err)
					}
					code := commit(g)[0]
					mu.Lock()
					defer mu.Unlock()
					codes[code]++
				})
			}
			all.Wait()
			want := map[schemas.Code]int{"": groups}
			if name == "other" {
				want = map[schemas.Code]int{"": 1, schemas.CodeDestinationExists: groups - 1}
			}
			if diff := cmp.Diff(want, codes); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
			if found := stored(t, srv, b.name); len(found) != 1 {
				t.Error(found)
			}
		})
	}
}

func TestBucketFillFails(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	b := newBucket(t, srv)
	trouble := errors.New("trouble")
	g := b.Group(schemas.Settings{}, 8)
	for i, tt := range []struct {
		name    string
		content string
		size    int
		err     error
		want    schemas.Code
	}{
		{"breaks off", ours[:5], len(ours), trouble, schemas.CodeInternal},
		{"breaks off, large", large[:2*partSize], len(large), trouble, schemas.CodeInternal},
		{"shorter", ours[:5], len(ours), nil, schemas.CodeIntegrityMismatch},
		{"longer", ours, 5, nil, schemas.CodeIntegrityMismatch},
		{"longer, large", large, len(large) - 1, nil, schemas.CodeIntegrityMismatch},
		{"other", strings.ToUpper(ours), len(ours), nil, schemas.CodeIntegrityMismatch},
		{"other, large", strings.ToUpper(large), len(large), nil, schemas.CodeIntegrityMismatch},
	} {
		digest := sum([]byte(ours))
		if tt.size > partSize {
			digest = sum([]byte(large))
		}
		err := g.Write(t.Context(), i, tt.name, int64(tt.size), digest, func(w io.Writer) error {
			if _, err := io.WriteString(w, tt.content); err != nil {
				return err
			}
			return tt.err
		})
		if codeOfError(err) != tt.want || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	must(t, putObject(g, 9, "good", ours))
	if codes := commit(g); len(codes) > 0 {
		t.Error(codes)
	}
	if diff := cmp.Diff(map[string]string{"pre/fix/good": ours}, stored(t, srv, b.name)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

func TestBucketAbort(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	b := newBucket(t, srv)
	g := b.Group(schemas.Settings{}, 2)
	must(t, putObject(g, 0, "small", ours))
	must(t, putObject(g, 1, "large", large))
	if n := len(uploads(t, srv, b.name)); n != 1 {
		t.Errorf("%d uploads, want 1", n)
	}
	g.Abort()
	if left := stored(t, srv, b.name); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBucketOutputsRefused(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	b := newBucket(t, srv)
	g := b.Group(schemas.Settings{Overwrite: schemas.OverwriteAlways}, 1)
	for _, output := range []string{
		"", ".", "..", "/", "/etc/exhume", "../secret", "a/../../secret", "a/../b", "./a", "a//b", "a/", "a\x00b", "a\nb", "a\xff",
		".exhume-1/f", strings.Repeat("n/", objects.MaxKey/2) + "f",
	} {
		same, _, err := g.Compare(t.Context(), 0, output, 0, "")
		if same || codeOfError(err) != schemas.CodePathRefused {
			t.Errorf("compare %q: same %v, %v", output, same, err)
		}
		if err := putObject(g, 1, output, "evil"); codeOfError(err) != schemas.CodePathRefused {
			t.Errorf("write %q: %v", output, err)
		}
	}
	if codes := commit(g); len(codes) > 0 {
		t.Error(codes)
	}
	if found := stored(t, srv, b.name); len(found) > 0 {
		t.Error(found)
	}
}

func TestOpenBucket(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	name := srv.Bucket(t)
	store := openStore(t, srv.Endpoint())
	wrong, err := objects.Open(objects.Config{Endpoint: srv.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: "wrong"})
	must(t, err)
	t.Cleanup(wrong.Close)
	gone := openStore(t, "http://127.0.0.1:1")
	for _, tt := range []struct {
		name           string
		store          *objects.Store
		bucket, prefix string
		want           schemas.Code
		says           string
	}{
		{"no prefix", store, name, "", "", ""},
		{"slash", store, name, "a/b/", "", ""},
		{"climbs", store, name, "a/../..", schemas.CodePathRefused, "clean"},
		{"absolute", store, name, "/a", schemas.CodePathRefused, "clean"},
		{"no bucket", store, "nowhere", "a", schemas.CodeDestinationMissing, `bucket "nowhere" does not exist`},
		{"wrong key", wrong, name, "a", schemas.CodeDestinationDenied, "access key"},
		{"nobody there", gone, name, "a", schemas.CodeDestinationDown, "does not answer"},
	} {
		b, err := OpenBucket(tt.store, tt.bucket, tt.prefix)
		if codeOfError(err) != tt.want || err != nil && !strings.Contains(err.Error(), tt.says) || (b != nil) != (err == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestBucketSweepsStaleUploads(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	name := srv.Bucket(t)
	store := openStore(t, srv.Endpoint())
	for _, key := range []string{"p/a", "p/b/c", "pq", "q"} {
		_, err := store.Begin(t.Context(), name, key, sum(nil))
		must(t, err)
	}
	if _, err := OpenBucket(store, name, "p"); err != nil {
		t.Error(err)
	}
	if n := len(uploads(t, srv, name)); n != 4 {
		t.Errorf("%d fresh uploads are left, want all", n)
	}
	must(t, store.Sweep(t.Context(), name, "p/", time.Now().Add(time.Hour)))
	if diff := cmp.Diff([]string{"pq", "q"}, uploads(t, srv, name)); diff != "" {
		t.Errorf("uploads (-want +got):\n%s", diff)
	}
}

// The server is killed when a part has been sent, and comes back.
func TestBucketServerKilled(t *testing.T) {
	t.Parallel()
	srv := s3test.StartOwnServer(t)
	b := newBucket(t, srv)
	g := b.Group(schemas.Settings{}, 3)
	must(t, putObject(g, 0, "small", ours))
	must(t, putObject(g, 1, "uploaded", large))
	err := g.Write(t.Context(), 2, "cut", int64(len(large)), sum([]byte(large)), func(w io.Writer) error {
		if _, err := io.WriteString(w, large[:partSize+1]); err != nil {
			return err
		}
		srv.Kill()
		_, err := io.WriteString(w, large[partSize+1:])
		return err
	})
	if code := codeOfError(err); code != schemas.CodeDestinationDown {
		t.Errorf("write: %v", err)
	}
	if _, _, err := g.Compare(t.Context(), 3, "small", 0, ""); codeOfError(err) != schemas.CodeDestinationDown {
		t.Errorf("compare: %v", err)
	}
	want := map[int]schemas.Code{0: schemas.CodeDestinationDown, 1: schemas.CodeDestinationDown}
	if diff := cmp.Diff(want, commit(g)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	srv.Start(t)
	if found := stored(t, srv, b.name); len(found) > 0 {
		t.Errorf("visible: %v", found)
	}
	// The uploads could not be aborted; whoever opens the bucket a day later does.
	must(t, b.store.Sweep(t.Context(), b.name, b.prefix, time.Now().Add(time.Hour)))
}

func TestBucketServerFrozen(t *testing.T) {
	t.Parallel()
	srv := s3test.StartOwnServer(t)
	name := srv.Bucket(t)
	store, err := objects.Open(objects.Config{
		Endpoint: srv.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: 300 * time.Millisecond,
	})
	must(t, err)
	t.Cleanup(store.Close)
	b, err := OpenBucket(store, name, "")
	must(t, err)
	g := b.Group(schemas.Settings{}, 1)
	must(t, putObject(g, 0, "f", ours))
	srv.Freeze(t)
	_, _, err = g.Compare(t.Context(), 1, "f", 0, "")
	if codeOfError(err) != schemas.CodeDestinationDown {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err = g.Compare(ctx, 1, "f", 0, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if diff := cmp.Diff(map[int]schemas.Code{0: schemas.CodeDestinationDown}, commit(g)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if _, err := OpenBucket(store, name, "p"); codeOfError(err) != schemas.CodeDestinationDown {
		t.Errorf("opening: %v", err)
	}
	if err := b.greet(ctx); codeOfError(err) != schemas.CodeDestinationDown {
		t.Errorf("opening, and its time is over: %v", err)
	}
	srv.Thaw()
}

// One object that the server hangs on does not make the server look away.
func TestBucketServerHangsOnOneObject(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/stuck") {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		forward(t, srv.Endpoint(), w, r)
	}))
	defer front.Close()
	name := srv.Bucket(t)
	store, err := objects.Open(objects.Config{
		Endpoint: front.URL, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: 300 * time.Millisecond,
	})
	must(t, err)
	t.Cleanup(store.Close)
	b, err := OpenBucket(store, name, "")
	must(t, err)
	g := b.Group(schemas.Settings{}, 2)
	must(t, putObject(g, 0, "stuck", ours))
	must(t, putObject(g, 1, "f", ours))
	if diff := cmp.Diff(map[int]schemas.Code{0: schemas.CodeDestinationBusy}, commit(g)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

// A server that is away is not asked in vain for each object of a large group.
func TestBucketGivesUpOnce(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	gone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forward(t, srv.Endpoint(), w, r)
	}))
	b, err := OpenBucket(openStore(t, gone.URL), srv.Bucket(t), "")
	must(t, err)
	const n = 2000
	g := b.Group(schemas.Settings{}, n)
	want := map[int]schemas.Code{}
	for i := range n {
		must(t, putObject(g, i, fmt.Sprint("f", i), ours))
		want[i] = schemas.CodeDestinationDown
	}
	gone.Close()
	start := time.Now()
	if diff := cmp.Diff(want, commit(g)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestBucketServerWithoutConditions(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	var conditional int
	var mu sync.Mutex
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" {
			mu.Lock()
			conditional++
			mu.Unlock()
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusNotImplemented)
			_, _ = io.WriteString(w, `<Error><Code>NotImplemented</Code><Message>no conditions here</Message></Error>`)
			return
		}
		forward(t, srv.Endpoint(), w, r)
	}))
	defer front.Close()
	name := srv.Bucket(t)
	b, err := OpenBucket(openStore(t, front.URL), name, "")
	must(t, err)
	placeObject(t, srv, name, "same", ours)
	placeObject(t, srv, name, "other", "other")
	for round := range 2 {
		g := b.Group(schemas.Settings{}, 3)
		must(t, putObject(g, 0, "same", ours))
		must(t, putObject(g, 1, "other", ours))
		must(t, putObject(g, 2, fmt.Sprint("new", round), ours))
		if diff := cmp.Diff(map[int]schemas.Code{1: schemas.CodeDestinationExists}, commit(g)); diff != "" {
			t.Errorf("codes (-want +got):\n%s", diff)
		}
	}
	want := map[string]string{"same": ours, "other": "other", "new0": ours, "new1": ours}
	if diff := cmp.Diff(want, stored(t, srv, name)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	if conditional > 3 {
		t.Errorf("%d conditional requests; the answer was known after the first group", conditional)
	}
}

// forward passes a request on, as it was signed.
func forward(t *testing.T, endpoint string, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	out, err := http.NewRequestWithContext(r.Context(), r.Method, endpoint+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	out.Header, out.Host = r.Header.Clone(), r.Host
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close() //nolint:errcheck // a test
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// Something between us and the server changes what is sent.
func TestBucketContentChangedOnTheWay(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			body[len(body)/2] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		forward(t, srv.Endpoint(), w, r)
	}))
	defer front.Close()
	name := srv.Bucket(t)
	b, err := OpenBucket(openStore(t, front.URL), name, "")
	must(t, err)
	g := b.Group(schemas.Settings{}, 2)
	must(t, putObject(g, 0, "small", ours))
	if err := putObject(g, 1, "large", large); codeOfError(err) != schemas.CodeDestinationBusy {
		t.Error(err)
	}
	if diff := cmp.Diff(map[int]schemas.Code{0: schemas.CodeDestinationBusy}, commit(g)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if found := stored(t, srv, name); len(found) > 0 {
		t.Error(found)
	}
	if left := uploads(t, srv, name); len(left) > 0 {
		t.Error(left)
	}
}

// What the group wrote is told from other content without reading it.
func TestBucketCompareReadsNothing(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	var methods sync.Map
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods.Store(r.Method, true)
		forward(t, srv.Endpoint(), w, r)
	}))
	defer front.Close()
	b, err := OpenBucket(openStore(t, front.URL), srv.Bucket(t), "")
	must(t, err)
	g := b.Group(schemas.Settings{}, 2)
	must(t, putObject(g, 0, "small", ours))
	must(t, putObject(g, 1, "large", large))
	if codes := commit(g); len(codes) > 0 {
		t.Error(codes)
	}
	methods.Clear()
	for output, content := range map[string]string{"small": ours, "large": large} {
		for _, other := range []bool{false, true} {
			digest := sum([]byte(content))
			if other {
				digest = sum([]byte("other"))
			}
			same, _, err := g.Compare(t.Context(), 0, output, int64(len(content)), digest)
			if same == other || err != nil {
				t.Errorf("%s: same %v, %v", output, same, err)
			}
		}
	}
	if _, read := methods.Load(http.MethodGet); read {
		t.Error("it was read")
	}
}

// Servers that keep objects as files have neither an object below another nor
// one where they have a directory.
func TestBucketObstructed(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	b := newBucket(t, srv)
	placeObject(t, srv, b.name, "pre/fix/file", ours)
	placeObject(t, srv, b.name, "pre/fix/dir/f", ours)
	g := b.Group(schemas.Settings{}, 2)
	must(t, putObject(g, 0, "file/f", ours))
	must(t, putObject(g, 1, "dir", ours))
	want := map[int]schemas.Code{0: schemas.CodePathRefused, 1: schemas.CodePathRefused}
	if diff := cmp.Diff(want, commit(g)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

// The answer to what made an object visible gets lost. The next try finds the
// object there or, where a server forgets what became of uploads, no upload.
func TestBucketAnswerLost(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	var tries atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upload := r.URL.Query().Has("uploadId")
		visible := r.Method == http.MethodPut && !upload || r.Method == http.MethodPost && upload
		switch {
		case visible && tries.Add(1) == 1:
			forward(t, srv.Endpoint(), httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case visible && upload:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `<Error><Code>NoSuchUpload</Code></Error>`)
		default:
			forward(t, srv.Endpoint(), w, r)
		}
	}))
	defer front.Close()
	for _, policy := range []schemas.Overwrite{schemas.OverwriteNever, schemas.OverwriteIfDifferent} {
		for _, content := range []string{ours, large} {
			name := srv.Bucket(t)
			b, err := OpenBucket(openStore(t, front.URL), name, "")
			must(t, err)
			g := b.Group(schemas.Settings{Overwrite: policy}, 1)
			must(t, putObject(g, 0, "f", content))
			tries.Store(0)
			if codes := commit(g); len(codes) > 0 || tries.Load() != 2 {
				t.Errorf("%s: %v after %d tries", policy, codes, tries.Load())
			}
			if diff := cmp.Diff(map[string]string{"f": brief(content)}, stored(t, srv, name)); diff != "" {
				t.Errorf("%s: objects (-want +got):\n%s", policy, diff)
			}
		}
	}
}

func BenchmarkBucket(b *testing.B) {
	srv := s3test.StartServer(b)
	bucket, err := OpenBucket(openStore(b, srv.Endpoint()), srv.Bucket(b), "p")
	must(b, err)
	content := strings.Repeat("exhumed\n", 768)
	const n = 512
	for round := 0; b.Loop(); round++ {
		g := bucket.Group(schemas.Settings{}, n)
		for i := range n {
			must(b, putObject(g, i, fmt.Sprintf("r%d/d%d/f%d", round, i/8, i%8), content))
		}
		if codes := commit(g); len(codes) > 0 {
			b.Fatal(codes)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "items/s")
}
