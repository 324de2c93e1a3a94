package archive

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// blobChunk is how many stored bytes the decoder of a stream is given at a time.
const blobChunk = 256 << 10

// Open streams the decoded content of one artifact, however large, with memory
// for a piece of the stored bytes (at most 2 MiB, or 16 MiB from MariaDB) and a
// decoder's window (at most MaxWindow, commonly 8 MiB). Its errors are those of
// Decode and of the archive. The stream must be read until io.EOF: only that says
// that the length is right; the caller checks the SHA-256.
//
// The stream of a SQLite archive holds a read transaction until it is closed.
// That of a server asks for piece after piece, and fails with CodeArchiveBusy if
// the artifact is stored anew meanwhile. A stream must be used by one goroutine
// at a time. It ends with ctx.
func (r *Reader) Open(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
	blob, err := r.source.blob(ctx, a)
	if err != nil {
		return nil, err
	}
	return DecodeStream(a, blob)
}

// DecodeStream decodes the stored bytes of an artifact as they come; see
// Reader.Open. It closes blob with the stream, or at once when it fails.
func DecodeStream(a schemas.Artifact, blob io.ReadCloser) (io.ReadCloser, error) {
	// What is small is rarely stored in more bytes than it has.
	in := bufio.NewReaderSize(blob, int(min(max(a.Size, 0)+512, blobChunk)))
	c, err := streamContent(a, in)
	if err != nil {
		_ = blob.Close()
		return nil, err
	}
	return &stream{content: c, in: in, blob: blob}, nil
}

func streamContent(a schemas.Artifact, in *bufio.Reader) (*content, error) {
	head, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	codec, err := codecOf(a, head)
	if err != nil {
		return nil, err
	}
	return newContent(a, codec, in)
}

// stream is the decoded content of a blob that is read in pieces.
type stream struct {
	*content
	in   *bufio.Reader
	blob io.ReadCloser // nil once it is closed
}

// Close gives everything back. A second Close does nothing.
func (s *stream) Close() error {
	if s.blob == nil {
		return nil
	}
	s.err = fault.New(schemas.CodeInternal, "artifact %s: read after close", s.a.ID)
	s.release()
	s.in.Reset(nil) // a pooled decoder must not keep the blob's reader alive
	blob := s.blob
	s.blob = nil
	return blob.Close()
}

// noBytes is the error for an artifact whose bytes are not there (any more).
func noBytes(a schemas.Artifact) error {
	if StateOf(-1, a.URL) == StatePurged {
		return fault.New(schemas.CodeArtifactPurged, "artifact %s: its bytes were purged", a.ID)
	}
	return fault.New(schemas.CodeArtifactMissing, "artifact %s: the archive has no bytes of it", a.ID)
}
