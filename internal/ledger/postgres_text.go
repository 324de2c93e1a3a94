package ledger

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// PostgreSQL's texts hold neither NUL nor bytes that are no UTF-8, and what
// manifests and archives name may have both. One such name must not keep the
// results beside it from being recorded, nor come back as another.

// escape stands before the two hexadecimal digits of a byte that PostgreSQL
// would refuse.
const escape = '\x1a'

// storable gives arguments of a statement as PostgreSQL takes them.
func storable(args []any) []any {
	args = slices.Clone(args)
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = storableText(s)
		}
	}
	return args
}

func storableText(s string) string {
	if strings.IndexByte(s, 0) < 0 && strings.IndexByte(s, escape) < 0 && utf8.ValidString(s) {
		return s
	}
	const digits = "0123456789abcdef"
	var out strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == 0 || r == escape || r == utf8.RuneError && n == 1 {
			out.Write([]byte{escape, digits[s[0]>>4], digits[s[0]&15]})
		} else {
			out.WriteString(s[:n])
		}
		s = s[n:]
	}
	return out.String()
}

// stored gives back the text that was stored as s.
func stored(s string) string {
	before, rest, found := strings.Cut(s, string(escape))
	if !found {
		return s
	}
	out := []byte(before)
	for found {
		if len(rest) >= 2 {
			if b, err := strconv.ParseUint(rest[:2], 16, 8); err == nil {
				out, rest = append(out, byte(b)), rest[2:]
			}
		}
		before, rest, found = strings.Cut(rest, string(escape))
		out = append(out, before...)
	}
	return string(out)
}
