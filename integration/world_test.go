package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) {
	// A test that leaves a goroutine behind fails the run (invariant I8).
	goleak.VerifyTestMain(cleanUp{m})
}

// cleanUp removes what tests and benchmarks share when all have run.
type cleanUp struct{ m *testing.M }

func (c cleanUp) Run() int {
	code := c.m.Run()
	dbtest.Stop()
	if binaryPath != "" {
		_ = os.RemoveAll(filepath.Dir(binaryPath))
	}
	return code
}

// world is a directory with an archive and everything that exhume makes of it.
type world struct {
	dir string
	cfg *app.Config
	// nats is the URL of the fleet's broker; empty for an embedded one.
	nats string
}

// fixture copies an archive that the predecessor wrote into a new world.
func fixture(t *testing.T, name string) *world {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	return &world{dir: dir, cfg: testConfig(t, dir)}
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// restore restores a manifest of the world with an embedded fleet.
func (w *world) restore(t *testing.T, manifest string, change ...func(*app.BatchOptions)) (app.Batch, error) {
	t.Helper()
	return w.restoreContext(t.Context(), t, manifest, change...)
}

func (w *world) restoreContext(ctx context.Context, t *testing.T, manifest string, change ...func(*app.BatchOptions)) (app.Batch, error) {
	t.Helper()
	o := app.BatchOptions{Manifest: w.path(manifest), Actor: "tester", Progress: quiet{}}
	for _, c := range change {
		c(&o)
	}
	return app.BatchRestore(ctx, w.cfg, o, zerolog.New(zerolog.NewTestWriter(t)))
}

// mustRestore restores a manifest whose batch must end in the state.
func (w *world) mustRestore(t *testing.T, manifest string, want schemas.State, change ...func(*app.BatchOptions)) app.Batch {
	t.Helper()
	b, err := w.restore(t, manifest, change...)
	if err != nil {
		t.Fatalf("restore %s: %v", manifest, err)
	}
	if b.State != want {
		t.Fatalf("restore %s: batch ended %s with %+v, want %s", manifest, b.State, b.Counts, want)
	}
	return b
}

// expectation is one item of a fixture's expected.json.
type expectation struct {
	Tombstone string `json:"tombstone"`
	Output    string `json:"output"`
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"`
	State     string `json:"state"`
}

func (w *world) expected(t *testing.T) []expectation {
	t.Helper()
	var doc struct {
		Items []expectation `json:"items"`
	}
	b, err := os.ReadFile(w.path("expected.json"))
	if err := errors.Join(err, json.Unmarshal(b, &doc)); err != nil {
		t.Fatal(err)
	}
	return doc.Items
}

// binary builds exhume once and gives its path.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "exhume-test-bin-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "exhume")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/exhume").CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	binaryPath = path
	return path, nil
})

var binaryPath string

// command prepares a run of the real program in the world's directory.
func (w *world) command(t testing.TB, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), bin, args...)
	cmd.Dir = w.dir
	cmd.Env = append(cleanEnv(), "CODEX_ARCHIVE_URL=sqlite:///./archive.sqlite")
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// cleanEnv is the environment without settings of exhume.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !bytes.HasPrefix([]byte(e), []byte("EXHUME_")) && !bytes.HasPrefix([]byte(e), []byte("CODEX_")) {
			env = append(env, e)
		}
	}
	return env
}
