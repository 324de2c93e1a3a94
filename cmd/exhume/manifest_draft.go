package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"

	"github.com/exhume/exhume/producer"
)

// draft are the rows of a manifest in the making, in a temporary file, so that
// nothing is written before all of it is known to be good.
type draft struct {
	file *os.File
	w    *bufio.Writer
	enc  *json.Encoder
	// items counts the rows, bytes the size of what they restore.
	items, bytes int64
}

// draftRow is one row, which is a manifest's, too.
type draftRow struct {
	Tombstone string `json:"tombstone"`
	Output    string `json:"output"`
	Size      int64  `json:"size"`
}

func newDraft() (*draft, error) {
	f, err := os.CreateTemp("", "exhume-draft-*")
	if err != nil {
		return nil, fmt.Errorf("manifest: %w; TMPDIR says where temporary files go", err)
	}
	// Where the system allows it the name goes at once, so that nothing is left
	// over even if this process is killed. close tries again where it does not.
	_ = os.Remove(f.Name())
	w := bufio.NewWriterSize(f, 1<<16)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &draft{file: f, w: w, enc: enc}, nil
}

func (d *draft) close() error {
	err := d.file.Close()
	if e := os.Remove(d.file.Name()); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

func (d *draft) add(row draftRow) error {
	d.items++
	d.bytes += row.Size
	return d.enc.Encode(row)
}

// reader reads what was added so far.
func (d *draft) reader() (io.Reader, error) {
	return io.NewSectionReader(d.file, 0, math.MaxInt64), d.w.Flush()
}

// all goes through the rows in order. After an error the sequence ends.
func (d *draft) all() iter.Seq2[draftRow, error] {
	return func(yield func(draftRow, error) bool) {
		r, err := d.reader()
		dec := json.NewDecoder(r)
		for n := int64(0); n < d.items && err == nil; n++ {
			var row draftRow
			if err = dec.Decode(&row); err == nil && !yield(row, nil) {
				return
			}
		}
		if err != nil {
			yield(draftRow{}, fmt.Errorf("manifest: reading the draft: %w", err))
		}
	}
}

// rows are the rows as they are delivered.
func (d *draft) rows(actor string) iter.Seq2[manifestRow, error] {
	return func(yield func(manifestRow, error) bool) {
		for row, err := range d.all() {
			if !yield(manifestRow{row.Tombstone, row.Output, actor}, err) {
				return
			}
		}
	}
}

// collisions finds the rows, by their lines, that cannot be restored because of
// a row before them, and why the first of them cannot: what batch-restore will
// say of them.
func (d *draft) collisions(ctx context.Context) (older lineSet, reasons map[int64]string, err error) {
	r, err := d.reader()
	if err != nil {
		return older, nil, err
	}
	m, err := producer.OpenManifest("-", r, rowOptions())
	if err != nil {
		return older, nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	reasons = map[int64]string{}
	_, err = m.Check(ctx, func(x producer.Reject) {
		older.add(x.Line)
		if len(reasons) < shownCollisions {
			reasons[x.Line] = x.Reason
		}
	})
	return older, reasons, err
}

// lineSet is a set of line numbers, one bit each up to the highest in it.
type lineSet struct {
	words []uint64
	count int64
}

// add takes in a line that is not in the set.
func (s *lineSet) add(line int64) {
	if missing := line/64 + 1 - int64(len(s.words)); missing > 0 {
		s.words = append(s.words, make([]uint64, missing)...)
	}
	s.words[line/64] |= 1 << (line % 64)
	s.count++
}

func (s *lineSet) has(line int64) bool {
	return line/64 < int64(len(s.words)) && s.words[line/64]&(1<<(line%64)) != 0
}
