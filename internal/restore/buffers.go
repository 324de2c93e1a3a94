package restore

import (
	"io"
	"sync"
	"time"
)

// buffers are decoding buffers of small artifacts.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// timed adds up the time that reading takes.
type timed struct {
	r     io.Reader
	spent *time.Duration
}

func (t *timed) Read(p []byte) (int, error) {
	start := time.Now()
	n, err := t.r.Read(p)
	*t.spent += time.Since(start)
	return n, err
}
