package destination

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/schemas"
)

// Whatever an output is called, nothing outside the root is made, changed or
// removed (invariant I7), and what was placed is what is found under its name.
func FuzzOutput(f *testing.F) {
	f.Fuzz(func(t *testing.T, output string, many bool) {
		dir := t.TempDir()
		root := filepath.Join(dir, "root")
		write(t, filepath.Join(dir, "outside/d/f"), "precious")
		write(t, filepath.Join(root, "real/deep/f"), "old")
		for name, to := range map[string]string{
			"up": "..", "away": filepath.Join(dir, "outside"), "in": "real", "dangling": "../outside/new", "real/back": "..", "real/out": "../../outside/d", "loop": "loop",
		} {
			must(t, os.Symlink(to, filepath.Join(root, name)))
		}
		before := outside(t, dir)
		n := 1
		if many {
			n = syncAllFrom
		}
		tree := openTree(t, root)
		g := tree.Group(schemas.Settings{Overwrite: schemas.OverwriteAlways}, n)
		_, _, _ = g.Compare(t.Context(), 0, output, int64(len(ours)), sum([]byte(ours)))
		code := codeOfError(put(g, 1, output, ours))
		if code == "" {
			code = commit(g)[1]
		} else {
			g.Abort()
		}
		if diff := cmp.Diff(before, outside(t, dir)); diff != "" {
			t.Fatalf("output %q changed what is outside:\n%s", output, diff)
		}
		if code != "" {
			return
		}
		place, err := filepath.EvalSymlinks(filepath.Join(root, output))
		must(t, err)
		if rel, err := filepath.Rel(root, place); err != nil || !filepath.IsLocal(rel) {
			t.Errorf("output %q lies at %s", output, place)
		}
		if content, err := os.ReadFile(place); err != nil || string(content) != ours {
			t.Errorf("output %q has %q, %v", output, content, err)
		}
	})
}

// outside is all that lies in dir but not in its root, directories included.
func outside(t *testing.T, dir string) (found []string) {
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			content, err := os.ReadFile(p)
			found = append(found, p+" "+string(content))
			return err
		}
		found = append(found, p)
		if d.Name() == "root" && filepath.Dir(p) == dir {
			return fs.SkipDir
		}
		return nil
	}))
	return found
}

// The key of an output lies below the bucket's prefix, and is one that no server
// takes for another.
func FuzzKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, prefix, output string) {
		if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
			if objects.CheckKey(prefix) != nil {
				return
			}
			prefix += "/"
		}
		b := &Bucket{prefix: prefix}
		key, err := b.key(output)
		if err != nil {
			if codeOfError(err) != schemas.CodePathRefused {
				t.Errorf("%q: %v", output, err)
			}
			return
		}
		if key != prefix+output || path.Clean("/"+key) != "/"+key || len(key) > objects.MaxKey {
			t.Errorf("%q below %q is %q", output, prefix, key)
		}
		if slices.Contains(strings.Split(key, "/"), "..") {
			t.Errorf("%q goes up", key)
		}
	})
}
