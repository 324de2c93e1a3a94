package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/proctest"
	"github.com/exhume/exhume/schemas"
)

// disk is a mount over a directory that only those see who are moved to it. It lasts as
// long as the test, whoever of them dies.
type disk struct {
	dir     string
	process *proctest.Process
}

// newDisk mounts a file system in memory over a directory: size=8m,nr_inodes=1000.
func newDisk(t *testing.T, dir, options string) *disk {
	t.Helper()
	return newMount(t, dir, `mount -t tmpfs -o "$1" none "$0"`, options)
}

// newView mounts a directory over itself, so that those who see it so have rights of
// their own to it.
func newView(t *testing.T, dir string) *disk {
	t.Helper()
	return newMount(t, dir, `mount --bind "$0" "$0"`)
}

// newMount has a shell mount something over a directory, which is $0 to it.
func newMount(t *testing.T, dir, mount string, args ...string) *disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &disk{dir: dir}
	var held io.Closer
	d.process = proctest.New(func() *exec.Cmd {
		shell := append([]string{"sh", "-c", mount + " && echo mounted && exec cat", dir}, args...)
		cmd := exec.Command("unshare", append(namespaces("-rm", "-m"), shell...)...)
		held, _ = cmd.StdinPipe() // it ends when the tests do
		return cmd
	}, func(context.Context) error {
		if !strings.Contains(d.process.Output(), "mounted") {
			return errors.New("it is not mounted")
		}
		return nil
	})
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.process.End(syscall.SIGKILL)
		_ = held.Close()
	})
	return d
}

// namespaces are the arguments for a namespace of mounts; who is not root needs one of
// users, too.
func namespaces(user, root string) []string {
	if os.Geteuid() == 0 {
		return []string{root}
	}
	return strings.Fields(user)
}

// inside is a path as those see it who see the disk.
func (d *disk) inside(path string) string {
	return filepath.Join("/proc", fmt.Sprint(d.process.Pid()), "root", path)
}

// within is a command that executes the one after it, in dir, where the disk is seen.
func (d *disk) within(dir string) []string {
	enter := append([]string{"nsenter", "-t", fmt.Sprint(d.process.Pid())}, namespaces("-U --preserve-credentials -m", "-m")...)
	return append(enter, "sh", "-c", `cd "$0" && exec "$@"`, dir)
}

// move restarts a role so that it sees the disk.
func (d *disk) move(tr *trial, r *harness.Role) {
	tr.Helper()
	r.Stop(tr.T)
	r.Within(d.within(tr.Path("roles", r.Name))...)
	r.Restart(tr.T)
}

// remount changes options: ro, rw. It waits until nobody holds a file there open for
// writing, which a worker does that has been idle for two seconds.
func (d *disk) remount(t *testing.T, options string) {
	t.Helper()
	command := append(d.within("/"), "mount", "-o", "remount,bind,"+options, d.dir)
	harness.WaitFor(t, "the mount to be "+options, func() bool { return exec.Command(command[0], command[1:]...).Run() == nil })
}

// ailment is something that is wrong with a disk: it begins and ends.
type ailment struct {
	code  schemas.Code
	begin func(tr *trial, d *disk)
	end   func(t *testing.T, d *disk)
}

// full is a disk without room, crowded one without room for another file, readOnly one
// that takes nothing.
var (
	full = ailment{
		schemas.CodeDestinationFull,
		func(tr *trial, d *disk) { fill(tr.T, d.ballast()) },
		func(t *testing.T, d *disk) { drop(t, d.ballast()) },
	}
	crowded = ailment{
		schemas.CodeDestinationFull,
		func(tr *trial, d *disk) { crowd(tr.T, d.ballast()) },
		func(t *testing.T, d *disk) { drop(t, d.ballast()) },
	}
	readOnly = ailment{
		schemas.CodeDestinationReadOnly,
		func(tr *trial, d *disk) {
			tr.Must(tr.T, tr.env, "batch", "pause", batch)
			d.remount(tr.T, "ro")
			tr.Must(tr.T, tr.env, "batch", "resume", batch)
		},
		func(t *testing.T, d *disk) { d.remount(t, "rw") },
	}
)

// ballast is a path on the disk that nobody else uses: exhume takes it for its own, and
// so does the watch.
func (d *disk) ballast() string { return d.inside(filepath.Join(d.dir, ".exhume-ballast")) }

// crowd makes empty files until there is no room for another one.
func crowd(t *testing.T, dir string) {
	t.Helper()
	err := os.Mkdir(dir, 0o755)
	for i := 0; err == nil; i++ {
		var f *os.File
		if f, err = os.Create(filepath.Join(dir, fmt.Sprint(i))); err == nil {
			err = f.Close()
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// drop removes what takes the room, after a while.
func drop(t *testing.T, path string) {
	t.Helper()
	<-time.After(time.Second)
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}
