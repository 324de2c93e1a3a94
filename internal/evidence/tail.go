package evidence

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/exhume/exhume/schemas"
)

// refresh makes file and pos those of the file that the path names now, which
// others may have appended to, renamed or removed since the last append.
func (l *Log) refresh() error {
	if err := l.reopen(); err != nil {
		return err
	}
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("evidence log: %w", err)
	}
	if l.known && info.Size() == l.pos.Offset {
		return nil
	}
	if info.Size() < l.pos.Offset {
		l.known = false
	}
	pos, err := l.repair(info.Size())
	if err == nil && !l.known {
		// A process that died may have written lines without syncing them, and they
		// are relied on from here on.
		err = l.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("evidence log %s: %w", l.path, err)
	}
	l.pos, l.known = pos, true
	return nil
}

func (l *Log) reopen() error {
	if l.file != nil {
		ours, err := l.file.Stat()
		if err != nil {
			return fmt.Errorf("evidence log: %w", err)
		}
		if named, err := os.Stat(l.path); err == nil && os.SameFile(ours, named) {
			return nil
		}
		if err := l.forget(); err != nil {
			return fmt.Errorf("evidence log: %w", err)
		}
	}
	return l.open()
}

// repair mends a torn last line and finds the position at the end.
func (l *Log) repair(size int64) (schemas.EvidencePosition, error) {
	end, torn, err := readBackward(l.file, size).line(size)
	if err != nil {
		return schemas.EvidencePosition{}, err
	}
	switch {
	case len(torn) == 0:
	case json.Valid(torn):
		if _, err := l.file.Write([]byte{'\n'}); err != nil {
			return schemas.EvidencePosition{}, err
		}
		end = size + 1
	default:
		if err := l.file.Truncate(end); err != nil {
			return schemas.EvidencePosition{}, err
		}
	}
	return l.endsAt(end)
}

// endsAt finds the position at offset, which is just after a newline or 0. It
// reads backward to the last line that has a sequence number, at most to the
// position that is known already.
func (l *Log) endsAt(offset int64) (schemas.EvidencePosition, error) {
	if offset == l.pos.Offset && l.known {
		return l.pos, nil
	}
	pos := schemas.EvidencePosition{Offset: offset, Prev: noLine}
	back := readBackward(l.file, offset)
	for end := offset; end > 0; {
		start, text, err := back.line(end - 1)
		if err != nil {
			return pos, err
		}
		if end == offset {
			pos.Prev = hashLine(text)
		}
		if s, ours := readStamp(text); ours {
			pos.Seq = s.Seq
			break
		}
		if end = start; l.known && end <= l.pos.Offset {
			pos.Seq = l.pos.Seq
			break
		}
	}
	return pos, nil
}
