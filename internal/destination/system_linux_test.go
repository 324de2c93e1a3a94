package destination

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/schemas"
)

// systemChild tells a copy of the test binary that it may change the limits of
// its process and, if its value is "mounts", mount file systems.
const systemChild = "DESTINATION_SYSTEM_CHILD"

// TestSystem runs in a process of its own, with mounts of its own where the
// system lets us have them.
func TestSystem(t *testing.T) {
	switch os.Getenv(systemChild) {
	case "mounts":
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		t.Run("full", testFull)
		t.Run("no inodes", testNoInodes)
		t.Run("full in the middle", testFullInTheMiddle)
		t.Run("probes", testProbes)
		t.Run("probes below a read-only root", testProbesBelowAReadOnlyRoot)
		t.Run("read-only", testReadOnly)
		t.Run("several mounts", testSeveralMounts)
		fallthrough
	case "plain":
		t.Run("too many open files", testTooManyOpenFiles)
		t.Run("tidying hangs", testTidyingHangs)
	default:
		t.Parallel()
		attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if os.Geteuid() != 0 {
			attr.Cloneflags |= unix.CLONE_NEWUSER
			attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
			attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
		}
		out, err := runChild("mounts", attr)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) {
			t.Log("the system gives us no mounts of our own:", err)
			out, err = runChild("plain", nil)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func runChild(mode string, attr *syscall.SysProcAttr) (output string, err error) {
	c := exec.Command(os.Args[0], "-test.run=^TestSystem$")
	c.Env = append(os.Environ(), systemChild+"="+mode)
	c.SysProcAttr = attr
	out, err := c.CombinedOutput()
	return string(out), err
}

func mountTmpfs(t *testing.T, path, options string) {
	t.Helper()
	must(t, os.MkdirAll(path, 0o755))
	must(t, unix.Mount("none", path, "tmpfs", 0, options))
	t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
}

func testFull(t *testing.T) {
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			root := t.TempDir()
			mountTmpfs(t, filepath.Join(root, "m"), "size=128k")
			g := openTree(t, root).Group(schemas.Settings{}, n)
			content := strings.Repeat("x", 48<<10)
			codes := map[schemas.Code]int{}
			for i := range 6 {
				codes[codeOfError(put(g, i, fmt.Sprintf("m/d%d/f", i), content))]++
			}
			if left := commit(g); len(left) > 0 {
				t.Error(left)
			}
			if diff := cmp.Diff(map[schemas.Code]int{"": 2, schemas.CodeDestinationFull: 4}, codes); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
			found := visible(t, root)
			for name, c := range found {
				if c != content {
					t.Errorf("%s is wrong", name)
				}
			}
			if len(found) != 2 {
				t.Errorf("%d files, want 2", len(found))
			}
		})
	}
}

func testNoInodes(t *testing.T) {
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			root := t.TempDir()
			mountTmpfs(t, root, "nr_inodes=12") // the root, its staging directory and the lock are three
			g := openTree(t, root).Group(schemas.Settings{}, n)
			codes := map[schemas.Code]int{}
			for i := range 8 {
				codes[codeOfError(put(g, i, fmt.Sprintf("d%d/f", i), ours))]++
			}
			if left := commit(g); len(left) > 0 {
				t.Error(left)
			}
			if diff := cmp.Diff(map[schemas.Code]int{"": 4, schemas.CodeDestinationFull: 4}, codes); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
		})
	}
}

