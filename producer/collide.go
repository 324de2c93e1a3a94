package producer

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// collider finds the outputs that cannot all be restored: two that are the same
// file on some system, or one that lies beneath another.
//
// It sorts keys. A key is the folded output with separator for each slash, an
// end byte, row and line, and the output itself where folding changed it. Both
// bytes are below all that an output can contain, so a path comes directly
// before everything beneath it, and of equal paths the earliest row comes first.
type collider struct {
	keys *sorter
	fold cases.Caser
	buf  []byte
}

const (
	end       = 0
	separator = 1
)

func newCollider(ctx context.Context, tempDir string) *collider {
	return &collider{keys: newSorter(ctx, tempDir), fold: cases.Fold()}
}

func (c *collider) close() { c.keys.close() }

// add takes in a clean output. Rows must come in order.
func (c *collider) add(at place, output string) error {
	line := uint64(at.line) << 1
	if at.shared {
		line |= 1
	}
	b, changed := c.appendFolded(c.buf[:0], output)
	b = append(b, end)
	b = binary.BigEndian.AppendUint64(b, uint64(at.row))
	b = binary.BigEndian.AppendUint64(b, line)
	if changed {
		b = append(b, output...)
	}
	c.buf = b
	return c.keys.add(string(b))
}

// appendFolded appends what is common to all outputs that a file system without
// case or Unicode forms takes for one.
func (c *collider) appendFolded(b []byte, output string) (_ []byte, changed bool) {
	start := len(b)
	for i := range len(output) {
		switch o := output[i]; {
		case o >= 0x80:
			// Folding is right for decomposed text only; composing keeps keys short.
			folded := norm.NFC.String(c.fold.String(norm.NFD.String(output)))
			return append(b[:start], strings.ReplaceAll(folded, "/", string(rune(separator)))...), folded != output
		case o == '/':
			b = append(b, separator)
		case 'A' <= o && o <= 'Z':
			changed = true
			b = append(b, o|0x20)
		default:
			b = append(b, o)
		}
	}
	return b, changed
}

// claim is a row's claim to an output.
type claim struct {
	place
	path     string // folded, with separators
	original string // the output where folding changed it
	// first is the earliest of this claim and those to paths above it; below
	// the earliest of those to paths beneath it, without a row if there is none.
	first, below *claim
	rejected     bool
}

func parseClaim(key string) *claim {
	path, rest, _ := strings.Cut(key, string(rune(end)))
	row, line := rest[:8], rest[8:16]
	n := binary.BigEndian.Uint64([]byte(line))
	return &claim{
		place:    place{row: int64(binary.BigEndian.Uint64([]byte(row))), line: int64(n >> 1), shared: n&1 == 1},
		path:     path,
		original: rest[16:],
	}
}

func (c *claim) output() string {
	if c.original != "" {
		return c.original
	}
	return strings.ReplaceAll(c.path, string(rune(separator)), "/")
}

func (c *claim) isAbove(d *claim) bool {
	return len(d.path) > len(c.path) && d.path[len(c.path)] == separator && d.path[:len(c.path)] == c.path
}

func earlier(a, b *claim) *claim {
	if a == nil || b != nil && b.row < a.row {
		return b
	}
	return a
}

// find rejects, of any two outputs that collide, the later row, each row once.
func (c *collider) find(reject func(place, string)) error {
	var above []*claim // the claims to paths above the current one, longest last
	leave := func() {
		last := above[len(above)-1]
		above = above[:len(above)-1]
		if !last.rejected && last.below != nil && last.below.row < last.row {
			reject(last.place, fmt.Sprintf("%v already uses %s as a directory, so it cannot be a file", last.below.place, quote(last.output())))
		}
		if len(above) > 0 {
			up := above[len(above)-1]
			up.below = earlier(up.below, earlier(last, last.below))
		}
	}
	for key, err := range c.keys.all() {
		if err != nil {
			return err
		}
		next := parseClaim(key)
		if n := len(above); n > 0 && above[n-1].path == next.path {
			reject(next.place, sameOutput(above[n-1], next))
			continue
		}
		for len(above) > 0 && !above[len(above)-1].isAbove(next) {
			leave()
		}
		next.first = next
		if n := len(above); n > 0 {
			if first := above[n-1].first; first.row < next.row {
				next.rejected, next.first = true, first
				reject(next.place, fmt.Sprintf("%v already uses %s as a file, so it cannot be a directory", first.place, quote(first.output())))
			}
		}
		above = append(above, next)
	}
	for len(above) > 0 {
		leave()
	}
	return nil
}

func sameOutput(first, next *claim) string {
	reason := fmt.Sprintf("same output as %v", first.place)
	if first.original != next.original {
		reason += " but for letter case or Unicode form"
	}
	return reason
}
