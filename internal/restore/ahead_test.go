package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/minio/minio-go/v7"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

// wire is the way to an S3 server: it holds what is asked for, and counts it.
type wire struct {
	*httptest.Server
	// hold says how long a request is held, given how many there are at the
	// moment.
	hold func(held int) <-chan time.Time

	mu         sync.Mutex
	held, peak int
	gets       map[string]int // by path
}

// newWire lays one to a server.
func newWire(t testing.TB, srv *s3test.Server, hold func(held int) <-chan time.Time) *wire {
	t.Helper()
	w := &wire{hold: hold, gets: map[string]int{}}
	to, err := url.Parse(srv.Endpoint())
	must(t, err)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host // the signature covers it
	}}
	w.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, q *http.Request) {
		if w.wait(q) {
			proxy.ServeHTTP(out, q)
		}
	}))
	t.Cleanup(w.Close)
	return w
}

// wait holds a request, and says whether it is still of interest afterwards.
func (w *wire) wait(q *http.Request) bool {
	w.mu.Lock()
	if q.Method == http.MethodGet {
		w.gets[q.URL.Path]++
	}
	w.held++
	w.peak = max(w.peak, w.held)
	end := w.hold(w.held)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.held--
		w.mu.Unlock()
	}()
	select {
	case <-end:
		return true
	case <-q.Context().Done():
		return false
	}
}

// asked gives how many GETs there were in all, and the most requests that were
// held at a time.
func (w *wire) asked() (gets, peak int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.gets {
		gets += n
	}
	return gets, w.peak
}

// latency holds every request for so long.
func latency(d time.Duration) func(int) <-chan time.Time {
	return func(int) <-chan time.Time { return time.After(d) }
}

// together holds all requests until there are n of them at a time, and lets them
// pass from then on.
func together(n int) func(int) <-chan time.Time {
	open := make(chan time.Time)
	enough := sync.OnceFunc(func() { close(open) })
	return func(held int) <-chan time.Time {
		if held >= n {
			enough()
		}
		return open
	}
}

// elsewhere puts the bytes of a shelf into a bucket, which is read by wire from
// then on.
func elsewhere(t testing.TB, s *shelf, srv *s3test.Server, w *wire) (bucket string) {
	t.Helper()
	bucket = srv.Bucket(t)
	for ts, a := range s.artifacts {
		if _, ok := s.content[a.ID]; ok {
			blob := compress(t, s.content[a.ID])
			_, err := srv.Client().PutObject(t.Context(), bucket, a.ID, bytes.NewReader(blob), int64(len(blob)), minio.PutObjectOptions{})
			must(t, err)
			delete(s.content, a.ID)
		}
		a.Stored, a.URL, a.Codec = Elsewhere, objects.URL(bucket, a.ID), "zstd"
		s.artifacts[ts] = a
	}
	store, err := objects.Open(objects.Config{Endpoint: w.URL, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey})
	must(t, err)
	t.Cleanup(store.Close)
	from, err := objects.NewReader([]objects.Source{{Store: store, Bucket: bucket}}, nil)
	must(t, err)
	t.Cleanup(func() { must(t, from.Close()) })
	s.open = func(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
		blob, _, err := from.Open(ctx, a.URL)
		if err != nil {
			return nil, err
		}
		return archive.DecodeStream(a, blob)
	}
	return bucket
}

// shareAll makes all items of a shelf want the content of the first.
func shareAll(s *shelf) {
	for ts, a := range s.artifacts {
		tombstone := a.Tombstone
		a = s.artifacts["t0"]
		a.Tombstone = tombstone
		s.artifacts[ts] = a
	}
	s.content = map[string][]byte{"a0": s.content["a0"]}
}

func noises(n int) [][]byte {
	contents := make([][]byte, n)
	for i := range contents {
		contents[i] = noise(i, 1000+i)
	}
	return contents
}

func TestFetchesShareTheWait(t *testing.T) {
	t.Parallel()
	contents := noises(256)
	s, srv := newShelf(contents...), s3test.StartServer(t)
	w := newWire(t, srv, together(16))
	elsewhere(t, s, srv, w)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // they might never come together
	defer cancel()
	root, results, err := restoreInto(t, ctx, s, Config{Threads: 1})
	must(t, err)
	found := tree(t, root)
	for i, v := range verdicts(results) {
		if v != restored || found[results[i].Output] != string(contents[i]) {
			t.Errorf("item %d: %+v", i, results[i])
		}
	}
	if gets, peak := w.asked(); gets != len(contents) || peak < 16 || peak > DefaultFetches {
		t.Errorf("%d GETs, up to %d at a time; want %d, 16 to %d at a time", gets, peak, len(contents), DefaultFetches)
	}
}

