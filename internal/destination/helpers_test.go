package destination

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// crashRoot tells a copy of the test binary to write until it is killed.
const crashRoot = "DESTINATION_CRASH_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(crashRoot); root != "" {
		crashChild(root)
	}
	syscall.Umask(0o022)
	goleak.VerifyTestMain(m)
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func openTree(t testing.TB, root string) *Tree {
	t.Helper()
	tree, err := OpenTree(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var made []string
		for _, s := range tree.made {
			made = append(made, s.name)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		for _, left := range stages(t, root) {
			if slices.Contains(made, filepath.Base(left)) {
				t.Errorf("left behind: %s", left)
			}
		}
	})
	return tree
}

// put stages content under output.
func put(g *Group, slot int, output, content string) error {
	return g.Write(context.Background(), slot, output, int64(len(content)), sum([]byte(content)), func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	})
}

// commit gives the codes of the slots that failed.
func commit(g interface {
	Commit(ctx context.Context, settled func(slot int, err error))
}) map[int]schemas.Code {
	var mu sync.Mutex
	codes := map[int]schemas.Code{}
	g.Commit(context.Background(), func(slot int, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			codes[slot] = fault.CodeOf(err)
		}
	})
	return codes
}

// codeOfError is the code of err, empty when there is none.
func codeOfError(err error) schemas.Code {
	if err == nil {
		return ""
	}
	return fault.CodeOf(err)
}

// write makes a file behind the package's back.
func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files are the regular files below root with their contents, and whatever else
// is there but directories with its type.
func files(t testing.TB, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(root, path)
		found[name] = d.Type().String()
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			found[name] = string(content)
			return err
		}
		return nil
	}))
	return found
}

// stages are the staging directories below root.
func stages(t testing.TB, root string) (found []string) {
	t.Helper()
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), stagePrefix) {
			found = append(found, path)
		}
		return nil
	})
	return found
}
