package destination

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// volume is what a rename cannot leave: a file system as seen through one mount.
type volume struct{ device, mount uint64 }

func volumeOf(d descriptor) (volume, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(d), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return volume{}, os.NewSyscallError("statx", err)
	}
	return volume{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Mnt_id}, nil
}

// canSyncAll: syncfs flushes a whole file system in one call, which for a group
// of files costs a fraction of one fsync each.
const canSyncAll = true

// syncAll makes everything written to dir's file system durable. Since Linux
// 5.8 it also reports write-back errors.
func syncAll(dir descriptor) error {
	return os.NewSyscallError("syncfs", unix.Syncfs(int(dir)))
}

// renameNew renames a file unless the new name is taken (fs.ErrExist).
func renameNew(fromDir descriptor, from string, toDir descriptor, to string) error {
	err := unix.Renameat2(int(fromDir), from, int(toDir), to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return linkNew(fromDir, from, toDir, to)
	}
	return err
}

// freeBytes is how many bytes users may still write to the file system that p
// lies on.
func freeBytes(p string) (int64, error) {
	var st unix.Statfs_t
	_, err := retry(func() (int, error) { return 0, unix.Statfs(p, &st) })
	return int64(st.Bavail) * st.Bsize, err
}