// The file system fills up in the middle of a group: what is staged is placed, and
// the rest has its turn when there is room again.
func testFullInTheMiddle(t *testing.T) {
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			root := t.TempDir()
			mountTmpfs(t, root, "size=128k,nr_inodes=16")
			tree := openTree(t, root)
			g := tree.Group(schemas.Settings{}, n)
			must(t, put(g, 0, "a/f", ours))
			for i := 0; ; i++ {
				if f, err := os.Create(filepath.Join(root, fmt.Sprint("filler", i))); err != nil {
					break
				} else {
					_ = f.Close()
				}
			}
			if code := codeOfError(put(g, 1, "b/f", ours)); code != schemas.CodeDestinationFull {
				t.Errorf("code %s", code)
			}
			if codes := commit(g); len(codes) > 0 { // what was staged needs no more room
				t.Error(codes)
			}
			for name := range files(t, root) {
				if strings.HasPrefix(name, "filler") {
					must(t, os.Remove(filepath.Join(root, name)))
				}
			}
			g = tree.Group(schemas.Settings{}, n)
			must(t, put(g, 1, "b/f", ours))
			if codes := commit(g); len(codes) > 0 {
				t.Error(codes)
			}
			if diff := cmp.Diff(map[string]string{"a/f": ours, "b/f": ours}, visible(t, root)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// A probe finds what keeps files from being written: no room, no inodes, on the
// root's volume and on others below it that were written to; and that it is over.
func testProbes(t *testing.T) {
	for name, options := range map[string]string{"no room": "size=128k", "no inodes": "nr_inodes=20"} {
		for _, mount := range []string{".", "m"} {
			t.Run(name+" at "+mount, func(t *testing.T) {
				root := t.TempDir()
				mountTmpfs(t, filepath.Join(root, mount), options)
				tree := openTree(t, root)
				g := tree.Group(schemas.Settings{}, 1)
				must(t, put(g, 0, filepath.Join(mount, "f"), ours))
				if codes := commit(g); len(codes) > 0 {
					t.Error(codes)
				}
				must(t, tree.Probe(t.Context()))
				fillers := filepath.Join(root, mount, "fillers")
				must(t, os.Mkdir(fillers, 0o755))
				for i := 0; ; i++ {
					if err := os.WriteFile(filepath.Join(fillers, fmt.Sprint(i)), make([]byte, 16<<10), 0o600); err != nil {
						break
					}
				}
				if name == "no room" { // a little is no room either
					must(t, os.Remove(filepath.Join(fillers, "0")))
				}
				if code := codeOfError(tree.Probe(t.Context())); code != schemas.CodeDestinationFull {
					t.Errorf("code %q", code)
				}
				must(t, os.RemoveAll(fillers))
				must(t, tree.Probe(t.Context()))
			})
		}
	}
}

// What is not written to need not be writable: volumes are mounted below a root that
// is read-only. What was mounted once and is gone is not asked any more.
func testProbesBelowAReadOnlyRoot(t *testing.T) {
	root := t.TempDir()
	mountTmpfs(t, root, "")
	for _, m := range []string{"m", "gone"} {
		must(t, os.Mkdir(filepath.Join(root, m), 0o755))
	}
	must(t, unix.Mount("none", filepath.Join(root, "gone"), "tmpfs", 0, ""))
	mountTmpfs(t, filepath.Join(root, "m"), "size=128k")
	must(t, unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	tree := openTree(t, root)
	if code := codeOfError(tree.Probe(t.Context())); code != schemas.CodeDestinationReadOnly {
		t.Errorf("code %q as long as nothing else is known", code)
	}
	g := tree.Group(schemas.Settings{}, 2)
	must(t, put(g, 0, "m/d/f", ours))
	must(t, put(g, 1, "gone/d/f", ours))
	if codes := commit(g); len(codes) > 0 {
		t.Error(codes)
	}
	must(t, tree.Probe(t.Context()))
	must(t, os.RemoveAll(filepath.Join(root, "m/d"))) // the volume is still there
	must(t, unix.Mount("", root, "", unix.MS_REMOUNT, ""))
	must(t, unix.Unmount(filepath.Join(root, "gone"), unix.MNT_DETACH))
	must(t, os.Remove(filepath.Join(root, "gone")))
	must(t, unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	must(t, tree.Probe(t.Context()))
	write(t, filepath.Join(root, "m/full"), "")
	for err := error(nil); err == nil; {
		var f *os.File
		f, err = os.OpenFile(filepath.Join(root, "m/full"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.Write(make([]byte, 4096))
		must(t, f.Close())
	}
	if code := codeOfError(tree.Probe(t.Context())); code != schemas.CodeDestinationFull {
		t.Errorf("code %q", code)
	}
}

// A tree whose file system has died while it was idle keeps nobody waiting: here the
// kernel holds whoever opens its staging directory.
func testTidyingHangs(t *testing.T) {
	root := t.TempDir()
	tree, err := OpenTree(root)
	must(t, err)
	g := tree.Group(schemas.Settings{}, 1)
	must(t, put(g, 0, "f", ours))
	if codes := commit(g); len(codes) > 0 {
		t.Fatal(codes)
	}
	held, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err == nil {
		err = unix.FanotifyMark(held, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|unix.FAN_ONDIR, unix.AT_FDCWD, stages(t, root)[0])
	}
	if errors.Is(err, unix.EPERM) && !isRoot(t) {
		t.Log("NOT TESTED: only root may hold others up:", err)
		return
	}
	must(t, err)
	begin := time.Now()
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(held), Events: unix.POLLIN}}, int(10*idleAfter/time.Millisecond))
	must(t, err) // somebody is held
	if d := time.Since(begin); d > 5*idleAfter {
		t.Fatalf("nothing was tidied in %s", d)
	}
	must(t, tree.Close())
	if d := time.Since(begin); d < closePatience || d > 2*closePatience {
		t.Errorf("closed after %s", d)
	}
	tree.Group(schemas.Settings{}, 1).Abort()
	must(t, unix.Close(held)) // lets go
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(closePatience); len(stages(t, root)) > 0; <-tick.C {
		if time.Now().After(end) {
			t.Fatal("its staging directories stay")
		}
	}
}

// isRoot says whether this is the system's root, and not only one of a user namespace.
func isRoot(t *testing.T) bool {
	t.Helper()
	users, err := os.ReadFile("/proc/self/uid_map")
	must(t, err)
	return os.Geteuid() == 0 && strings.Join(strings.Fields(string(users)), " ") == "0 0 4294967295"
}

func testReadOnly(t *testing.T) {
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			write(t, filepath.Join(root, "d/same"), ours)
			must(t, unix.Mount(root, root, "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
			must(t, unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			tree := openTree(t, root)
			if code := codeOfError(tree.Probe(t.Context())); code != schemas.CodeDestinationReadOnly {
				t.Errorf("probe: code %q", code)
			}
			g := tree.Group(schemas.Settings{}, n)
			same, _, err := g.Compare(t.Context(), 0, "d/same", int64(len(ours)), sum([]byte(ours)))
			if !same || err != nil {
				t.Error(same, err)
			}
			for _, output := range []string{"d/f", "e/f"} {
				if err := put(g, 1, output, ours); codeOfError(err) != schemas.CodeDestinationReadOnly {
					t.Error(output, err)
				}
			}
			if codes := commit(g); len(codes) > 0 {
				t.Error(codes)
			}
			if _, err := OpenTree(filepath.Join(root, "new")); codeOfError(err) != schemas.CodeDestinationReadOnly {
				t.Error(err)
			}
			look := viewTree(t, root).Look()
			defer look.Close()
			if got := lookAt(t.Context(), look, "d/same"); !got.Same || got.Unwritten != schemas.CodeDestinationReadOnly {
				t.Error(got)
			}
			if got := lookAt(t.Context(), viewTree(t, filepath.Join(root, "new")).Look(), "f"); got.Unwritten != schemas.CodeDestinationReadOnly {
				t.Error(got)
			}
		})
	}
}

// A rename crosses neither from one file system to another nor from one mount of
// a file system to another mount of the same.
func testSeveralMounts(t *testing.T) {
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			dir := t.TempDir()
			root, elsewhere := filepath.Join(dir, "root"), filepath.Join(dir, "elsewhere")
			mountTmpfs(t, filepath.Join(root, "a/tmpfs"), "")
			bind := filepath.Join(root, "bind")
			must(t, os.MkdirAll(elsewhere, 0o755))
			must(t, os.MkdirAll(bind, 0o755))
			must(t, unix.Mount(elsewhere, bind, "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(bind, unix.MNT_DETACH)) })
			must(t, os.Symlink("a/tmpfs", filepath.Join(root, "link")))

			tree, err := OpenTree(root)
			must(t, err)
			g := tree.Group(schemas.Settings{}, n)
			want := map[string]string{"link": "L---------"}
			for i, output := range []string{"f", "a/f", "a/tmpfs/f", "a/tmpfs/d/e/f", "bind/f", "bind/d/e/f"} {
				must(t, put(g, i, output, output))
				want[output] = output
			}
			must(t, put(g, 9, "link/x/g", ours))
			want["a/tmpfs/x/g"] = ours
			var tops []string
			for _, s := range stages(t, root) {
				top, _ := filepath.Rel(root, filepath.Dir(s))
				tops = append(tops, top)
			}
			if diff := cmp.Diff([]string{".", "a/tmpfs", "bind"}, tops); diff != "" {
				t.Errorf("staging directories (-want +got):\n%s", diff)
			}
			if codes := commit(g); len(codes) > 0 {
				t.Error(codes)
			}
			if diff := cmp.Diff(want, visible(t, root)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			must(t, tree.Close())
			if left := stages(t, root); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func testTooManyOpenFiles(t *testing.T) {
	root := t.TempDir()
	tree := openTree(t, root)
	before := openFiles(t)
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(before + 20), Max: old.Max}))
	g := tree.Group(schemas.Settings{}, 8)
	codes := map[schemas.Code]int{}
	for i := range 100 {
		codes[codeOfError(put(g, i, fmt.Sprintf("d%d/f", i), ours))]++
	}
	if left := commit(g); len(left) > 0 {
		t.Error(left)
	}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	placed := len(visible(t, root))
	if diff := cmp.Diff(map[schemas.Code]int{"": placed, schemas.CodeDestinationBusy: 100 - placed}, codes); diff != "" || placed < 5 {
		t.Errorf("%d placed; codes (-want +got):\n%s", placed, diff)
	}
	const stage = 3 // its directory, its lock and the directory it lies in
	if after := openFiles(t); after != before+stage {
		t.Errorf("%d open files, %d before", after, before)
	}
}

// asNobody gives up root's rights over files, on this goroutine alone.
func asNobody(t *testing.T, owned ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	for _, path := range owned {
		must(t, os.Chown(path, nobody, nobody))
	}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	must(t, unix.Setfsuid(nobody))
	t.Cleanup(func() { must(t, unix.Setfsuid(0)) })
}

func TestRootNotWritable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	root := filepath.Join(dir, "root")
	mine, closed := filepath.Join(root, "a/mine"), filepath.Join(root, "closed")
	must(t, os.MkdirAll(mine, 0o755))
	must(t, os.MkdirAll(closed, 0o755))
	asNobody(t, mine)
	for _, path := range []string{root, filepath.Dir(mine), closed} {
		if os.Geteuid() != 0 {
			must(t, os.Chmod(path, 0o555))
			t.Cleanup(func() { must(t, os.Chmod(path, 0o755)) })
		}
	}
	for _, n := range groupSizes {
		g := openTree(t, root).Group(schemas.Settings{Overwrite: schemas.OverwriteAlways}, n)
		for slot, output := range []string{"closed/f", "f", "new/f"} {
			err := put(g, slot, output, ours)
			if err == nil {
				t.Errorf("%s: staged", output)
			} else if codeOfError(err) != schemas.CodeDestinationDenied {
				t.Error(output, err)
			}
		}
		must(t, put(g, 3, "a/mine/d/f", ours))
		if err := put(g, 4, "closed/f", ours); err == nil {
			// It could be staged elsewhere, but not be placed.
			if diff := cmp.Diff(map[int]schemas.Code{4: schemas.CodeDestinationDenied}, commit(g)); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
		} else {
			t.Error(err)
		}
		if diff := cmp.Diff(map[string]string{"a/mine/d/f": ours}, visible(t, root)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	}
}
