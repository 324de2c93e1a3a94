package destination

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// compareBuffers are for reading what is compared.
var compareBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// compare says whether name in dir is a regular file with this content, and
// makes that content durable if asked to: whoever wrote it may not have.
func compare(ctx context.Context, dir descriptor, name string, size int64, digest string, sync bool) (same bool, modified time.Time, err error) {
	st, err := dir.stat(name)
	modified = time.Unix(st.Mtim.Unix())
	if err != nil || !regular(st, size) {
		return false, modified, err
	}
	// The name may have changed its meaning since: neither a symlink nor a FIFO
	// may take us elsewhere or hang us.
	f, err := dir.open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, modified, err
	}
	defer f.close() //nolint:errcheck // opened for reading
	if err := unix.Fstat(int(f), &st); err != nil || !regular(st, size) {
		return false, modified, err
	}
	got, err := digestOf(ctx, f, size)
	if same = err == nil && got == digest; same && sync {
		err = f.sync()
	}
	return same && err == nil, time.Unix(st.Mtim.Unix()), err
}

func regular(st unix.Stat_t, size int64) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == size
}

// digestOf is the SHA-256 of the file, which is read to one byte more than size.
func digestOf(ctx context.Context, f descriptor, size int64) (string, error) {
	buf := compareBuffers.Get().(*[64 << 10]byte)
	defer compareBuffers.Put(buf)
	h := sha256.New()
	for left := size + 1; left > 0; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.read(buf[:min(left, int64(len(buf)))])
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		h.Write(buf[:n])
		left -= int64(n)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
