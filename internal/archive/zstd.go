package archive

import (
	"bufio"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// zstdPool holds decoders that work in the calling goroutine only; such a
// decoder needs no closing.
var zstdPool = pool[*zstd.Decoder]{make: func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}}

// zstdFrames decodes the frames of a zstd stream one by one.
type zstdFrames struct {
	*zstd.Decoder
	in frameReader
}

func openZstd(in *bufio.Reader) (frames, error) {
	f := &zstdFrames{Decoder: zstdPool.get(), in: frameReader{in: in}}
	if err := f.next(); err != nil {
		f.release()
		return nil, err
	}
	return f, nil
}

func (f *zstdFrames) next() error {
	if err := f.in.begin(); err != nil {
		return err
	}
	return f.Reset(&f.in)
}

func (f *zstdFrames) release() {
	_ = f.Reset(nil) // lets go of the input
	zstdPool.put(f.Decoder)
}

// frameReader passes on exactly one zstd frame and then io.EOF. The decoder
// itself reads over the ends of frames, but it matters here where they are:
// what follows the frame that completes the content is ignored.
type frameReader struct {
	in       *bufio.Reader
	left     int // bytes of the current part still to be passed on
	checksum int // bytes after the last block
	last     bool
}

// begin finds the next frame, over skippable ones; io.EOF when there is none.
func (r *frameReader) begin() error {
	for {
		head, err := r.in.Peek(zstd.HeaderMaxSize)
		if len(head) == 0 {
			return err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		var h zstd.Header
		if err := h.Decode(head); err != nil {
			return err
		}
		if !h.Skippable {
			*r = frameReader{in: r.in, left: h.HeaderSize}
			if h.HasCheckSum {
				r.checksum = 4
			}
			return nil
		}
		for _, n := range []int{h.HeaderSize, int(h.SkippableSize)} {
			if _, err := r.in.Discard(n); err != nil {
				return noEOF(err)
			}
		}
	}
}

func (r *frameReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		if r.last {
			return 0, io.EOF
		}
		if err := r.block(); err != nil {
			return 0, noEOF(err)
		}
	}
	n, err := r.in.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, noEOF(err)
}

// block measures the block that comes next: a header of three bytes with a
// flag for the last one, a type and a size, then that many bytes.
func (r *frameReader) block() error {
	const runLength = 1 // a block type whose data is a single byte
	head, err := r.in.Peek(3)
	if err != nil {
		return err
	}
	v := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	r.left = 3 + v>>3
	if v>>1&3 == runLength {
		r.left = 3 + 1
	}
	if r.last = v&1 != 0; r.last {
		r.left += r.checksum
	}
	return nil
}