func TestOneArtifactIsFetchedOnce(t *testing.T) {
	t.Parallel()
	s, srv := newShelf(noises(50)...), s3test.StartServer(t)
	shareAll(s)
	content := string(s.content["a0"])
	w := newWire(t, srv, latency(20*time.Millisecond))
	elsewhere(t, s, srv, w)
	root, results, err := restoreInto(t, t.Context(), s, Config{})
	must(t, err)
	found := tree(t, root)
	for i, v := range verdicts(results) {
		if v != restored || found[results[i].Output] != content {
			t.Errorf("item %d: %+v", i, results[i])
		}
	}
	if gets, _ := w.asked(); gets != 1 {
		t.Errorf("%d GETs", gets)
	}
}

// The archive's own artifacts are read and decoded once, too. What is wrong with
// one is every item's own failure.
func TestOneArtifactIsDecodedOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		decode func(blob, dst []byte) ([]byte, error)
		want   verdict
	}{
		"right":   {func(blob, dst []byte) ([]byte, error) { return append(dst, blob...), nil }, restored},
		"wrong":   {func(blob, dst []byte) ([]byte, error) { return append(dst, make([]byte, len(blob))...), nil }, failed(schemas.CodeIntegrityMismatch)},
		"damaged": {func(_, _ []byte) ([]byte, error) { return nil, fault.New(schemas.CodeDecodeFailed, "damaged") }, failed(schemas.CodeDecodeFailed)},
	} {
		s := newShelf(noises(50)...)
		shareAll(s)
		var decoded atomic.Int64
		root := t.TempDir()
		results, err := New(s, func(_ schemas.Artifact, blob, dst []byte) ([]byte, error) {
			decoded.Add(1)
			return tt.decode(blob, dst)
		}, into(t, root), Config{}).Restore(t.Context(), schemas.Settings{Root: root}, s.requests())
		must(t, err)
		found := tree(t, root)
		for i, v := range verdicts(results) {
			if there := found[results[i].Output] == string(s.content["a0"]); v != tt.want || there != (v == restored) {
				t.Errorf("%s: item %d: file right: %v, %+v", name, i, there, results[i])
			}
			if d := results[i]; d.Code == schemas.CodeIntegrityMismatch && !strings.Contains(d.Detail, fmt.Sprintf("%q", d.Tombstone)) {
				t.Errorf("%s: item %d (%s): %s", name, i, d.Tombstone, d.Detail)
			}
		}
		if n := decoded.Load(); n != 1 {
			t.Errorf("%s: decoded %d times", name, n)
		}
	}
}

// Objects that are not there, or not what is declared, fail the items that want
// them and no other.
func TestFetchesFailAlone(t *testing.T) {
	t.Parallel()
	contents := noises(256)
	s, srv := newShelf(contents...), s3test.StartServer(t)
	bucket := elsewhere(t, s, srv, newWire(t, srv, latency(0)))
	put := func(id string, blob []byte) {
		_, err := srv.Client().PutObject(t.Context(), bucket, id, bytes.NewReader(blob), int64(len(blob)), minio.PutObjectOptions{})
		must(t, err)
	}
	must(t, srv.Client().RemoveObject(t.Context(), bucket, "a3", minio.RemoveObjectOptions{}))
	put("a40", compress(t, noise(7, len(contents[40]))))
	put("a41", compress(t, append(contents[41], 0)))
	put("a42", compress(t, contents[42][1:]))
	put("a50", contents[50])
	change := func(ts string, f func(*schemas.Artifact)) {
		a := s.artifacts[ts]
		f(&a)
		s.artifacts[ts] = a
	}
	change("t60", func(a *schemas.Artifact) { a.URL = "s3://elsewhere/a60" })
	change("t200", func(a *schemas.Artifact) { a.ID, a.URL = "a3", s.artifacts["t3"].URL })
	change("t201", func(a *schemas.Artifact) { a.Size = -1 })
	want := map[int]verdict{
		3: failed(schemas.CodeArtifactMissing), 200: failed(schemas.CodeArtifactMissing), 60: failed(schemas.CodeArtifactDenied),
		40: failed(schemas.CodeIntegrityMismatch), 41: failed(schemas.CodeIntegrityMismatch), 42: failed(schemas.CodeIntegrityMismatch),
		201: failed(schemas.CodeIntegrityMismatch), 50: failed(schemas.CodeDecodeFailed),
	}
	root, results, err := restoreInto(t, t.Context(), s, Config{})
	must(t, err)
	found := tree(t, root)
	for i, v := range verdicts(results) {
		expected, bad := want[i]
		if !bad {
			expected = restored
		}
		content, there := found[results[i].Output]
		if v != expected || there == bad || there && content != string(contents[i]) {
			t.Errorf("item %d: file there %v, %+v", i, there, results[i])
		}
	}
}

