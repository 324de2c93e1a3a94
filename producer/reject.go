package producer

import "fmt"

// Reject is one row that cannot be restored, and why. As an error it is the
// flaw that made a manifest unreadable from there on.
type Reject struct {
	// File is the manifest's name, "stdin" for standard input.
	File string
	// Line is where the row begins, from 1.
	Line int64
	// Reason is one line for people.
	Reason string
}

// String is "file:line: reason".
func (r Reject) String() string { return fmt.Sprintf("%s:%d: %s", r.File, r.Line, r.Reason) }

// Error is String.
func (r Reject) Error() string { return r.String() }

// place is where a row stands.
type place struct {
	row, line int64 // both from 1
	// shared: an earlier row begins on the same line, so that the line alone
	// does not tell which row is meant.
	shared bool
}

func (p place) String() string {
	if p.shared {
		return fmt.Sprintf("row %d", p.row)
	}
	return fmt.Sprintf("line %d", p.line)
}

// reject makes the row at p a reject of the named file.
func (p place) reject(file, reason string) Reject {
	if p.shared {
		reason += fmt.Sprintf(" (row %d)", p.row)
	}
	return Reject{File: file, Line: p.line, Reason: reason}
}

// rowSet is a set of row numbers, one bit each up to the highest in it.
type rowSet struct{ words []uint64 }

func (s *rowSet) add(row int64) {
	if missing := int(row/64) + 1 - len(s.words); missing > 0 {
		s.words = append(s.words, make([]uint64, missing)...)
	}
	s.words[row/64] |= 1 << (row % 64)
}

func (s *rowSet) has(row int64) bool {
	return row/64 < int64(len(s.words)) && s.words[row/64]&(1<<(row%64)) != 0
}
