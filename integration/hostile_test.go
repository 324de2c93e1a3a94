package integration

import (
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

// What stands in the destination, whoever put it there, leads nobody outside and
// is neither followed, opened nor replaced.
func TestHostileDestination(t *testing.T) {
	t.Parallel()
	w := harness.Fixture(t, "sqlite")
	outside := t.TempDir()
	root := w.Path("root")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(
		os.MkdirAll(filepath.Join(root, "out", "directory"), 0o755),
		os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600),
		os.Symlink(outside, filepath.Join(root, "out", "link")),
		os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "out", "file-link")),
		os.Symlink(filepath.Join(outside, "new"), filepath.Join(root, "out", "dangling")),
		syscall.Mkfifo(filepath.Join(root, "out", "fifo"), 0o644),
		syscall.Mkfifo(filepath.Join(root, "out", "fifo-dir"), 0o644),
	)
	tombstone := w.Expected(t)[0].Tombstone
	want := map[string]schemas.Code{
		"out/link/x":     schemas.CodePathRefused,
		"out/file-link":  schemas.CodeDestinationExists,
		"out/dangling":   schemas.CodeDestinationExists,
		"out/fifo":       schemas.CodeDestinationExists,
		"out/fifo-dir/x": schemas.CodePathRefused,
		"out/directory":  schemas.CodeDestinationExists,
		"out/good":       "",
	}
	f, err := os.Create(w.Path("hostile.csv"))
	must(err)
	rows := csv.NewWriter(f)
	must(rows.Write([]string{"tombstone", "output"}))
	for output := range want {
		must(rows.Write([]string{tombstone, output}))
	}
	rows.Flush()
	must(rows.Error(), f.Close())

	b := w.MustRestore(t, "hostile.csv", schemas.StatePartial, func(o *app.BatchOptions) { o.Root = root })
	got := map[string]schemas.Code{}
	for _, r := range w.Results(t, b.ID) {
		got[r.Output] = r.Code
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("codes by output (-want +got):\n%s", diff)
	}
	entries, err := os.ReadDir(outside)
	must(err)
	if len(entries) != 1 || harness.FileSHA256(filepath.Join(outside, "secret")) != "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" {
		t.Errorf("I7: something happened outside the root: %v", entries)
	}
	for _, link := range []string{"file-link", "dangling"} {
		if st, err := os.Lstat(filepath.Join(root, "out", link)); err != nil || st.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s is no symlink any more (%v)", link, err)
		}
	}
	w.CheckInvariants(t, b.ID)
}

// An evidence log that was moved away stops everything before a line is written,
// with a word on what to do; doing it goes on.
func TestEvidenceMovedAway(t *testing.T) {
	t.Parallel()
	w := harness.Fixture(t, "sqlite")
	w.MustRestore(t, "manifest.json", schemas.StateSucceeded)
	path := app.EvidencePath(w.Config)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	_, err := w.Restore(t, "manifest.csv")
	if err == nil || !harness.ContainsLine(err.Error(), "--accept-evidence") {
		t.Fatalf("after the log was moved away: %v, want an error that names --accept-evidence", err)
	}
	b := w.MustRestore(t, "manifest.csv", schemas.StateSucceeded, func(o *app.BatchOptions) { o.AcceptEvidence = true })
	w.CheckInvariants(t, b.ID)
	w.MustRestore(t, "manifest_list.json", schemas.StateSucceeded)
}
