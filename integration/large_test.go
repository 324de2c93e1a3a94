package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/archive"
)

// Artifacts far larger than --memory are restored within it, compressible ones
// and others.
func TestLargeArtifacts(t *testing.T) {
	const mib = 1 << 20
	w := harness.New(t)
	wr, err := archive.CreateWriter(context.Background(), w.Config.Backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string]func() io.Reader{
		"out/zeros":  func() io.Reader { return io.LimitReader(zeros{}, 300*mib) },
		"out/random": func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{7}), 120*mib) },
	}
	items := func(yield func(archive.NewItem, error) bool) {
		for path, open := range contents {
			ok := yield(archive.NewItem{
				Repo: "large", Path: path, Commit: "c", By: "test",
				Open: func() (io.ReadCloser, error) { return io.NopCloser(open()), nil },
			}, nil)
			if !ok {
				return
			}
		}
	}
	var manifest bytes.Buffer
	for s, err := range wr.Store(t.Context(), items, archive.StoreOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewEncoder(&manifest).Encode(map[string]string{"tombstone": s.Tombstone, "output": s.Path}); err != nil {
			t.Fatal(err)
		}
	}
	if err := wr.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.Path("manifest.jsonl"), manifest.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}

	cmd, _, stderr := w.Command(t, "batch-restore", "manifest.jsonl", "--by", "tester", "--memory", "64MiB")
	peak, err := harness.RunForPeak(cmd)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	t.Logf("peak memory %d MiB", peak/mib)
	if peak > 192*mib {
		t.Errorf("420 MiB of artifacts with --memory 64MiB took %d MiB of memory, want 192 at most", peak/mib)
	}
	for path, open := range contents {
		h := sha256.New()
		if _, err := io.Copy(h, open()); err != nil {
			t.Fatal(err)
		}
		if got := harness.FileSHA256(w.Path(path)); got != hex.EncodeToString(h.Sum(nil)) {
			t.Errorf("%s is not what was stored", path)
		}
	}
	w.CheckInvariants(t, "latest")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
