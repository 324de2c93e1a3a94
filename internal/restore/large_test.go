package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/minio/minio-go/v7"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

const (
	// largeVariable asks for the sizes that are promised, which take minutes and
	// gigabytes of disk: EXHUME_TEST_LARGE=all.
	largeVariable = "EXHUME_TEST_LARGE"
	// largeChild tells a copy of the test binary to restore one item.
	largeChild = "RESTORE_LARGE_CHILD"

	largeMemory = 64 << 20
	// largePeak is what Go may have taken from the system by the end: the budget and
	// what the garbage collector leaves lying.
	largePeak = 96 << 20
)

// order is what a child is told to restore.
type order struct {
	Archive  string // PostgreSQL; empty where the bytes lie in the bucket From
	From, To string // buckets; without To the root is a directory
	Endpoint string
	Root     string
	Artifact schemas.Artifact
}

// outcome is what a child says.
type outcome struct {
	Result schemas.Result
	// Taken is what Go took from the system, Peak the most memory that the process
	// held, in bytes. Only the first is the same when races are looked for.
	Taken, Peak int64
}

// Items far larger than the memory allowed are restored within it, from a database
// and from object storage, to a directory and to object storage. Their bytes do not
// compress, so that as many are stored.
func TestLargeItems(t *testing.T) {
	t.Parallel()
	sizes := map[string]int64{"postgres": 128 << 20, "s3": 128 << 20, "s3 to s3": 128 << 20}
	if os.Getenv(largeVariable) == "all" {
		sizes = map[string]int64{"postgres": 900 << 20, "s3": 4 << 30, "s3 to s3": 4 << 30}
	}
	srv := s3test.StartServer(t)
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) { // one after the other: each moves all that the machine can
			o := order{Endpoint: srv.Endpoint(), Root: filepath.Join(t.TempDir(), "root")}
			if name == "postgres" {
				o.storeInPostgres(t, size)
			} else {
				o.storeInBucket(t, srv, size)
			}
			if name == "s3 to s3" {
				o.To = srv.Bucket(t)
				o.Root = "s3://" + o.To + "/p"
			}
			start := time.Now()
			got := o.run(t)
			t.Logf("%s: %d MiB in %v, taken %d MiB, peak memory %d MiB", name, size>>20, time.Since(start).Round(time.Millisecond), got.Taken>>20, got.Peak>>20)
			if got.Result.Outcome != schemas.OutcomeRestored {
				t.Fatalf("%+v", got.Result)
			}
			if got.Taken > largePeak {
				t.Errorf("it took %d MiB, want %d at most", got.Taken>>20, largePeak>>20)
			}
			if sum := o.restoredSum(t, srv); sum != o.Artifact.SHA256 {
				t.Errorf("SHA-256 %s, want %s", sum, o.Artifact.SHA256)
			}
		})
	}
}

func random(size int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{9}), size) }

func (o *order) storeInPostgres(t *testing.T, size int64) {
	t.Helper()
	server := dbtest.StartPostgres(t)
	t.Cleanup(server.Close)
	o.Archive = server.Database(t)
	w, err := archive.CreateWriter(t.Context(), o.Archive)
	must(t, err)
	items := func(yield func(archive.NewItem, error) bool) {
		yield(archive.NewItem{
			Repo: "large", Path: "f", Commit: "c", By: "test",
			Open: func() (io.ReadCloser, error) { return io.NopCloser(random(size)), nil },
		}, nil)
	}
	for s, err := range w.Store(t.Context(), items, archive.StoreOptions{}) {
		must(t, err)
		o.Artifact = schemas.Artifact{Tombstone: s.Tombstone, SHA256: s.SHA256}
	}
	must(t, w.Close())
}

