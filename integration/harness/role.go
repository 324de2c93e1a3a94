package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/proctest"
)

// Role is a role of a fleet, a process of its own.
type Role struct {
	Name string
	// Env is its environment from the next start on.
	Env []string

	process *proctest.Process
	args    []string
}

// Start starts a role in a directory of its own below the world and waits until it
// works. It is stopped when the test ends.
func (w *World) Start(tb testing.TB, name string, env []string, args ...string) *Role {
	tb.Helper()
	program, err := Binary()
	if err != nil {
		tb.Fatal(err)
	}
	return w.StartProgram(tb, program, name, env, args...)
}

// StartProgram starts a role of a program.
func (w *World) StartProgram(tb testing.TB, program, name string, env []string, args ...string) *Role {
	tb.Helper()
	dir := w.Path("roles", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	r := &Role{Name: name, Env: env, args: append([]string{program}, args...)}
	r.process = proctest.New(func() *exec.Cmd {
		cmd := exec.Command(r.args[0], r.args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(append(CleanEnv(), r.Env...), "EXHUME_HTTP_LISTEN=127.0.0.1:0")
		return cmd
	}, r.works)
	r.Restart(tb)
	tb.Cleanup(func() { r.Stop(tb) })
	return r
}

// works says whether the role says that it is ready.
func (r *Role) works(context.Context) error {
	if !strings.Contains(r.Said(), " is ready.\n") {
		return errors.New("it is not ready")
	}
	return nil
}

// Restart starts the role anew, with its present Env, after it was stopped or
// killed or has died, and waits until it works.
func (r *Role) Restart(tb testing.TB) {
	tb.Helper()
	if err := r.process.Start(); err != nil {
		tb.Fatalf("%s: %v", r.Name, err)
	}
}

// Launch is Restart, and lets the role die at once.
func (r *Role) Launch() { _ = r.process.Start() }

// Use has the role be of another program from its next start on.
func (r *Role) Use(program string) { r.args[0] = program }

// Within puts a command before the role's from its next start on, which is to
// execute it: unshare, prlimit.
func (r *Role) Within(command ...string) { r.args = append(slices.Clone(command), r.args...) }

// Stop stops the role in order, which must work. One that does not run stays as it
// is.
func (r *Role) Stop(tb testing.TB) {
	tb.Helper()
	if !r.Runs() {
		return
	}
	r.process.End(syscall.SIGTERM)
	if err := r.process.Wait(context.Background()); err != nil {
		tb.Errorf("%s: %v\n%s", r.Name, err, r.Said())
	}
}

// Kill kills the role, if it runs.
func (r *Role) Kill() { r.process.End(syscall.SIGKILL) }

// Freeze has the role stand still, with its connections open, until Thaw.
func (r *Role) Freeze(tb testing.TB) {
	tb.Helper()
	if err := r.process.Freeze(); err != nil {
		tb.Fatalf("%s: %v", r.Name, err)
	}
}

// Thaw ends Freeze.
func (r *Role) Thaw() { r.process.Thaw() }

// Ended waits, up to two minutes, until the role has ended by itself, and gives its
// error: an *exec.ExitError, nil for exit code 0.
func (r *Role) Ended(tb testing.TB) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	err := r.process.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		tb.Fatalf("%s does not end:\n%s", r.Name, r.Said())
	}
	return err
}

// Runs says whether the role runs.
func (r *Role) Runs() bool { return r.process.Pid() != 0 }

// Pid is the role's process, 0 while it does not run.
func (r *Role) Pid() int { return r.process.Pid() }

// Said is what the role has written since it was last started.
func (r *Role) Said() string { return r.process.Output() }

// HTTP is where the role answers: http://host:port.
func (r *Role) HTTP() string {
	for line := range Lines(r.Said()) {
		if at, ok := strings.CutPrefix(line, "HTTP: "); ok {
			return strings.TrimSuffix(at, "/metrics")
		}
	}
	return ""
}

// Metric is the sum of a metric over all that has these labels, each name="value",
// as the role says.
func (r *Role) Metric(tb testing.TB, name string, labels ...string) (sum float64) {
	tb.Helper()
	text, err := r.get("/metrics")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(text) {
		missing := func(label string) bool { return !strings.Contains(line, label) }
		if strings.HasPrefix(line, name+"{") && !slices.ContainsFunc(labels, missing) {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			if err != nil {
				tb.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// Ready says whether the role says that it can work.
func (r *Role) Ready(tb testing.TB) bool {
	tb.Helper()
	text, err := r.get("/readyz")
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Contains(text, `"status":"ok"`)
}

// get asks the role over HTTP.
func (r *Role) get(path string) (string, error) {
	resp, err := http.Get(r.HTTP() + path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", r.Name, err)
	}
	text, err := io.ReadAll(resp.Body)
	http.DefaultClient.CloseIdleConnections()
	return string(text), errors.Join(err, resp.Body.Close())
}
