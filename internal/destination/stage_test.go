package destination

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/schemas"
)

func TestSweep(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	live := openTree(t, root)
	g := live.Group(schemas.Settings{}, 1)
	must(t, put(g, 0, "f", ours))
	alive := stages(t, root)
	if len(alive) != 1 {
		t.Fatalf("staging directories: %v", alive)
	}
	for path, content := range map[string]string{
		".exhume-00000001/1": "dead", ".exhume-00000001/lock": "",
		".exhume-00000002/7": "died before it had the lock",
		".exhume-notes/1":    "somebody's own", ".exhume-00000003": "a file", ".exhume-000000040/1": "of another form",
	} {
		write(t, filepath.Join(root, path), content)
	}
	must(t, os.Mkdir(filepath.Join(root, ".exhume-00000005"), 0o700))
	must(t, os.Mkdir(filepath.Join(root, "own"), 0o700))
	write(t, filepath.Join(root, "own/1"), "linked")
	must(t, os.Symlink("own", filepath.Join(root, ".exhume-00000006")))
	must(t, os.MkdirAll(filepath.Join(root, ".exhume-00000007/deeper"), 0o700))

	next, err := OpenTree(root)
	must(t, err)
	must(t, next.Close())
	left := stages(t, root)
	want := []string{
		filepath.Join(root, ".exhume-000000040"), filepath.Join(root, ".exhume-00000007"),
		alive[0], filepath.Join(root, ".exhume-notes"),
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("staging directories (-want +got):\n%s", diff)
	}
	if codes := commit(g); len(codes) > 0 {
		t.Errorf("the live group was harmed: %v", codes)
	}
	wantFiles := map[string]string{
		"f": ours, ".exhume-notes/1": "somebody's own", ".exhume-00000003": "a file", ".exhume-000000040/1": "of another form",
		"own/1": "linked", ".exhume-00000006": "L---------",
	}
	got := files(t, root)
	delete(got, filepath.Join(filepath.Base(alive[0]), lockName))
	if diff := cmp.Diff(wantFiles, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, path := range want {
		if path != alive[0] {
			must(t, os.RemoveAll(path))
		}
	}
}

// Many processes open a tree at the same time: each makes its staging directory
// while the others sweep.
func TestSweepersMeet(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	top, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(top) //nolint:errcheck // opened for reading
	const processes, rounds = 4, 100
	done := make(chan error, processes)
	for range processes {
		go func() {
			for range rounds {
				s, err := newStage(descriptor(top))
				if err == nil && !linked(s.dir, lockName, s.lock) {
					t.Error("a live staging directory was swept")
				}
				if err == nil {
					err = s.close()
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range processes {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if left := stages(t, root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStagingDirectoryRemovedUnderUs(t *testing.T) {
	t.Parallel()
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			tree := openTree(t, root)
			g := tree.Group(schemas.Settings{}, n)
			must(t, put(g, 0, "lost", ours))
			for _, s := range stages(t, root) {
				must(t, os.RemoveAll(s))
			}
			must(t, put(g, 1, "kept", ours))
			if diff := cmp.Diff(map[int]schemas.Code{0: schemas.CodeDestinationBusy}, commit(g)); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{"kept": ours}, visible(t, root)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTargetDirectoryRemovedUnderUs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	g := openTree(t, root).Group(schemas.Settings{}, 1)
	must(t, put(g, 0, "a/f", ours))
	must(t, put(g, 1, "g", ours))
	must(t, os.RemoveAll(filepath.Join(root, "a")))
	if diff := cmp.Diff(map[int]schemas.Code{0: schemas.CodeDestinationBusy}, commit(g)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"g": ours}, visible(t, root)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// Not parallel: it counts the open files of the whole process.
func TestDescriptorsAreClosed(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "file"), "")
	must(t, os.Symlink("..", filepath.Join(root, "up")))
	must(t, os.Symlink("real", filepath.Join(root, "link")))
	must(t, os.Mkdir(filepath.Join(root, "real"), 0o755))
	before := openFiles(t)
	for i := range 3 {
		tree, err := OpenTree(root)
		must(t, err)
		for _, n := range groupSizes {
			g := tree.Group(schemas.Settings{}, n)
			for slot, output := range []string{"a/b/f", "link/f", "up/f", "file/f", "..", "gone/f", "real"} {
				_, _, _ = g.Compare(t.Context(), slot, output, int64(len(ours)), sum([]byte(ours)))
				_ = put(g, slot, output, ours)
			}
			for _, s := range stages(t, root) {
				if i == 1 {
					must(t, os.RemoveAll(s))
				}
			}
			must(t, os.RemoveAll(filepath.Join(root, "gone")))
			if i == 2 {
				g.Abort()
			} else {
				commit(g)
			}
		}
		must(t, tree.Close())
		if _, err := OpenTree(filepath.Join(root, "file")); err == nil {
			t.Error("a file is no root")
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d open files, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/dev/fd")
	must(t, err)
	return len(open)
}

// A tree in which nothing is written has no staging directory after a while, and
// gets one again when there is work.
func TestIdleTreeIsTidy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		tree := openTree(t, root)
		for round := range 2 {
			first, second := tree.Group(schemas.Settings{}, 1), tree.Group(schemas.Settings{}, 1)
			must(t, put(first, 0, fmt.Sprint("first", round), ours))
			must(t, put(second, 0, fmt.Sprint("second", round), ours))
			commit(first)
			time.Sleep(2 * idleAfter) // of the bubble's clock
			if n := len(stages(t, root)); n != 1 {
				t.Fatalf("%d staging directories while a group is under way", n)
			}
			if codes := commit(second); len(codes) > 0 {
				t.Fatalf("failed: %v", codes)
			}
			time.Sleep(2 * idleAfter) // of the bubble's clock
			if left := stages(t, root); len(left) > 0 {
				t.Fatalf("left: %v", left)
			}
		}
		tree.Group(schemas.Settings{}, 1).Abort()
		must(t, tree.Close()) // with the timer running
	})
}
