package destination

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/schemas"
)

// groupSizes lead to the two ways of making a group durable.
var groupSizes = map[string]int{"small": 1, "large": syncAllFrom}

const ours = "the artifact's content"

// standing makes something under a name; what is a symlink leads to outside.
var standing = map[string]func(t *testing.T, path, outside string){
	"nothing": func(*testing.T, string, string) {},
	"same":    func(t *testing.T, path, _ string) { write(t, path, ours) },
	"other":   func(t *testing.T, path, _ string) { write(t, path, strings.ToUpper(ours)) },
	"longer":  func(t *testing.T, path, _ string) { write(t, path, ours+ours) },
	"empty":   func(t *testing.T, path, _ string) { write(t, path, "") },
	"symlink to the same": func(t *testing.T, path, outside string) {
		write(t, outside, ours)
		must(t, os.Symlink(outside, path))
	},
	"symlink to other": func(t *testing.T, path, outside string) {
		write(t, outside, "precious")
		must(t, os.Symlink(outside, path))
	},
	"symlink to nowhere": func(t *testing.T, path, outside string) { must(t, os.Symlink(outside, path)) },
	"FIFO":               func(t *testing.T, path, _ string) { must(t, unix.Mkfifo(path, 0o600)) },
	"directory":          func(t *testing.T, path, _ string) { must(t, os.Mkdir(path, 0o755)) },
	"socket": func(t *testing.T, path, _ string) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(t, err)
		defer unix.Close(fd) //nolint:errcheck // only its name matters
		must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	},
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	const exists = schemas.CodeDestinationExists
	refused := map[string]schemas.Code{ // by what stands there
		"nothing": "", "same": "", "other": exists, "longer": exists, "empty": exists, "symlink to the same": exists,
		"symlink to other": exists, "symlink to nowhere": exists, "FIFO": exists, "directory": exists, "socket": exists,
	}
	replaced := map[string]schemas.Code{"directory": exists}
	for policy, want := range map[schemas.Overwrite]map[string]schemas.Code{
		"": refused, schemas.OverwriteNever: refused,
		schemas.OverwriteIfDifferent: replaced, schemas.OverwriteAlways: replaced,
	} {
		for what, place := range standing {
			for size, n := range groupSizes {
				t.Run(string(policy)+"/"+what+"/"+size, func(t *testing.T) {
					t.Parallel()
					// Names of sockets are short.
					dir, err := os.MkdirTemp("", "exhume-destination")
					must(t, err)
					t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
					root, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
					must(t, os.Mkdir(root, 0o755))
					place(t, filepath.Join(root, "f"), outside)
					before := files(t, dir)

					g := openTree(t, root).Group(schemas.Settings{Overwrite: policy}, n)
					must(t, put(g, 7, "f", ours))
					if diff := cmp.Diff(before, visible(t, dir)); diff != "" {
						t.Errorf("changed before the commit (-want +got):\n%s", diff)
					}
					got := commit(g)[7]
					if got != want[what] {
						t.Errorf("code %q, want %q", got, want[what])
					}
					if got == "" {
						before["root/f"] = ours
					}
					if diff := cmp.Diff(before, visible(t, dir)); diff != "" {
						t.Errorf("files (-want +got):\n%s", diff)
					}
				})
			}
		}
	}
}

// visible are the files that are in no staging directory.
func visible(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := files(t, dir)
	for name := range all {
		if strings.Contains(name, stagePrefix) {
			delete(all, name)
		}
	}
	return all
}

func TestCompare(t *testing.T) {
	t.Parallel()
	for what, place := range standing {
		for size, n := range groupSizes {
			t.Run(what+"/"+size, func(t *testing.T) {
				t.Parallel()
				dir, err := os.MkdirTemp("", "exhume-destination")
				must(t, err)
				t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
				path := filepath.Join(dir, "root", "f")
				must(t, os.Mkdir(filepath.Dir(path), 0o755))
				place(t, path, filepath.Join(dir, "outside"))
				long := time.Date(2020, 5, 4, 3, 2, 1, 0, time.UTC)
				if what == "same" {
					must(t, os.Chtimes(path, long, long))
				}

				g := openTree(t, filepath.Dir(path)).Group(schemas.Settings{}, n)
				same, modified, err := g.Compare(t.Context(), 0, "f", int64(len(ours)), sum([]byte(ours)))
				if missing := errors.Is(err, fs.ErrNotExist); missing != (what == "nothing") || err != nil && !missing {
					t.Error(err)
				}
				if same != (what == "same") || same && !modified.Equal(long) {
					t.Errorf("same %v since %v", same, modified)
				}
				if same, _, _ := g.Compare(t.Context(), 1, "f", 0, sum(nil)); same != (what == "empty") {
					t.Errorf("same as an empty file: %v", same)
				}
				if codes := commit(g); len(codes) > 0 {
					t.Error(codes)
				}
			})
		}
	}
}

