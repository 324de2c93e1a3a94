package proctest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childPort tells a copy of the test binary to be a program that answers there,
// and that has much to do besides.
const childPort = "PROCTEST_CHILD_PORT"

func TestMain(m *testing.M) {
	if port := os.Getenv(childPort); port != "" {
		beChild(port)
	}
	goleak.VerifyTestMain(m)
}

// threads is how many threads of the child are busy.
const threads = 16

func beChild(port string) {
	fmt.Println("the child is here")
	runtime.GOMAXPROCS(threads)
	var busy sync.WaitGroup
	for range threads {
		busy.Add(1)
		go func() {
			runtime.LockOSThread()
			busy.Done()
			for {
				_, _ = os.Stat("/")
			}
		}()
	}
	busy.Wait()
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		_, _ = io.WriteString(c, "hello")
		_ = c.Close()
	}
}

// newChild is a process that answers, and how to ask it.
func newChild(t *testing.T) (p *Process, ask func(context.Context) error) {
	t.Helper()
	port := fmt.Sprint(FreePort(t))
	ask = func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // a test
		if deadline, ok := ctx.Deadline(); ok {
			_ = c.SetDeadline(deadline)
		}
		got, err := io.ReadAll(c)
		if err == nil && string(got) != "hello" {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	}
	p = New(func() *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), childPort+"="+port)
		return c
	}, ask)
	t.Cleanup(func() { p.End(syscall.SIGKILL) })
	return p, ask
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcessComesAndGoes(t *testing.T) {
	t.Parallel()
	p, ask := newChild(t)
	p.End(syscall.SIGTERM) // it does not run, and that is all right
	if err := p.Freeze(); err == nil {
		t.Error("what does not run was frozen")
	}
	p.Thaw()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		must(t, p.Start())
		must(t, p.Start()) // it runs already
		must(t, ask(t.Context()))
		p.End(signal)
		if err := ask(t.Context()); err == nil {
			t.Errorf("it answers after signal %v", signal)
		}
	}
	// It is started again also when it ended by itself.
	must(t, p.Start())
	must(t, p.cmd.Process.Kill())
	<-p.ended
	must(t, p.Start())
	must(t, ask(t.Context()))
}

// Nothing of it runs any more the moment that Freeze returns.
func TestFreeze(t *testing.T) {
	t.Parallel()
	p, ask := newChild(t)
	must(t, p.Start())
	for range 20 {
		must(t, p.Freeze())
		must(t, p.Freeze()) // it is frozen already
		if states := threadStates(t, p.cmd.Process.Pid); len(states) < threads || strings.Trim(states, "T") != "" {
			t.Errorf("threads are in the states %s, want only T", states)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := ask(ctx); err == nil {
			t.Error("it answers")
		}
		cancel()
		p.Thaw()
		must(t, ask(t.Context()))
	}
}

// threadStates has a letter for each thread of a process.
func threadStates(t *testing.T, pid int) (states string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	must(t, err)
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended
		}
		must(t, err)
		states += string(stat[strings.LastIndexByte(string(stat), ')')+2])
	}
	return states
}

// Somebody else has the port: their answer is not taken for the program's, and
// the error says what the program printed.
func TestStartFails(t *testing.T) {
	t.Parallel()
	first, ask := newChild(t)
	must(t, first.Start())
	var second *Process
	second = New(first.command, func(context.Context) error {
		<-second.ended // so that the answer is certainly not its own
		return ask(t.Context())
	})
	err := second.Start()
	if err == nil || !strings.Contains(err.Error(), "the child is here") {
		t.Error(err)
	}
	if err := New(func() *exec.Cmd { return exec.Command("/nowhere/at/all") }, nil).Start(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
