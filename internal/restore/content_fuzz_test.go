package restore

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/schemas"
)

// liar is an archive of one item, which may not be what it says of it.
type liar struct {
	artifact schemas.Artifact
	blob     []byte
}

func (l liar) Lookup(_ context.Context, tombstones []string) (map[string]schemas.Artifact, error) {
	return map[string]schemas.Artifact{tombstones[0]: l.artifact}, nil
}

func (l liar) Blobs(_ context.Context, artifacts []string, each func(string, []byte) error) error {
	return each(artifacts[0], l.blob)
}

func (l liar) Open(_ context.Context, a schemas.Artifact) (io.ReadCloser, error) {
	return archive.DecodeStream(a, io.NopCloser(bytes.NewReader(l.blob)))
}

// Whatever an archive holds and says of it, a file that is visible has the SHA-256
// that was declared (invariant I3), and so has every result that says so.
func FuzzContent(f *testing.F) {
	f.Fuzz(func(t *testing.T, codec string, blob []byte, size int64, of []byte, stored int64) {
		a := schemas.Artifact{
			Tombstone: "t", Item: "i", ID: "a", Repo: "r", Path: "p", Codec: codec, Size: size % (1 << 20), SHA256: sum(of), Stored: stored,
		}
		root := t.TempDir()
		r := New(liar{a, blob}, archive.Decode, into(t, root), Config{Threads: 1})
		results, err := r.Restore(t.Context(), schemas.Settings{Root: root}, requests([]string{"t"}))
		if err != nil || len(results) != 1 {
			t.Fatalf("%+v, %v", results, err)
		}
		got, err := os.ReadFile(filepath.Join(root, "out/0"))
		switch restored := results[0].Outcome == schemas.OutcomeRestored; {
		case err == nil && !bytes.Equal(got, of):
			t.Errorf("%d bytes of SHA-256 %s are visible, want %s", len(got), sum(got), a.SHA256)
		case restored != (err == nil), restored && int64(len(of)) != a.Size:
			t.Errorf("%+v with %d bytes: %v", results[0], len(of), err)
		}
	})
}
