package producer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
)

// maxRow bounds one row, and everything else that is held in memory at once.
const maxRow = 1 << 20

var errRowTooLong = fmt.Errorf("the row is longer than %d MiB", maxRow>>20)

// rawReader reads the stored bytes of a manifest, hashes them and remembers why
// reading failed.
type rawReader struct {
	ctx  context.Context
	r    io.Reader
	hash hash.Hash
	err  error
}

func newRawReader(ctx context.Context, r io.ReaderAt, size int64) *rawReader {
	return &rawReader{ctx: ctx, r: io.NewSectionReader(r, 0, size), hash: sha256.New()}
}

func (r *rawReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		r.err = context.Cause(r.ctx)
		return 0, r.err
	}
	n, err := r.r.Read(p)
	r.hash.Write(p[:n])
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// text is the readable text of a manifest: unzipped, without byte order mark.
// Its buffer holds maxRow bytes.
type text struct {
	*bufio.Reader
	file string
}

// flaw is the error that makes the manifest unreadable from the line on.
func (t text) flaw(line int64, format string, args ...any) error {
	return Reject{File: t.file, Line: line, Reason: fmt.Sprintf(format, args...)}
}

// readFlaw is the flaw of a manifest whose bytes could not be read on.
func (t text) readFlaw(line int64, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return t.flaw(line, "the manifest ends too early; is it cut off?")
	}
	return t.flaw(line, "%v", err)
}

// readRows recognises the format of the manifest in raw and visits its rows.
func readRows(raw io.Reader, file string, visit func(*record) error) (format string, err error) {
	zipped := ""
	t := text{bufio.NewReaderSize(raw, maxRow), file}
	if head, _ := t.Peek(2); string(head) == "\x1f\x8b" {
		z, err := gzip.NewReader(t.Reader)
		if err != nil {
			return "", t.readFlaw(1, err)
		}
		zipped = ".gz"
		t.Reader = bufio.NewReaderSize(z, maxRow)
	}
	// An error here comes again when the rows before it have been read.
	head, _ := t.Peek(maxRow)
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) {
		return "", t.flaw(1, "the manifest is in UTF-16; save it as UTF-8")
	}
	if bom := []byte("\ufeff"); bytes.HasPrefix(head, bom) {
		head = head[len(bom):]
		_, _ = t.Discard(len(bom)) // peeked at, so it is there
	}

	format = sniff(head)
	read := map[string]func(text, func(*record) error) error{
		"json": readDocument, "jsonl": readLines, "csv": readCSV,
	}[format]
	return format + zipped, read(t, visit)
}

// sniff recognises a format by the first bytes of a manifest.
func sniff(head []byte) string {
	start := bytes.TrimLeft(head, " \t\r\n")
	switch {
	case bytes.HasPrefix(start, []byte("[")):
		return "json"
	case bytes.HasPrefix(start, []byte("{")):
		return sniffObject(start)
	default:
		return "csv"
	}
}

// sniffObject tells a document from the first of many lines. A document has a
// list of items; a line has a tombstone or, when that was forgotten, an output.
func sniffObject(head []byte) string {
	dec := json.NewDecoder(bytes.NewReader(head))
	if _, err := dec.Token(); err != nil {
		return "json"
	}
	format := "json"
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			break
		}
		switch key {
		case "tombstone":
			return "jsonl"
		case "output":
			format = "jsonl"
		case "items":
			value := bytes.TrimLeft(head[dec.InputOffset():], ": \t\r\n")
			if bytes.HasPrefix(value, []byte("[")) {
				return "json"
			}
		}
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			break
		}
	}
	return format
}

// rowLimit fails when more than maxRow bytes are read for one row, so that no
// parser above it can be made to hold more.
type rowLimit struct {
	r    io.Reader
	left int
}

// next begins a row. What was read ahead of it is not counted, so a parser
// still has to measure rows that it could read.
func (l *rowLimit) next() { l.left = maxRow }

func (l *rowLimit) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, errRowTooLong
	}
	n, err := l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
