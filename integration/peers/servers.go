package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startTimeout bounds how long a server may take until it answers.
const startTimeout = time.Minute

// programs are the servers' programs as they were found.
type programs struct {
	initdb, postgres, redis string
}

// findPrograms finds what the peers run on. Its error says how to install what
// is missing.
func findPrograms() (programs, error) {
	var packages []string
	find := func(name, pkg, pattern string) string {
		path := findProgram(name, pattern)
		if path == "" && !slices.Contains(packages, pkg) {
			packages = append(packages, pkg)
		}
		return path
	}
	p := programs{
		initdb:   find("initdb", "postgresql", "/usr/lib/postgresql/*/bin"),
		postgres: find("postgres", "postgresql", "/usr/lib/postgresql/*/bin"),
		redis:    find("redis-server", "redis-server", "/usr/sbin"),
	}
	if len(packages) > 0 {
		return p, fmt.Errorf("the peers' servers are not installed; install them with\n  apt-get install --no-install-recommends %s",
			strings.Join(packages, " "))
	}
	return p, nil
}

// findProgram is the path of an installed program, in the path or in the newest
// of the directories that match pattern; empty when there is none.
func findProgram(name, pattern string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob(filepath.Join(pattern, name)) // a constant pattern is well-formed
	if len(found) == 0 {
		return ""
	}
	return slices.MaxFunc(found, func(a, b string) int {
		return release(a) - release(b)
	})
}

// release is the number in a path like /usr/lib/postgresql/15/bin/postgres, 0
// where there is none.
func release(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// versionPattern finds a version in what a program says of itself.
var versionPattern = regexp.MustCompile(`v?[0-9]+(\.[0-9]+)+[-+.\w]*`)

// versionOf asks a program for its version; what does not say is "unknown".
func versionOf(ctx context.Context, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).Output() // without an answer nothing is found in it
	if v := versionPattern.Find(out); v != nil {
		return string(v)
	}
	return "unknown"
}

// moduleVersion is the version of a module that this program is built with.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}

// servant is whom the servers run as where this program runs as root, which
// PostgreSQL refuses.
func servant() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// serverDir makes a directory that a server can write to.
func serverDir(parent, name string) (string, error) {
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	id, err := servant()
	if err != nil || id == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(id.Uid), int(id.Gid))
}

// command is a program of a server that works in dir and dies with this process.
func command(dir string, args ...string) (*exec.Cmd, error) {
	id, err := servant()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // an interrupt is for this program, which stops its servers in order
		Credential: id,
	}
	return cmd, nil
}

// server is a running server.
type server struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	output bytes.Buffer
}

// startServer starts a server that works in dir and waits until ready gives no
// error.
func startServer(ctx context.Context, dir string, ready func(context.Context) error, args ...string) (*server, error) {
	cmd, err := command(dir, args...)
	if err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	started := make(chan error, 1)
	go func() {
		// The server dies with the thread that started it, which is to be as
		// long as the server runs.
		runtime.LockOSThread()
		defer close(s.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is told by who waits for it
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	if err := s.await(ctx, ready); err != nil {
		s.stop(syscall.SIGKILL)
		return nil, fmt.Errorf("%s: %w\n%s", filepath.Base(args[0]), err, s.output.String())
	}
	return s, nil
}

// await waits until the server answers.
func (s *server) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop ends the server with a signal and waits until it is gone.
func (s *server) stop(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	<-s.ended
}
