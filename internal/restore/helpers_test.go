package restore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) {
	if order := os.Getenv(largeChild); order != "" {
		runLargeChild(order)
	}
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// noise is n bytes that do not compress.
func noise(seed, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// newArchive stores contents in a new archive, and gives its path and the
// tombstones.
func newArchive(t testing.TB, contents ...[]byte) (path string, tombstones []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "archive.sqlite")
	w, err := archive.CreateWriter(t.Context(), path)
	must(t, err)
	var items iter.Seq2[archive.NewItem, error] = func(yield func(archive.NewItem, error) bool) {
		for i, c := range contents {
			if !yield(archive.NewItem{Repo: "acme/demo", Path: fmt.Sprintf("src/%d.go", i), Commit: "c0ffee", By: "alice", Content: c}, nil) {
				return
			}
		}
	}
	for s, err := range w.Store(t.Context(), items, archive.StoreOptions{}) {
		must(t, err)
		tombstones = append(tombstones, s.Tombstone)
	}
	must(t, w.Close())
	return path, tombstones
}

func openArchive(t testing.TB, path string) *archive.Reader {
	t.Helper()
	r, err := archive.OpenReader(t.Context(), path)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

// execSQL changes an archive behind everybody's back.
func execSQL(t testing.TB, path, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close() //nolint:errcheck // the statement has its own result
	result, err := db.Exec(statement, args...)
	must(t, err)
	if n, _ := result.RowsAffected(); n != 1 {
		t.Fatalf("%s: %d rows changed", statement, n)
	}
}

// into restores into the tree below root.
func into(t testing.TB, root string) NewGroup {
	t.Helper()
	tree, err := destination.OpenTree(root)
	must(t, err)
	t.Cleanup(func() { must(t, tree.Close()) })
	return func(s schemas.Settings, n int) (Group, error) { return tree.Group(s, n), nil }
}

// requests asks for each tombstone under out/<place>.
func requests(tombstones []string) []schemas.Request {
	items := make([]schemas.Request, len(tombstones))
	for i, ts := range tombstones {
		items[i] = schemas.Request{Batch: "b", Index: int64(i), Tombstone: ts, Output: fmt.Sprintf("out/%d", i), Published: time.Now()}
	}
	return items
}

// verdict is what matters of a result.
type verdict struct {
	Outcome schemas.Outcome
	Code    schemas.Code
}

var restored = verdict{Outcome: schemas.OutcomeRestored}

func failed(c schemas.Code) verdict { return verdict{schemas.OutcomeFailed, c} }

func verdicts(results []schemas.Result) []verdict {
	out := make([]verdict, len(results))
	for i, r := range results {
		out[i] = verdict{r.Outcome, r.Code}
	}
	return out
}

// tree is what stands below root: contents by name.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		name, _ := filepath.Rel(root, path)
		content, err := os.ReadFile(path)
		found[name] = string(content)
		return err
	}))
	return found
}

// shelf is a Source in memory whose stored bytes are the contents themselves.
// Its hooks, where set, replace what it does.
type shelf struct {
	artifacts map[string]schemas.Artifact
	content   map[string][]byte // by artifact
	lookup    func(ctx context.Context, ts []string) (map[string]schemas.Artifact, error)
	blobs     func(ctx context.Context, ids []string, each func(string, []byte) error) error
	open      func(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error)
}

// newShelf holds contents as the tombstones t0, t1, …
func newShelf(contents ...[]byte) *shelf {
	s := &shelf{artifacts: map[string]schemas.Artifact{}, content: map[string][]byte{}}
	for i, c := range contents {
		a := schemas.Artifact{
			Tombstone: fmt.Sprintf("t%d", i), ID: fmt.Sprintf("a%d", i), SHA256: sum(c), Size: int64(len(c)), Stored: int64(len(c)),
		}
		s.artifacts[a.Tombstone], s.content[a.ID] = a, c
	}
	return s
}

func (s *shelf) requests() []schemas.Request {
	ts := make([]string, len(s.artifacts))
	for i := range ts {
		ts[i] = fmt.Sprintf("t%d", i)
	}
	return requests(ts)
}

func (s *shelf) Lookup(ctx context.Context, ts []string) (map[string]schemas.Artifact, error) {
	if s.lookup != nil {
		return s.lookup(ctx, ts)
	}
	return maps.Clone(s.artifacts), ctx.Err()
}

func (s *shelf) Blobs(ctx context.Context, ids []string, each func(string, []byte) error) error {
	if s.blobs != nil {
		return s.blobs(ctx, ids, each)
	}
	for _, id := range ids {
		if c, ok := s.content[id]; ok {
			if err := each(id, c); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func (s *shelf) Open(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
	if s.open != nil {
		return s.open(ctx, a)
	}
	c, ok := s.content[a.ID]
	if !ok {
		return nil, fault.New(schemas.CodeArtifactMissing, "artifact %s: gone", a.ID)
	}
	return io.NopCloser(bytes.NewReader(c)), ctx.Err()
}

// plain decodes what is not encoded.
func plain(_ schemas.Artifact, blob, dst []byte) ([]byte, error) { return append(dst, blob...), nil }
