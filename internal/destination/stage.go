package destination

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// stagePrefix begins the name of every staging directory. Outputs may not use it.
const stagePrefix = ".exhume-"

var stageName = regexp.MustCompile(`^\.exhume-[0-9a-f]{8}$`)

// lockName is the file in a staging directory that its process holds a lock on
// for as long as it lives. It is a file because some network file systems lock
// directories on one host only.
const lockName = "lock"

// stage is a directory for temporary files.
type stage struct {
	top  descriptor // where it lies
	name string
	dir  descriptor
	lock descriptor
	next atomic.Int64
}

// newStage makes a staging directory in the directory top and sweeps those that
// dead processes left there.
func newStage(top descriptor) (*stage, error) {
	top, err := top.open(".", dirFlags, 0)
	if err != nil {
		return nil, err
	}
	sweep(top)
	// A sweeper may take a directory that was made but not locked yet for one of
	// the dead; then the next name is tried.
	for range 16 {
		s := &stage{top: top, name: stagePrefix + uuid.NewString()[:8]}
		if err = s.make(); err == nil {
			return s, nil
		}
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
	}
	_ = top.close()
	return nil, err
}

func (s *stage) make() (err error) {
	if err := s.top.mkdir(s.name, 0o700); err != nil {
		return err
	}
	if s.dir, err = s.top.open(s.name, dirFlags, 0); err != nil {
		return err
	}
	if s.lock, err = lock(s.dir, unix.O_EXCL); err != nil {
		_ = s.dir.close()
		_ = s.top.rmdir(s.name)
	}
	return err
}

// temp is the name of the next temporary file.
func (s *stage) temp() string { return strconv.FormatInt(s.next.Add(1), 10) }

// close removes the directory.
func (s *stage) close() error {
	emptied := empty(s.dir)
	err := s.top.rmdir(s.name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		err = nil // a sweeper has removed it, or is about to
	}
	return errors.Join(emptied, err, s.lock.close(), s.dir.close(), s.top.close())
}

// sweep removes the staging directories in top whose owners are gone. What
// cannot be removed stays for the next sweep: it is in nobody's way.
func sweep(top descriptor) {
	_ = eachName(top, func(name string) {
		if stageName.MatchString(name) {
			sweepOne(top, name)
		}
	})
}

func sweepOne(top descriptor, name string) {
	dir, err := top.open(name, dirFlags, 0)
	if err != nil {
		return
	}
	defer dir.close() //nolint:errcheck // opened for reading
	held, err := lock(dir, 0)
	if err != nil {
		return
	}
	defer held.close() //nolint:errcheck // nothing was written
	if empty(dir) == nil {
		_ = top.rmdir(name)
	}
}

// empty removes the files of a staging directory that the caller has locked.
// The lock goes last: without it, somebody else may take the directory.
func empty(dir descriptor) error {
	err := eachName(dir, func(name string) {
		if name != lockName {
			_ = dir.unlink(name)
		}
	})
	if err == nil {
		err = dir.unlink(lockName)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lock takes the lock in a staging directory without waiting for it. The lock
// file is made where it is missing or, under O_EXCL, must be missing.
func lock(dir descriptor, flags int) (descriptor, error) {
	f, err := dir.open(lockName, unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK|flags, 0o600)
	if err != nil {
		return 0, err
	}
	err = unix.Flock(int(f), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil && linked(dir, lockName, f):
		return f, nil
	case err == nil:
		err = unix.EWOULDBLOCK // the file was somebody else's, who has removed it since
	case !errors.Is(err, unix.EWOULDBLOCK):
		_ = dir.unlink(lockName) // there are no locks here
	}
	_ = f.close()
	return 0, err
}

// linked says whether the open file still has that name.
func linked(dir descriptor, name string, f descriptor) bool {
	var open unix.Stat_t
	st, err := dir.stat(name)
	return err == nil && unix.Fstat(int(f), &open) == nil && st.Ino == open.Ino && st.Dev == open.Dev
}

// eachName calls f for each name in dir.
func eachName(dir descriptor, f func(name string)) error {
	own, err := dir.open(".", dirFlags, 0) // a position of our own
	if err != nil {
		return err
	}
	names := os.NewFile(uintptr(own), ".")
	defer names.Close() //nolint:errcheck // opened for reading
	for {
		batch, err := names.Readdirnames(1024)
		for _, name := range batch {
			f(name)
		}
		if len(batch) == 0 || err != nil {
			return nil
		}
	}
}
