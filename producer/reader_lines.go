package producer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// readLines visits the rows of JSON lines. Each line stands alone, so a broken
// one is a bad row and the next is read all the same.
func readLines(t text, visit func(*record) error) error {
	var objects objectDecoder
	for line := int64(1); ; line++ {
		row, err := t.ReadSlice('\n')
		tooLong := false
		for errors.Is(err, bufio.ErrBufferFull) {
			tooLong = true
			_, err = t.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return t.readFlaw(line, err)
		}
		if row = bytes.Trim(row, " \t\r\n"); tooLong || len(row) > 0 {
			rec := record{place: place{line: line}, bad: errRowTooLong}
			if !tooLong {
				rec.bad = objects.decode(row, &rec)
			}
			if err := visit(&rec); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}
