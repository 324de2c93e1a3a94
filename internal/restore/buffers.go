package restore

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exhume/exhume/schemas"
)

// buffers are decoding buffers of small artifacts.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// timed reads until its context ends, and adds up the time that reading takes.
type timed struct {
	ctx   context.Context
	r     io.Reader
	spent *time.Duration
}

func (t *timed) Read(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	start := time.Now()
	n, err := t.r.Read(p)
	*t.spent += time.Since(start)
	return n, err
}

// progress counts the bytes of a content that have passed.
type progress struct{ bytes atomic.Int64 }

// Write implements io.Writer.
func (p *progress) Write(b []byte) (int, error) {
	p.bytes.Add(int64(len(b)))
	return len(b), nil
}

// of says how far an artifact came.
func (p *progress) of(a schemas.Artifact) string {
	return fmt.Sprintf("tombstone %q: %d of its %d bytes had passed", a.Tombstone, p.bytes.Load(), a.Size)
}
