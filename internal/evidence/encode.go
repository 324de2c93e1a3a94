package evidence

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/exhume/exhume/schemas"
)

// appendRecord appends r as one compact JSON object without a newline: keys
// sorted, ASCII only. It holds what encoding/json would write of r, several
// times faster.
func appendRecord(b []byte, r *schemas.Record) []byte {
	b = appendString(append(b, `{"action":`...), r.Action)
	b = appendString(append(b, `,"actor":`...), r.Actor)
	b = number(b, `,"attempt":`, int64(r.Attempt))
	b = text(b, `,"backend":`, r.Backend)
	b = text(b, `,"batch":`, r.Batch)
	b = text(b, `,"change":`, string(r.Change))
	b = text(b, `,"change_id":`, r.ChangeID)
	b = text(b, `,"code":`, string(r.Code))
	b = number(b, `,"compressed_size":`, r.CompressedSize)
	b = counts(b, r.Counts)
	b = millis(b, `,"decompression_ms":`, r.DecompressionMS)
	b = millis(b, `,"duration_ms":`, r.DurationMS)
	b = optional(b, `,"index":`, r.Index)
	b = text(b, `,"manifest":`, r.Manifest)
	b = text(b, `,"manifest_sha256":`, r.ManifestSHA256)
	b = text(b, `,"mode":`, r.Mode)
	b = text(b, `,"next_try":`, r.NextTry)
	b = text(b, `,"outcome":`, string(r.Outcome))
	b = text(b, `,"overwrite":`, string(r.Overwrite))
	b = text(b, `,"path":`, r.Path)
	b = text(b, `,"phase":`, r.Phase)
	b = appendString(append(b, `,"prev":`...), r.Prev)
	b = text(b, `,"reason":`, r.Reason)
	b = text(b, `,"repo":`, r.Repo)
	b = text(b, `,"root":`, r.Root)
	b = strconv.AppendInt(append(b, `,"seq":`...), r.Seq, 10)
	b = text(b, `,"sha256":`, r.SHA256)
	b = optional(b, `,"size":`, r.Size)
	b = text(b, `,"state":`, string(r.State))
	b = text(b, `,"state_reason":`, string(r.StateReason))
	b = text(b, `,"steering":`, r.Steering)
	b = text(b, `,"tombstone":`, r.Tombstone)
	b = optional(b, `,"total":`, r.Total)
	b = appendString(append(b, `,"ts":`...), r.TS)
	b = text(b, `,"url":`, r.URL)
	b = text(b, `,"worker":`, r.Worker)
	b = millis(b, `,"write_ms":`, r.WriteMS)
	return append(b, '}')
}

func text(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, key...), value)
}

func number(b []byte, key string, value int64) []byte {
	if value == 0 {
		return b
	}
	return strconv.AppendInt(append(b, key...), value, 10)
}

func optional(b []byte, key string, value *int64) []byte {
	if value == nil {
		return b
	}
	return strconv.AppendInt(append(b, key...), *value, 10)
}

// millis writes a duration to the nanosecond. JSON cannot say NaN or infinity;
// a figure that is neither known nor wanted must not stop the evidence, so it
// is left out.
func millis(b []byte, key string, value *float64) []byte {
	if value == nil || math.IsNaN(*value) || math.IsInf(*value, 0) {
		return b
	}
	v := *value
	if math.Abs(v) < 1e9 { // larger ones have no sixth decimal worth rounding
		v = math.Round(v*1e6) / 1e6
	}
	return strconv.AppendFloat(append(b, key...), v, 'f', -1, 64)
}

func counts(b []byte, c *schemas.Counts) []byte {
	if c == nil {
		return b
	}
	b = strconv.AppendInt(append(b, `,"counts":{"bytes":`...), c.Bytes, 10)
	b = strconv.AppendInt(append(b, `,"cancelled":`...), c.Cancelled, 10)
	b = strconv.AppendInt(append(b, `,"failed":`...), c.Failed, 10)
	b = strconv.AppendInt(append(b, `,"restored":`...), c.Restored, 10)
	b = strconv.AppendInt(append(b, `,"skipped":`...), c.Skipped, 10)
	b = strconv.AppendInt(append(b, `,"unchanged":`...), c.Unchanged, 10)
	return append(b, '}')
}

// plain says which bytes stand for themselves in a string.
var plain = func() (table [256]bool) {
	for c := ' '; c <= '~'; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

// appendString quotes s. Everything but printable ASCII is escaped; bytes that
// are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0 // of the run that needs no escaping
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		size := 1
		if c < utf8.RuneSelf {
			b = appendEscape(b, c)
		} else {
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			b = appendRune(b, r)
		}
		i += size
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return appendUnit(b, uint16(c))
}

func appendRune(b []byte, r rune) []byte {
	if r < 0x10000 {
		return appendUnit(b, uint16(r))
	}
	r -= 0x10000
	b = appendUnit(b, uint16(0xd800+r>>10))
	return appendUnit(b, uint16(0xdc00+r&0x3ff))
}

func appendUnit(b []byte, u uint16) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[u>>12], hex[u>>8&15], hex[u>>4&15], hex[u&15])
}
