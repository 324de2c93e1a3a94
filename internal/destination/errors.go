package destination

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
	"golang.org/x/sys/unix"
)

// classify gives an error of the operating system about an output its code. nil
// stays nil, and an error that has a code keeps it.
func classify(output string, err error) error {
	return classifyAs("output", output, err)
}

// classifyRoot is classify for the root of a tree. What keeps it from taking any file
// just now is as good as its being away.
func classifyRoot(root string, err error) error {
	err = classifyAs("destination root", root, err)
	if fault.Is(err, schemas.CodeDestinationBusy) {
		return fault.New(schemas.CodeDestinationDown, "%w", err)
	}
	return err
}

func classifyAs(kind, name string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err // the output says more than the path inside the tree
	}
	errno, ok := errors.AsType[unix.Errno](err)
	if !ok {
		// What os.Root refuses has no errno: the path leads outside.
		return fault.New(schemas.CodePathRefused, "%s %q: %w", kind, name, err)
	}
	return fault.New(codeOf(errno), "%s %q: %w", kind, name, err)
}

// checkOutput refuses what is no clean path to something below the root, and the
// names of staging directories. Everything here relies on it.
func checkOutput(output string) error {
	if !filepath.IsLocal(output) || path.Clean(output) != output || output == "." {
		return fault.New(schemas.CodePathRefused, "output %q: want a clean path below the root", output)
	}
	if strings.Contains("/"+output, "/"+stagePrefix) {
		return fault.New(schemas.CodePathRefused, "output %q: names that begin with %q are reserved", output, stagePrefix)
	}
	return nil
}

func codeOf(e unix.Errno) schemas.Code {
	switch e {
	case unix.ENOSPC, unix.EDQUOT:
		return schemas.CodeDestinationFull
	case unix.EROFS:
		return schemas.CodeDestinationReadOnly
	case unix.EIO, unix.ENXIO, unix.ENODEV:
		return schemas.CodeDestinationIO
	case unix.EACCES, unix.EPERM, unix.EFBIG:
		return schemas.CodeDestinationDenied
	case unix.EISDIR, unix.EEXIST, unix.ENOTEMPTY:
		return schemas.CodeDestinationExists
	case unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EINVAL, unix.EILSEQ, unix.EXDEV:
		return schemas.CodePathRefused
	default:
		return schemas.CodeDestinationBusy
	}
}
