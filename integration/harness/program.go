package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/schemas"
)

// Main runs a package's tests; a goroutine that one of them leaves behind fails the
// run (I8). The program is built with the tags.
func Main(m *testing.M, tags ...string) {
	buildTags = tags
	goleak.VerifyTestMain(cleanUp{m})
}

// cleanUp removes what tests and benchmarks share when all have run.
type cleanUp struct{ m *testing.M }

func (c cleanUp) Run() int {
	code := c.m.Run()
	dbtest.Stop()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	return code
}

var buildTags []string

// programs is where programs are built.
var programs = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "exhume-test-bin-") })

// Binary builds exhume once and gives its path.
var Binary = sync.OnceValues(func() (string, error) { return Build("exhume", "./cmd/exhume") })

// natsServer builds the NATS server once and gives its path.
var natsServer = sync.OnceValues(func() (string, error) { return Build("nats-server", "github.com/nats-io/nats-server/v2") })

// Build builds the program of a package under a name, with more arguments for the
// compiler, and gives its path. It is removed when all tests have run.
func Build(name, pkg string, args ...string) (string, error) {
	dir, err := programs()
	if err != nil {
		return "", err
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	args = append([]string{"build", "-tags", strings.Join(buildTags, ","), "-o", path}, append(args, pkg)...)
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// ModuleRoot is the directory of the module whose tests run.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("no go.mod above the tests")
		}
	}
	return "", err
}

// CleanEnv is the environment without settings of exhume.
func CleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "EXHUME_") && !strings.HasPrefix(e, "CODEX_") {
			env = append(env, e)
		}
	}
	return env
}

// Command prepares a run of the real program in the world's directory.
func (w *World) Command(tb testing.TB, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	tb.Helper()
	bin, err := Binary()
	if err != nil {
		tb.Fatal(err)
	}
	cmd = exec.CommandContext(tb.Context(), bin, args...)
	cmd.Dir = w.Dir
	cmd.Env = append(CleanEnv(), "CODEX_ARCHIVE_URL=sqlite:///./archive.sqlite")
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// Exhume runs a command of the program in the world's directory to its end.
func (w *World) Exhume(tb testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	tb.Helper()
	cmd, out, errOut := w.Command(tb, args...)
	cmd.Env = append(cmd.Env, env...)
	err := cmd.Run()
	if cmd.ProcessState == nil {
		tb.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// Must runs a command that must succeed, and gives what it says.
func (w *World) Must(tb testing.TB, env []string, args ...string) (out, said string) {
	tb.Helper()
	out, said, code := w.Exhume(tb, env, args...)
	if code != 0 {
		tb.Fatalf("%q: exit code %d\n%s%s", args, code, out, said)
	}
	return out, said
}

// Ask runs a command that must succeed and prints JSON.
func Ask[T any](tb testing.TB, w *World, env []string, args ...string) (v T) {
	tb.Helper()
	out, _ := w.Must(tb, env, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		tb.Fatalf("%q: %v in %s", args, err, out)
	}
	return v
}

// Batch is what 'batch show' tells of a batch.
func (w *World) Batch(tb testing.TB, env []string, id string) schemas.BatchReport {
	tb.Helper()
	return Ask[schemas.BatchReport](tb, w, env, "batch", "show", id)
}

// Audited checks that a batch adds up, as the fleet itself says.
func (w *World) Audited(tb testing.TB, env []string, id string) {
	tb.Helper()
	out, said, code := w.Exhume(tb, env, "batch", "audit", id)
	if code != 0 {
		tb.Errorf("audit: exit code %d\n%s%s", code, out, said)
	}
}

// Submitted starts a submission that waits for its batch, and gives what reads its
// exit code, which fails the test when it is not one of those wanted (0 if none). A
// submission that says that something is away for a while is repeated.
func (w *World) Submitted(tb testing.TB, env []string, batch, root string, want ...int) (wait func() int) {
	tb.Helper()
	if len(want) == 0 {
		want = []int{0}
	}
	done := make(chan int, 1)
	var running sync.WaitGroup
	running.Go(func() {
		code, said := temporary, ""
		for code == temporary && tb.Context().Err() == nil {
			_, said, code = w.Exhume(tb, env, "submit", "manifest.jsonl", "--by", "tester", "--batch", batch, "--root", root, "--wait")
		}
		if !slices.Contains(want, code) && tb.Context().Err() == nil {
			tb.Errorf("submit: exit code %d\n%s", code, said)
		}
		done <- code
	})
	tb.Cleanup(running.Wait)
	return func() int { return <-done }
}

// temporary is the exit code of a command for which something was away.
const temporary = 5
