package destination

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/schemas"
)

// intake takes the content of one object and checks it. It hands full parts on
// and keeps the last one, which for a small content is all of it.
type intake struct {
	output string
	buf    []byte // the part that is being filled
	left   int64  // bytes still to come
	hash   hash.Hash
	part   func([]byte) error
}

func newIntake(output string, size int64, part func([]byte) error) *intake {
	size = max(size, 0)
	return &intake{output: output, buf: make([]byte, 0, min(size, partOf(size))), left: size, hash: sha256.New(), part: part}
}

// partOf is the size of the parts of a content.
func partOf(size int64) int64 {
	return max(partSize, (size+objects.MaxParts-1)/objects.MaxParts)
}

// Write implements io.Writer.
func (in *intake) Write(p []byte) (written int, err error) {
	if int64(len(p)) > in.left {
		return 0, fault.New(schemas.CodeIntegrityMismatch, "output %q: the content is longer than declared", in.output)
	}
	in.left -= int64(len(p))
	in.hash.Write(p)
	for len(p) > 0 {
		if len(in.buf) == cap(in.buf) {
			if err := in.part(in.buf); err != nil {
				return written, err
			}
			in.buf = in.buf[:0]
		}
		n := min(len(p), cap(in.buf)-len(in.buf))
		in.buf = append(in.buf, p[:n]...)
		p = p[n:]
		written += n
	}
	return written, nil
}

// check says whether the content is the declared one.
func (in *intake) check(digest string) error {
	if got := hex.EncodeToString(in.hash.Sum(nil)); got != digest {
		return fault.New(schemas.CodeIntegrityMismatch, "output %q: the content has SHA-256 %s, %s is declared", in.output, got, digest)
	}
	return nil
}
