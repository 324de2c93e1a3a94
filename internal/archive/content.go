package archive

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// frames is compressed content, a frame at a time. Read gives io.EOF at the end
// of a frame; next goes to the one after it and gives io.EOF when there is none.
// release gives the decoder back; nothing may be called after it.
type frames interface {
	io.Reader
	next() error
	release()
}

// content is the decoded content of one artifact. It judges the length: io.EOF
// comes only after exactly the declared number of bytes, and as soon as there is
// one byte more it is an error.
type content struct {
	frames
	a    schemas.Artifact
	left int64
	err  error
}

// buffered is what decoders read from: bufio.Reader for streams, bytes.Reader
// for what is in memory.
type buffered interface {
	io.Reader
	io.ByteReader
}

func newContent(a schemas.Artifact, codec string, in buffered) (*content, error) {
	var f frames
	var err error
	if codec == codecZstd {
		f, err = openZstd(bufio.NewReader(in))
	} else {
		f, err = openZlib(in)
	}
	if err != nil {
		return nil, decodeFault(a, noEOF(err))
	}
	return &content{frames: f, a: a, left: a.Size}, nil
}

// Read implements io.Reader. It may use one byte of p beyond what it returns.
func (c *content) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for c.err == nil {
		if int64(len(p)) > c.left {
			p = p[:max(c.left, 0)+1]
		}
		n, err := c.frames.Read(p)
		c.left -= int64(n)
		if c.left < 0 {
			c.err = fault.New(schemas.CodeIntegrityMismatch, "artifact %s: the content is longer than the declared %d bytes", c.a.ID, c.a.Size)
			return max(0, n-1), c.err
		}
		if err != nil {
			c.err = c.endOfFrame(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, c.err
}

// endOfFrame says how to go on after a frame ended with err: nil means read on.
func (c *content) endOfFrame(err error) error {
	if !errors.Is(err, io.EOF) {
		return decodeFault(c.a, err)
	}
	if c.left == 0 {
		return io.EOF
	}
	switch err := c.next(); {
	case errors.Is(err, io.EOF):
		return fault.New(schemas.CodeIntegrityMismatch, "artifact %s: the content has %d bytes instead of the declared %d",
			c.a.ID, c.a.Size-c.left, c.a.Size)
	case err != nil:
		return decodeFault(c.a, err)
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
