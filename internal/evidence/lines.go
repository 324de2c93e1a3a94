package evidence

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// maxLine bounds the memory that a file without newlines can take.
const maxLine = 16 << 20

// noLine is the hash that the first line of a log is chained to.
var noLine = strings.Repeat("0", 2*sha256.Size)

func hashLine(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// stamp is what makes a line one of exhume's, and the time and the batch that it
// names.
type stamp struct {
	Prev  string `json:"prev"`
	Seq   int64  `json:"seq"`
	TS    string `json:"ts"`
	Batch string `json:"batch"`
}

// readStamp gives the stamp of a line; false for lines that exhume did not write.
func readStamp(text []byte) (stamp, bool) {
	// Most foreign lines need no decoding: exhume's contain this, unescaped.
	if !bytes.Contains(text, []byte(`"prev":"`)) {
		return stamp{}, false
	}
	var s stamp
	err := json.Unmarshal(text, &s)
	return s, err == nil && s.Seq > 0 && len(s.Prev) == len(noLine)
}

// line is one line of a log, read forward.
type line struct {
	number int64
	// text is the line without its newline; it is valid until the next line.
	text []byte
	// end is the offset after the line.
	end int64
	// whole is false for bytes after the last newline.
	whole bool
}

// lines reads r, which begins at a line start at offset.
func lines(r io.Reader, offset int64) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		l := line{end: offset}
		s := bufio.NewScanner(r)
		s.Buffer(make([]byte, 0, 256<<10), maxLine)
		s.Split(splitKeepingNewline)
		for s.Scan() {
			l.number++
			l.end += int64(len(s.Bytes()))
			l.text, l.whole = bytes.CutSuffix(s.Bytes(), []byte{'\n'})
			if !yield(l, nil) {
				return
			}
		}
		if err := s.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("line %d is longer than %d bytes: this is no evidence log", l.number+1, maxLine)
			}
			yield(l, err)
		}
	}
}

func splitKeepingNewline(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// backward reads a file's lines from the end to the beginning.
type backward struct {
	file io.ReaderAt
	// buf holds the file's bytes from offset on.
	buf    []byte
	offset int64
}

func readBackward(file io.ReaderAt, end int64) *backward {
	return &backward{file: file, offset: end}
}

// line gives the bytes between the last newline before end and end, and the
// offset where they start. The ends asked for must not increase, and nothing
// from the start on may be asked for again.
func (b *backward) line(end int64) (start int64, text []byte, err error) {
	for {
		b.buf = b.buf[:max(0, min(end-b.offset, int64(len(b.buf))))]
		if i := bytes.LastIndexByte(b.buf, '\n'); i >= 0 {
			text, b.buf = b.buf[i+1:], b.buf[:i+1]
			return b.offset + int64(i) + 1, text, nil
		}
		if len(b.buf) > maxLine {
			return 0, nil, fmt.Errorf("the line that ends at byte %d is longer than %d bytes: this is no evidence log", end, maxLine)
		}
		if b.offset == 0 {
			text, b.buf = b.buf, nil
			return 0, text, nil
		}
		if err := b.extend(); err != nil {
			return 0, nil, err
		}
	}
}

func (b *backward) extend() error {
	const block = 64 << 10
	n := min(max(block, int64(len(b.buf))), b.offset) // doubling, for long lines
	buf := make([]byte, n, n+int64(len(b.buf)))
	if _, err := b.file.ReadAt(buf, b.offset-n); err != nil {
		return fmt.Errorf("read %d bytes at %d: %w", n, b.offset-n, err)
	}
	b.buf, b.offset = append(buf, b.buf...), b.offset-n
	return nil
}
