package archive

import (
	"io"

	"github.com/klauspost/compress/zlib"
)

var zlibPool pool[io.ReadCloser]

// zlibFrames is a zlib stream, which is always a single frame.
type zlibFrames struct{ io.ReadCloser }

func openZlib(in buffered) (frames, error) {
	if r, ok := zlibPool.take(); ok {
		if err := r.(zlib.Resetter).Reset(in, nil); err != nil {
			return nil, err
		}
		return zlibFrames{r}, nil
	}
	r, err := zlib.NewReader(in)
	if err != nil {
		return nil, err
	}
	return zlibFrames{r}, nil
}

func (zlibFrames) next() error { return io.EOF }

func (f zlibFrames) release() { zlibPool.put(f.ReadCloser) }