func TestCompareSeesTheDirectoryMadeLater(t *testing.T) {
	t.Parallel()
	g := openTree(t, t.TempDir()).Group(schemas.Settings{}, 1)
	for _, output := range []string{"a/b/c/f", "a/f"} {
		if _, _, err := g.Compare(t.Context(), 0, output, 0, ""); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", output, err)
		}
	}
	must(t, put(g, 0, "a/b/c/f", ours))
	if _, _, err := g.Compare(t.Context(), 0, "a/b/c/f", 0, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if codes := commit(g); len(codes) > 0 {
		t.Error(codes)
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[uint32]fs.FileMode{0: 0o644, 0o600: 0o600, 0o777: 0o755, 0o444: 0o444, 0o4755: 0o755} {
		root := t.TempDir()
		g := openTree(t, root).Group(schemas.Settings{Mode: mode}, 1)
		must(t, put(g, 0, "d/f", ours))
		if codes := commit(g); len(codes) > 0 {
			t.Error(codes)
		}
		info, err := os.Stat(filepath.Join(root, "d/f"))
		if err != nil || info.Mode() != want {
			t.Errorf("mode %o: got %v, want %v (%v)", mode, info.Mode(), want, err)
		}
	}
}

func TestOneOutputTwiceInAGroup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy        schemas.Overwrite
		first, second string
		want          map[int]schemas.Code
		content       string
	}{
		{schemas.OverwriteNever, ours, ours, map[int]schemas.Code{}, ours},
		{schemas.OverwriteNever, ours, "other", map[int]schemas.Code{1: schemas.CodeDestinationExists}, ours},
		{schemas.OverwriteIfDifferent, ours, "other", map[int]schemas.Code{}, "other"},
		{schemas.OverwriteNever, "", "", map[int]schemas.Code{}, ""},
	} {
		root := t.TempDir()
		g := openTree(t, root).Group(schemas.Settings{Overwrite: tt.policy}, 8)
		must(t, put(g, 0, "f", tt.first))
		must(t, put(g, 1, "f", tt.second))
		if diff := cmp.Diff(tt.want, commit(g)); diff != "" {
			t.Errorf("%+v: codes (-want +got):\n%s", tt, diff)
		}
		if diff := cmp.Diff(map[string]string{"f": tt.content}, visible(t, root)); diff != "" {
			t.Errorf("%+v: files (-want +got):\n%s", tt, diff)
		}
		if left, _ := filepath.Glob(filepath.Join(root, stagePrefix+"*", "[0-9]*")); len(left) > 0 {
			t.Errorf("left in the staging directory: %v", left)
		}
	}
}

func TestAFileWhereAnotherNeedsADirectory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	g := openTree(t, root).Group(schemas.Settings{Overwrite: schemas.OverwriteAlways}, 2)
	must(t, put(g, 0, "a", ours))
	must(t, put(g, 1, "a/b", ours))
	if diff := cmp.Diff(map[int]schemas.Code{0: schemas.CodeDestinationExists}, commit(g)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

func TestFillFails(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	g := openTree(t, root).Group(schemas.Settings{}, 8)
	broken := errors.New("broken")
	err := g.Write(t.Context(), 0, "a/f", 9, "", func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return broken
	})
	if !errors.Is(err, broken) || codeOfError(err) != schemas.CodeInternal {
		t.Errorf("got %v, want the error of fill as it is", err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, stagePrefix+"*", "[0-9]*")); len(left) > 0 {
		t.Errorf("left in the staging directory: %v", left)
	}
	must(t, put(g, 1, "a/g", ours))
	if codes := commit(g); len(codes) > 0 {
		t.Error(codes)
	}
	if diff := cmp.Diff(map[string]string{"a/g": ours}, visible(t, root)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestAbort(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	g := openTree(t, root).Group(schemas.Settings{}, 1)
	must(t, put(g, 0, "a/f", ours))
	g.Abort()
	if left, _ := filepath.Glob(filepath.Join(root, stagePrefix+"*", "[0-9]*")); len(left) > 0 {
		t.Errorf("left in the staging directory: %v", left)
	}
	if found := visible(t, root); len(found) > 0 {
		t.Errorf("files: %v", found)
	}
}

// Deliveries of the same requests to several workers, at the same time.
func TestSeveralWriteTheSame(t *testing.T) {
	t.Parallel()
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(t.TempDir(), "new", "root")
			var wg sync.WaitGroup
			for worker := range 4 {
				tree := openTree(t, root)
				wg.Go(func() {
					for round := range 10 {
						g := tree.Group(schemas.Settings{}, n)
						for i := range 8 {
							output := filepath.Join("d", string(rune('a'+round)), string(rune('a'+i)))
							if err := put(g, i, output, output); err != nil {
								t.Errorf("worker %d: %v", worker, err)
							}
						}
						if codes := commit(g); len(codes) > 0 {
							t.Errorf("worker %d: %v", worker, codes)
						}
					}
				})
			}
			wg.Wait()
			found := visible(t, root)
			for name, content := range found {
				if name != content {
					t.Errorf("%s holds %q", name, content)
				}
			}
			if len(found) != 80 {
				t.Errorf("%d files, want 80", len(found))
			}
		})
	}
}

func TestSeveralWriteDifferentThings(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var mu sync.Mutex
	won := map[string]string{}
	var wg sync.WaitGroup
	for _, me := range []string{"alice", "bob", "carol"} {
		tree := openTree(t, root)
		wg.Go(func() {
			for round := range 20 {
				output := string(rune('a' + round))
				g := tree.Group(schemas.Settings{}, 1)
				if err := put(g, 0, output, me+output); err != nil {
					t.Error(err)
				}
				switch code := commit(g)[0]; code {
				case "":
					mu.Lock()
					if other, ok := won[output]; ok {
						t.Errorf("%s: both %s and %s were told to have placed it", output, other, me)
					}
					won[output] = me + output
					mu.Unlock()
				case schemas.CodeDestinationExists:
				default:
					t.Errorf("%s: %s", output, code)
				}
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff(won, visible(t, root)); diff != "" {
		t.Errorf("files (-who was told, +what is there):\n%s", diff)
	}
}
