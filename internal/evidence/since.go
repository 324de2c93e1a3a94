package evidence

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	"github.com/exhume/exhume/schemas"
)

// Since gives exhume's records after a position, oldest first: what was
// appended by a process that died before it could note it elsewhere. Lines that
// exhume did not write and a torn last line are left out; one that lacks nothing but
// its newline is not torn, as Append sees it.
//
// The position must still be in the log: an error says so when the file is
// shorter, or when the line before the position is not the one it was taken
// after (the log was rotated, replaced or changed). An error ends the sequence.
func (l *Log) Since(ctx context.Context, pos schemas.EvidencePosition) iter.Seq2[schemas.Record, error] {
	return since(ctx, l.path, pos)
}

// Records gives all of exhume's records in the log at path, as Since does, and only
// reads. Where there is no file there are none.
func Records(ctx context.Context, path string) iter.Seq2[schemas.Record, error] {
	return func(yield func(schemas.Record, error) bool) {
		for r, err := range since(ctx, path, schemas.EvidencePosition{}) {
			if errors.Is(err, fs.ErrNotExist) || !yield(r, err) {
				return
			}
		}
	}
}

func since(ctx context.Context, path string, pos schemas.EvidencePosition) iter.Seq2[schemas.Record, error] {
	return func(yield func(schemas.Record, error) bool) {
		fail := func(err error) { yield(schemas.Record{}, fmt.Errorf("evidence log %s: %w", path, err)) }
		f, err := os.Open(path)
		if err != nil {
			fail(err)
			return
		}
		defer func() { _ = f.Close() }()
		if err := checkPosition(f, pos); err != nil {
			fail(err)
			return
		}
		if _, err := f.Seek(pos.Offset, io.SeekStart); err != nil {
			fail(err)
			return
		}
		for line, err := range lines(f, pos.Offset) {
			if err = cmp.Or(err, ctx.Err()); err != nil {
				fail(err)
				return
			}
			if _, ours := readStamp(line.text); !ours {
				continue
			}
			var r schemas.Record
			if json.Unmarshal(line.text, &r) == nil && !yield(r, nil) {
				return
			}
		}
	}
}

// checkPosition says whether the line before pos is the one it was taken after.
func checkPosition(f *os.File, pos schemas.EvidencePosition) error {
	if pos.Offset == 0 {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if pos.Offset < 0 || info.Size() < pos.Offset {
		return fmt.Errorf("it has %d bytes, but a position at byte %d was noted: it was cut short, rotated or replaced", info.Size(), pos.Offset)
	}
	back := readBackward(f, pos.Offset)
	start, _, err := back.line(pos.Offset)
	if err != nil {
		return err
	}
	if start != pos.Offset {
		return fmt.Errorf("byte %d, the position noted, is inside a line: the log was changed or replaced", pos.Offset)
	}
	if _, text, err := back.line(pos.Offset - 1); err != nil {
		return err
	} else if hashLine(text) != pos.Prev {
		return fmt.Errorf("the line that ends at byte %d is not the one noted: it was changed, or the log was replaced", pos.Offset)
	}
	return nil
}