func (o *order) storeInBucket(t *testing.T, srv *s3test.Server, size int64) {
	t.Helper()
	o.From = srv.Bucket(t)
	r, w := io.Pipe()
	h := sha256.New()
	go func() {
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(32<<20))
		if err == nil {
			_, err = io.Copy(z, io.TeeReader(random(size), h))
		}
		_ = w.CloseWithError(errors.Join(err, z.Close()))
	}()
	_, err := srv.Client().PutObject(t.Context(), o.From, "k", r, -1, minio.PutObjectOptions{PartSize: 16 << 20})
	must(t, err)
	o.Artifact = schemas.Artifact{
		Tombstone: "t", ID: "a", Codec: "zstd", Size: size, Stored: Elsewhere,
		URL: objects.URL(o.From, "k"), SHA256: hex.EncodeToString(h.Sum(nil)),
	}
}

// run has a child restore it.
func (o *order) run(t *testing.T) (got outcome) {
	t.Helper()
	text, err := json.Marshal(o)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), largeChild+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, json.Unmarshal(out, &got))
	return got
}

func (o *order) restoredSum(t *testing.T, srv *s3test.Server) string {
	t.Helper()
	var content io.ReadCloser
	var err error
	if o.To == "" {
		content, err = os.Open(filepath.Join(o.Root, "f"))
	} else {
		content, err = srv.Client().GetObject(t.Context(), o.To, "p/f", minio.GetObjectOptions{})
	}
	must(t, err)
	defer content.Close() //nolint:errcheck // opened for reading
	h := sha256.New()
	_, err = io.Copy(h, content)
	must(t, err)
	return hex.EncodeToString(h.Sum(nil))
}

// runLargeChild restores what its order says, and tells what that took.
func runLargeChild(text string) {
	var o order
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		var got outcome
		if got, err = o.restore(context.Background()); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(got)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (o *order) restore(ctx context.Context) (got outcome, err error) {
	store, err := objects.Open(objects.Config{Endpoint: o.Endpoint, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey})
	if err != nil {
		return got, err
	}
	var source Source
	if o.Archive != "" {
		source, err = archive.OpenReader(ctx, o.Archive)
	} else {
		source, err = newVault(store, o)
	}
	if err != nil {
		return got, err
	}
	newGroup := func(s schemas.Settings, n int) (Group, error) {
		b, err := destination.OpenBucket(store, o.To, "p")
		if err != nil {
			return nil, err
		}
		return b.Group(s, n), nil
	}
	if o.To == "" {
		tree, err := destination.OpenTree(o.Root)
		if err != nil {
			return got, err
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		newGroup = func(s schemas.Settings, n int) (Group, error) { return tree.Group(s, n), nil }
	}
	results, err := New(source, archive.Decode, newGroup, Config{Memory: largeMemory}).
		Restore(ctx, schemas.Settings{Root: o.Root}, []schemas.Request{{Tombstone: o.Artifact.Tombstone, Output: "f"}})
	if err != nil {
		return got, err
	}
	got.Result = results[0]
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	got.Taken = int64(m.Sys)
	got.Peak, err = peakMemory()
	return got, err
}

// vault is a Source of one artifact whose bytes lie in a bucket.
type vault struct {
	*objects.Reader
	a schemas.Artifact
}

func newVault(store *objects.Store, o *order) (*vault, error) {
	r, err := objects.NewReader([]objects.Source{{Store: store, Bucket: o.From}}, nil)
	return &vault{r, o.Artifact}, err
}

func (v *vault) Lookup(context.Context, []string) (map[string]schemas.Artifact, error) {
	return map[string]schemas.Artifact{v.a.Tombstone: v.a}, nil
}

func (*vault) Blobs(context.Context, []string, func(string, []byte) error) error { return nil }

func (v *vault) Open(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
	blob, _, err := v.Reader.Open(ctx, a.URL)
	if err != nil {
		return nil, err
	}
	return archive.DecodeStream(a, blob)
}

// peakMemory is the most memory that this process has held, in bytes.
func peakMemory() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var n int64
			_, err := fmt.Sscan(kb, &n)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}
