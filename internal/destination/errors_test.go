package destination

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/schemas"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]schemas.Code{
		unix.ENOSPC: schemas.CodeDestinationFull, unix.EDQUOT: schemas.CodeDestinationFull,
		unix.EROFS: schemas.CodeDestinationReadOnly, unix.EIO: schemas.CodeDestinationIO,
		unix.EACCES: schemas.CodeDestinationDenied, unix.EPERM: schemas.CodeDestinationDenied, unix.EFBIG: schemas.CodeDestinationDenied,
		unix.ENAMETOOLONG: schemas.CodePathRefused, unix.ELOOP: schemas.CodePathRefused, unix.ENOTDIR: schemas.CodePathRefused,
		unix.EISDIR: schemas.CodeDestinationExists, unix.EEXIST: schemas.CodeDestinationExists,
		unix.EMFILE: schemas.CodeDestinationBusy, unix.ENFILE: schemas.CodeDestinationBusy, unix.ENOMEM: schemas.CodeDestinationBusy,
		unix.ENOENT: schemas.CodeDestinationBusy, unix.ESTALE: schemas.CodeDestinationBusy, unix.EBUSY: schemas.CodeDestinationBusy,
		errors.New("path escapes from parent"): schemas.CodePathRefused,
		Occupied("f"):                          schemas.CodeDestinationExists,
		context.Canceled:                       schemas.CodeInternal,
	} {
		for _, wrapped := range []error{
			err, &fs.PathError{Op: "openat", Path: "f", Err: err}, os.NewSyscallError("syncfs", err), fmt.Errorf("so: %w", err),
		} {
			got := classify("out", wrapped)
			if codeOfError(got) != want || !errors.Is(got, err) || strings.Contains(got.Error(), "\n") {
				t.Errorf("%v: got %v (%s), want code %s", wrapped, got, codeOfError(got), want)
			}
		}
	}
	if err := classify("out", nil); err != nil {
		t.Error(err)
	}
}

func TestOpenTreeRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for _, root := range []string{"", "relative/root", file, filepath.Join(file, "below")} {
		tree, err := OpenTree(root)
		if codeOfError(err) != schemas.CodePathRefused || tree != nil {
			t.Errorf("%q: %v (%s)", root, err, codeOfError(err))
		}
	}
}

func TestCompareIsCancelled(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, filepath.Join(root, "f"), ours)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := openTree(t, root).Group(schemas.Settings{}, 1)
	defer g.Abort()
	if _, _, err := g.Compare(ctx, 0, "f", int64(len(ours)), sum([]byte(ours))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
