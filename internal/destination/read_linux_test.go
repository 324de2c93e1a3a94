package destination

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/exhume/exhume/schemas"
)

func TestReadUnreadable(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, filepath.Join(root, "f"), ours)
	write(t, filepath.Join(root, "closed", "f"), ours)
	must(t, os.Chmod(filepath.Join(root, "f"), 0))
	must(t, os.Chmod(filepath.Join(root, "closed"), 0))
	t.Cleanup(func() { must(t, os.Chmod(filepath.Join(root, "closed"), 0o755)) })
	v, err := ViewTree(root)
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	asNobody(t)
	for _, output := range []string{"f", "closed/f"} {
		if _, err := v.Read(t.Context(), output, int64(len(ours))); codeOfError(err) != schemas.CodeDestinationDenied {
			t.Errorf("%s: %v", output, err)
		}
	}
}
