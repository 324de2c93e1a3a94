package producer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// readDocument visits the rows of a JSON document: a list, or an object with a
// list "items" among other keys. Bad syntax ends the reading.
func readDocument(t text, visit func(*record) error) error {
	d := newDocument(t)
	open, err := d.dec.Token()
	if err != nil {
		return d.flaw(err)
	}
	if open == json.Delim('[') {
		err = d.list(visit)
	} else {
		err = d.object(visit)
	}
	if err != nil {
		return err
	}
	d.limit.next()
	if _, err = d.dec.Token(); err == nil {
		return t.flaw(d.line(), "there is something after the end of the JSON document")
	}
	if !errors.Is(err, io.EOF) {
		return d.flaw(err)
	}
	return nil
}

// document reads one JSON document as a stream.
type document struct {
	text  text
	dec   *json.Decoder
	limit *rowLimit
	lines *lineTracker
}

func newDocument(t text) *document {
	lines := &lineTracker{r: t, line: 1}
	limit := &rowLimit{r: lines, left: maxRow}
	return &document{text: t, dec: json.NewDecoder(limit), limit: limit, lines: lines}
}

// line is the line that has been read up to.
func (d *document) line() int64 { return d.lines.at(d.dec.InputOffset()) }

// object reads an object's keys after its brace, to the closing one.
func (d *document) object(visit func(*record) error) error {
	found := false
	for d.dec.More() {
		d.limit.next()
		key, err := d.dec.Token()
		if err != nil {
			return d.flaw(err)
		}
		if key != "items" {
			if err := d.value(new(json.RawMessage), true); err != nil {
				return err
			}
			continue
		}
		if found {
			return d.text.flaw(d.line(), `"items" stands twice`)
		}
		found = true
		open, err := d.dec.Token()
		if err != nil {
			return d.flaw(err)
		}
		if open != json.Delim('[') {
			return d.text.flaw(d.line(), `"items" must be a list`)
		}
		if err := d.list(visit); err != nil {
			return err
		}
	}
	if _, err := d.dec.Token(); err != nil {
		return d.flaw(err)
	}
	if !found {
		return d.text.flaw(d.line(), `the object has neither a list "items" nor, as one of many lines, a "tombstone"`)
	}
	return nil
}

// list reads a list's rows after its bracket, to the closing one.
func (d *document) list(visit func(*record) error) error {
	var objects objectDecoder
	var row json.RawMessage
	d.limit.next()
	for first := true; d.dec.More(); first = false {
		if err := d.value(&row, !first); err != nil {
			return err
		}
		start := d.dec.InputOffset() - int64(len(row))
		rec := record{place: place{line: d.lines.at(start)}}
		if len(row) > maxRow {
			return d.text.flaw(rec.line, "%v", errRowTooLong)
		}
		rec.bad = objects.decode(row, &rec)
		if err := visit(&rec); err != nil {
			return err
		}
		d.limit.next()
	}
	if _, err := d.dec.Token(); err != nil {
		return d.flaw(err)
	}
	return nil
}

// value reads the next value. separated says that a comma or colon must come
// before it.
func (d *document) value(into *json.RawMessage, separated bool) error {
	d.dec.More() // goes to the separator
	before := d.dec.InputOffset()
	err := d.dec.Decode(into)
	if err == nil {
		return nil
	}
	// The decoder does not tell where in a value the flaw is. It has kept the
	// value from its first byte on, if it came past the separator at all.
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok && (!separated || d.dec.InputOffset() > before) {
		begun, _ := io.ReadAll(d.dec.Buffered())
		if errors.As(json.Unmarshal(begun, into), &syntax) {
			return d.text.flaw(d.lines.at(d.dec.InputOffset()+syntax.Offset-1), "not valid JSON: %v", syntax)
		}
	}
	return d.flaw(err)
}

// flaw is the flaw of a document that cannot be read on.
func (d *document) flaw(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		err = fmt.Errorf("not valid JSON: %w", syntax)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return d.text.readFlaw(d.lines.last(), err)
	}
	begun, _ := io.ReadAll(d.dec.Buffered())
	blanks := len(begun) - len(bytes.TrimLeft(begun, " \t\r\n"))
	return d.text.readFlaw(d.lines.at(d.dec.InputOffset()+int64(blanks)), err)
}

// lineTracker tells the lines of offsets in what is read through it.
type lineTracker struct {
	r        io.Reader
	off      int64   // bytes read
	newlines []int64 // offsets of the newlines not yet passed
	line     int64   // line after the newlines that were passed
}

func (l *lineTracker) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	for i, c := range p[:n] {
		if c == '\n' {
			l.newlines = append(l.newlines, l.off+int64(i))
		}
	}
	l.off += int64(n)
	return n, err
}

// at is the line of the byte at off. Offsets must not go backwards.
func (l *lineTracker) at(off int64) int64 {
	for len(l.newlines) > 0 && l.newlines[0] < off {
		l.newlines = l.newlines[1:]
		l.line++
	}
	return l.line
}

// last is the line of the last byte read so far.
func (l *lineTracker) last() int64 { return l.at(l.off - 1) }
