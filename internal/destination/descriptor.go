package destination

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// descriptor is an open directory or regular file. Neither is ever waited for,
// so os.File's registration with the poller, system calls a file, is left out.
// What it opens are single names, never followed if they are symlinks: they
// cannot lead out of the directory.
type descriptor int

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY

func (d descriptor) open(name string, flags int, mode uint32) (descriptor, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(d), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	})
	return descriptor(fd), err
}

func (d descriptor) mkdir(name string, mode uint32) error { return unix.Mkdirat(int(d), name, mode) }
func (d descriptor) unlink(name string) error             { return unix.Unlinkat(int(d), name, 0) }
func (d descriptor) rmdir(name string) error              { return unix.Unlinkat(int(d), name, unix.AT_REMOVEDIR) }

// stat describes the name itself, be it a symlink.
func (d descriptor) stat(name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(int(d), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// linkNew renames a file unless the new name is taken, for systems that lack a
// rename with that condition. The old name may stay; sweeping takes it.
func linkNew(fromDir descriptor, from string, toDir descriptor, to string) error {
	err := unix.Linkat(int(fromDir), from, int(toDir), to, 0)
	if err == nil {
		_ = fromDir.unlink(from)
	}
	return err
}

// own is a descriptor of what f has open that outlives f.
func own(f *os.File) (descriptor, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return descriptor(fd), err
}

// Write implements io.Writer.
func (d descriptor) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := retry(func() (int, error) { return unix.Write(int(d), p[n:]) })
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

func (d descriptor) read(p []byte) (int, error) {
	return retry(func() (int, error) { return unix.Read(int(d), p) })
}

// sync makes the file's content, or the directory's names, durable. EINVAL says
// that the file system, which must be read-only then, has nothing to sync.
func (d descriptor) sync() error {
	_, err := retry(func() (int, error) { return 0, unix.Fsync(int(d)) })
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return os.NewSyscallError("fsync", err)
}

func (d descriptor) close() error { return unix.Close(int(d)) }

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
