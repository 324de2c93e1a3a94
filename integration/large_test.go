package integration

import (
	"bytes"
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
	"strings"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/archive"
)

// Artifacts far larger than --memory are restored within it, compressible ones
// and others.
func TestLargeArtifacts(t *testing.T) {
	const mib = 1 << 20
	w := &world{dir: t.TempDir()}
	w.cfg = testConfig(t, w.dir)
	wr, err := archive.CreateWriter(context.Background(), w.cfg.Backend.URL)
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
	if err := os.WriteFile(w.path("manifest.jsonl"), manifest.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}

	cmd, _, stderr := w.command(t, "batch-restore", "manifest.jsonl", "--by", "tester", "--memory", "64MiB")
	peak, err := runForPeak(cmd)
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
		if got := fileSHA256(t, w.path(path)); got != hex.EncodeToString(h.Sum(nil)) {
			t.Errorf("%s is not what was stored", path)
		}
	}
	w.checkInvariants(t, "latest")
}

// runForPeak runs a command and gives the most memory that it held. The
// kernel's own account of a finished child does not do: it begins with the peak
// of the parent.
func runForPeak(cmd *exec.Cmd) (peak int64, err error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return peak, err
		case <-tick.C:
			if n, err := memoryPeak(cmd.Process.Pid); err == nil {
				peak = max(peak, n)
			}
		}
	}
}

// memoryPeak is the most memory that a running process has held, in bytes.
func memoryPeak(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var n int64
			_, err := fmt.Sscan(kb, &n)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
