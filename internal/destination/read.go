package destination

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/internal/objects"
)

// Content is what stands under an output.
type Content struct {
	// Kind is what stands there instead of a regular file or an object, such as
	// "a symlink"; empty otherwise.
	Kind string
	// Size is in bytes.
	Size int64
	// SHA256 (lower-case hex) is that of the bytes as they were read; empty where
	// size or kind tell already that they are not those expected.
	SHA256 string
}

// Read reads what stands under output, where size bytes are expected. Nothing is
// read beyond the root, nor by way of a symlink with the output's own name. Where
// nothing stands the error is fs.ErrNotExist.
func (v *TreeView) Read(ctx context.Context, output string, size int64) (c Content, err error) {
	if err := checkOutput(output); err != nil {
		return c, err
	}
	if !v.Exists() {
		return c, fs.ErrNotExist
	}
	dir, err := v.tree.walk(path.Dir(output))
	if err == nil {
		defer dir.close() //nolint:errcheck // opened for reading
		c, err = read(ctx, dir, path.Base(output), size)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return c, fs.ErrNotExist
	}
	return c, classify(output, err)
}

func read(ctx context.Context, dir descriptor, name string, size int64) (Content, error) {
	st, err := dir.stat(name)
	if err != nil {
		return Content{}, err
	}
	if c := contentOf(st); c.Kind != "" || c.Size != size {
		return c, nil
	}
	// As in compare: the name may have changed its meaning since.
	f, err := dir.open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Content{}, err
	}
	defer f.close() //nolint:errcheck // opened for reading
	if err := unix.Fstat(int(f), &st); err != nil {
		return Content{}, err
	}
	c := contentOf(st)
	if c.Kind != "" || c.Size != size {
		return c, nil
	}
	c.SHA256, err = digestOf(ctx, f, size)
	return c, err
}

// contentOf is what a file's description tells of its content.
func contentOf(st unix.Stat_t) Content {
	c := Content{Size: st.Size}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFLNK:
		c.Kind = "a symlink"
	case unix.S_IFDIR:
		c.Kind = "a directory"
	default:
		c.Kind = "a special file"
	}
	return c
}

// Read reads what stands under output, where size bytes are expected, whatever
// the SHA-256 is that is kept beside it. Where nothing stands the error is
// fs.ErrNotExist.
func (v *BucketView) Read(ctx context.Context, output string, size int64) (c Content, err error) {
	key, err := v.bucket.key(output)
	if err != nil {
		return c, err
	}
	c, err = v.bucket.read(ctx, key, size)
	if objects.Is(err, objects.Missing) {
		return c, fs.ErrNotExist
	}
	return c, classifyObject("output", output, err)
}

func (b *Bucket) read(ctx context.Context, key string, size int64) (Content, error) {
	body, o, err := b.store.Get(ctx, b.name, key)
	if err != nil {
		return Content{}, err
	}
	defer body.Close() //nolint:errcheck // opened for reading
	c := Content{Size: o.Size}
	if c.Size != size {
		return c, nil
	}
	buf := compareBuffers.Get().(*[64 << 10]byte)
	defer compareBuffers.Put(buf)
	h := sha256.New()
	if _, err := io.CopyBuffer(h, io.LimitReader(body, size+1), buf[:]); err != nil {
		return c, err
	}
	c.SHA256 = hex.EncodeToString(h.Sum(nil))
	return c, nil
}
