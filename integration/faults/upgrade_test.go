package faults

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/exhume/exhume/integration/harness"
)

// previous is the commit of the last release before this suite.
const previous = "f259cbc"

// The fleet is brought up to date while it has work to do.
func TestUpgrade(t *testing.T) {
	strike(t, []fault{{"full-queue", true, upgraded}})
}

// upgraded restores a batch that the previous release has queued and begun: its
// messages, streams, buckets and ledger are those of a release ago. Its worker is
// killed with requests in hand: I1 to I8.
func upgraded(t *testing.T, random *rand.Rand) {
	old := buildCommit(t, previous)
	tr := newTrial(t, random, 2000, "")
	broker := harness.NewNATS(t)
	tr.NATS = broker.URL
	tr.ledger = postgresOf(t)
	tr.Config.Exhume.LedgerURL = tr.ledger
	tr.env = append(tr.FleetEnv(), tr.env...)
	command := func(args ...string) {
		t.Helper()
		cmd := exec.Command(old, args...)
		cmd.Dir, cmd.Env = tr.Dir, append(harness.CleanEnv(), tr.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("the previous release: %q: %v\n%s", args, err, out)
		}
	}
	command("migrate", "up")
	collector := tr.StartProgram(t, old, "collector", tr.env, "collector")
	command("limits", "set", "--items", "400")
	command("submit", "manifest.jsonl", "--by", "tester", "--batch", batch, "--root", tr.root)
	worker := tr.StartProgram(t, old, "worker0", tr.env, "worker", "--worker-name", "w0")
	tr.watch = newWatch(tr)
	tr.at(0.1, 0.5)
	worker.Kill()
	collector.Stop(t)

	tr.start(2)
	tr.submitting()
	tr.finish()
}

// buildCommit builds the program of a commit.
func buildCommit(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	archive := exec.Command("git", "archive", commit)
	archive.Dir = root
	sources, err := archive.Output()
	if err != nil {
		t.Fatalf("the sources of %s, for which this test needs the repository's history: %v", commit, err)
	}
	if err := unpack(sources, dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "exhume")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/exhume")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// unpack writes the files of a tar archive to a directory.
func unpack(sources []byte, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing is written through it
	for in := tar.NewReader(bytes.NewReader(sources)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(in)
		if err := errors.Join(err, root.MkdirAll(filepath.Dir(h.Name), 0o755), root.WriteFile(h.Name, content, 0o644)); err != nil {
			return err
		}
	}
}
