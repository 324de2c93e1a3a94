package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// The codecs that archives use, spelled exactly as they must be.
const (
	codecZstd = "zstd"
	codecZlib = "zlib"
)

// MaxWindow is the largest zstd window, and the largest zstd frame without a
// window, that is decoded, in bytes; it bounds the memory of a decoder. What
// archives are written with needs 8 MiB at most.
const MaxWindow = 64 << 20

// codecOf is the codec of a blob that begins with head.
func codecOf(a schemas.Artifact, head []byte) (string, error) {
	switch a.Codec {
	case codecZstd, codecZlib:
		return a.Codec, nil
	case "":
	default:
		return "", fault.New(schemas.CodeCodecUnsupported, "artifact %s: codec %q is neither zstd nor zlib", a.ID, a.Codec)
	}
	switch {
	case len(head) >= 4 && isZstd(binary.LittleEndian.Uint32(head)):
		return codecZstd, nil
	case len(head) >= 2 && head[0]&0x0f == 8 && head[0]>>4 <= 7 && binary.BigEndian.Uint16(head)%31 == 0:
		return codecZlib, nil
	}
	return "", fault.New(schemas.CodeCodecUnsupported, "artifact %s: no codec is declared and the bytes are neither zstd nor zlib", a.ID)
}

func isZstd(magic uint32) bool { return magic == 0xFD2FB528 || magic&^0xf == 0x184D2A50 }

// Decode decompresses the stored bytes of a small artifact. The result has
// exactly a.Size bytes and lies in dst's memory if that has room for one byte
// more; what dst held is overwritten.
//
// The codec is a.Codec; if that is empty, it is recognised by the blob's first
// bytes. zstd blobs may have several frames: they are read on until the declared
// size is there, and what follows that frame is ignored. The codes of errors
// are CodeCodecUnsupported (another codec, a zstd dictionary, or a window over
// MaxWindow), CodeDecodeFailed (damaged bytes) and CodeIntegrityMismatch (more
// or fewer bytes than declared; decoding stops there, however many would come).
//
// It is safe for concurrent use, starts no goroutine, and needs no memory
// besides the result and a decoder from a pool.
func Decode(a schemas.Artifact, blob, dst []byte) ([]byte, error) {
	codec, err := codecOf(a, blob)
	if err != nil {
		return nil, err
	}
	// A size that only the archive vouches for reserves no more than MaxWindow.
	dst = slices.Grow(dst[:0], int(min(max(a.Size, 0), MaxWindow))+1)
	if codec == codecZstd && a.Size > 0 {
		d := zstdPool.get()
		out, err := d.DecodeAll(blob, dst)
		zstdPool.put(d)
		if err == nil && int64(len(out)) == a.Size {
			return out, nil
		}
		// Read it again frame by frame, to learn exactly what is wrong, or
		// that only what follows the content is.
	}
	return readContent(a, codec, blob, dst)
}

func readContent(a schemas.Artifact, codec string, blob, dst []byte) ([]byte, error) {
	in := bytes.NewReader(blob)
	defer in.Reset(nil) // a pooled decoder must not keep the blob alive
	c, err := newContent(a, codec, in)
	if err != nil {
		return nil, err
	}
	defer c.release()
	for {
		n, err := c.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return nil, err
		}
		dst = slices.Grow(dst, 1)
	}
}

// decodeFault gives an error of a decoder its code. Errors of reading the
// compressed bytes have one already.
func decodeFault(a schemas.Artifact, err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok || isContextError(err) {
		return err
	}
	code := schemas.CodeDecodeFailed
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fault.New(schemas.CodeCodecUnsupported, "artifact %s: its zstd window is larger than %d MiB", a.ID, MaxWindow>>20)
	case errors.Is(err, zstd.ErrUnknownDictionary):
		code = schemas.CodeCodecUnsupported
	}
	return fault.New(code, "artifact %s: %w", a.ID, err)
}