// When the storage goes away, or the context ends, nobody waits for the others.
func TestFetchesEndTogether(t *testing.T) {
	t.Parallel()
	down := fault.New(schemas.CodeArchiveDown, "gone")
	for _, cancelled := range []bool{false, true} {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s := newShelf(noises(100)...)
		for ts, a := range s.artifacts {
			a.Stored, a.URL = Elsewhere, "s3://b/"+a.ID
			s.artifacts[ts] = a
		}
		var asked atomic.Int64
		s.open = func(ctx context.Context, _ schemas.Artifact) (io.ReadCloser, error) {
			if asked.Add(1) == 16 {
				if !cancelled {
					return nil, down
				}
				cancel()
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		root, results, err := restoreInto(t, ctx, s, Config{})
		if want := map[bool]error{false: down, true: context.Canceled}[cancelled]; results != nil || !errors.Is(err, want) {
			t.Errorf("results %v, error %v, want %v", results, err, want)
		}
		if diff := cmp.Diff(map[string]string{}, tree(t, root)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	}
}

// However many might be fetched at a time, no more are than there is memory for.
func TestFetchesAcquireMemory(t *testing.T) {
	t.Parallel()
	s := newShelf(noises(64)...)
	for ts, a := range s.artifacts {
		a.Stored, a.URL = Elsewhere, "s3://b/"+a.ID
		s.artifacts[ts] = a
	}
	var r *Restorer
	var mu sync.Mutex
	var inHand int64
	full := make(chan struct{}) // closed when most of the memory is in hand
	filled := sync.OnceFunc(func() { close(full) })
	count := func(bytes int64) {
		mu.Lock()
		defer mu.Unlock()
		inHand += bytes
		held(t, r, inHand, "fetching")
		if inHand > r.capacity*3/4 {
			filled()
		}
	}
	s.open = func(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
		holds := 4<<20 + 2*a.Size
		count(holds)
		select {
		case <-full:
		case <-ctx.Done():
		}
		return closer{bytes.NewReader(s.content[a.ID]), func() error { count(-holds); return nil }}, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	root := t.TempDir()
	r = New(s, plain, into(t, root), Config{Memory: MinMemory})
	results, err := r.Restore(ctx, schemas.Settings{Root: root}, s.requests())
	must(t, err)
	for i, v := range verdicts(results) {
		if v != restored {
			t.Errorf("item %d: %+v", i, results[i])
		}
	}
	if !r.memory.TryAcquire(r.capacity) {
		t.Error("memory was not given back")
	}
}

func restoreInto(t *testing.T, ctx context.Context, s *shelf, cfg Config) (root string, results []schemas.Result, err error) {
	t.Helper()
	root = t.TempDir()
	results, err = New(s, plain, into(t, root), cfg).Restore(ctx, schemas.Settings{Root: root}, s.requests())
	return root, results, err
}

// compress is how the bytes of an artifact are stored.
func compress(t testing.TB, content []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	must(t, err)
	defer enc.Close() //nolint:errcheck // nothing is written to it
	return enc.EncodeAll(content, nil)
}

// BenchmarkElsewhere restores groups of 256 small items whose bytes are 20 ms
// away.
func BenchmarkElsewhere(b *testing.B) {
	contents := make([][]byte, 256)
	for i := range contents {
		contents[i] = noise(i, 8<<10)
	}
	s, srv := newShelf(contents...), s3test.StartServer(b)
	elsewhere(b, s, srv, newWire(b, srv, latency(20*time.Millisecond)))
	root := b.TempDir()
	r := New(s, plain, into(b, root), Config{})
	b.ReportAllocs()
	for round := 0; b.Loop(); round++ {
		items := s.requests()
		for i := range items {
			items[i].Output = fmt.Sprintf("r%d/%d", round, i)
		}
		results, err := r.Restore(b.Context(), schemas.Settings{Root: root}, items)
		must(b, err)
		for i, v := range verdicts(results) {
			if v != restored {
				b.Fatal(results[i])
			}
		}
	}
	b.ReportMetric(float64(len(contents)*b.N)/b.Elapsed().Seconds(), "items/s")
}
