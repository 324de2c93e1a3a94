//go:build unix && !linux

package destination

import (
	"os"

	"golang.org/x/sys/unix"
)

// volume is what a rename cannot leave: a file system.
type volume struct{ device uint64 }

func volumeOf(d descriptor) (volume, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(d), &st)
	return volume{uint64(st.Dev)}, os.NewSyscallError("fstat", err)
}

const canSyncAll = false

func syncAll(descriptor) error { panic("unreachable: there is no syncfs on this system") }

// renameNew renames a file unless the new name is taken (fs.ErrExist).
func renameNew(fromDir descriptor, from string, toDir descriptor, to string) error {
	return linkNew(fromDir, from, toDir, to)
}

// freeBytes says -1: the systems say it in too many ways.
func freeBytes(string) (int64, error) { return -1, nil }
