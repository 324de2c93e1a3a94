package faults

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/exhume/exhume/integration/harness"
)

// Clocks are set while the fleet works.
func TestClock(t *testing.T) {
	strike(t, []fault{{"steps", true, clockSteps}})
}

// clockSteps has the clocks of workers and collector jump by an hour, to and fro,
// independently of each other, as clocks do that somebody sets; what the kernel calls
// monotonic goes on. It watches that nothing waits for, or is given up at, a time of
// day: I1, I2, I4, I5, I6.
func clockSteps(t *testing.T, random *rand.Rand) {
	program := buildStepping(t)
	tr := newTrial(t, random, 2000, "")
	tr.start(2)
	for _, r := range tr.roles() {
		r.Stop(t)
		r.Use(program)
		r.Restart(t)
	}
	tr.submit(400)
	for i := range 8 {
		tr.at(0.02+0.1*float64(i), 0.1+0.1*float64(i))
		way := syscall.SIGUSR1
		if random.IntN(2) == 0 {
			way = syscall.SIGUSR2
		}
		if err := syscall.Kill(tr.any(tr.roles()).Pid(), way); err != nil {
			t.Fatal(err)
		}
	}
	tr.finish()
}

// stepper lets a program's clock be set: SIGUSR1 puts it forward, SIGUSR2 back.
const stepper = `package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

func init() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR1 {
				time.Step += 3600
			} else {
				time.Step -= 3600
			}
		}
	}()
}
`

// buildStepping builds the program with a clock that can be set. Tools that set the
// clock of a process by its calls of the system do not see those of a Go program, which
// reads it without one.
func buildStepping(t *testing.T) string {
	t.Helper()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	clock := filepath.Join(runtime.GOROOT(), "src", "time", "time.go") //nolint:staticcheck // the tests run where they were built
	source, err := os.ReadFile(clock)
	if err != nil {
		t.Fatal(err)
	}
	const reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	stepping := strings.Replace(string(source), reads, "var Step int64\n\n"+reads+"\tsec += Step\n", 1)
	if stepping == string(source) {
		t.Fatal("this Go reads the clock in another way: bring this test up to date")
	}
	dir := t.TempDir()
	own := filepath.Join(root, "cmd", "exhume", "stepper.go")
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{clock: filepath.Join(dir, "time.go"), own: filepath.Join(dir, "stepper.go")}
	place(t, overlay.Replace[clock], []byte(stepping))
	place(t, overlay.Replace[own], []byte(stepper))
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	place(t, filepath.Join(dir, "overlay.json"), list)
	path, err := harness.Build("exhume-stepping", "./cmd/exhume", "-overlay", filepath.Join(dir, "overlay.json"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}
