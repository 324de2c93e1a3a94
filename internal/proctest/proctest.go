// Package proctest runs the programs of other servers for tests: it starts them,
// waits until they answer, ends them and makes them stand still. What they are
// called with, and how they are asked, is for the packages above it to know.
package proctest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startTimeout bounds how long a program may take until it answers.
const startTimeout = 2 * time.Minute

// Process is a program that tests start and end, again and again. It dies with
// the tests, however they end. It is safe for concurrent use.
type Process struct {
	command func() *exec.Cmd
	ready   func(context.Context) error

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil before the first start
	ended  chan struct{} // closed when it has
	err    error         // of its end, once ended is closed
	output log
}

// New makes a process that runs what command gives, which is asked for each
// start; ready says whether the program answers.
func New(command func() *exec.Cmd, ready func(context.Context) error) *Process {
	return &Process{command: command, ready: ready}
}

// Start starts the program, unless it runs, and waits until it answers. Where it
// does not, the error holds what it printed.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs() {
		return nil
	}
	p.output.reset()
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	DieWithParent(cmd)
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The program dies with the thread that started it, which is to be as
		// long as the tests run.
		runtime.LockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	p.cmd, p.ended = cmd, ended
	return p.await()
}

// await waits until the program answers.
func (p *Process) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := p.ready(ctx)
		if err == nil && p.runs() { // and nobody else answered at its port
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, p.output.text())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w\n%s", p.cmd.Path, err, p.output.text())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// runs says whether the program was started and has not ended.
func (p *Process) runs() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// End sends the program a signal that ends it, and waits until it has ended. A
// program that does not run stays as it is.
func (p *Process) End(signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs() {
		_ = p.cmd.Process.Signal(signal)
		<-p.ended
	}
}

// Wait waits until the program, which was started, has ended, and gives its error,
// nil for exit code 0, or that of the context when that ended first.
func (p *Process) Wait(ctx context.Context) error {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	select {
	case <-ended:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Pid is the process's number, 0 while it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Output is what the program has printed since it was last started.
func (p *Process) Output() string { return p.output.text() }

// Freeze stops the program, without ending its connections, until Thaw. When it
// returns, none of the program's threads runs any more; processes that the
// program has started itself go on.
func (p *Process) Freeze() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return errors.New("it does not run")
	}
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// The signal only asks for it: the threads run until each has seen it.
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Thaw ends Freeze.
func (p *Process) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// DieWithParent has the system kill a program when the thread that starts it
// ends, which must not be before the program is done with.
func DieWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// Free ports are below those that systems give to whoever connects somewhere: one of
// those may be taken before a server listens on it, or while it is restarted.
const firstPort, endPort = 15_000, 32_000

var given sync.Map // the ports that this process was given

// FreePort is a loopback port that nobody listens on, another one each time.
func FreePort(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := firstPort + rand.IntN(endPort-firstPort) //nolint:gosec // nobody is to guess it, but nobody gains by that
		if _, known := given.LoadOrStore(port, true); known {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			_ = l.Close() // nobody connected
			return port
		}
	}
	tb.Fatal("no loopback port is free")
	return 0
}

// log is what a program printed.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *log) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}
