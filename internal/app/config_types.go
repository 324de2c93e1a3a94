package app

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ByteSize is a number of bytes, written as 64MiB, 1GiB, 512m or 1048576. The
// units k, m, g and t, alone or as KiB, Ki and so on, are powers of 1024; KB, MB,
// GB and TB are powers of 1000. Case does not matter.
type ByteSize int64

var byteUnits = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "ki": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mi": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gi": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "ti": 1 << 40, "tib": 1 << 40, "tb": 1e12,
}

// Bytes is the size as a plain number.
func (s ByteSize) Bytes() int64 { return int64(s) }

// String writes the size so that UnmarshalText reads the same size from it.
func (s ByteSize) String() string {
	for _, u := range []struct {
		name string
		size ByteSize
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s >= u.size && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText is String.
func (s ByteSize) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size. Fractions of a unit are allowed, of a byte cut off.
func (s *ByteSize) UnmarshalText(text []byte) error {
	t := strings.ToLower(strings.TrimSpace(string(text)))
	number := strings.TrimRight(t, "bikmgt ")
	unit, ok := byteUnits[strings.TrimSpace(t[len(number):])]
	n, err := strconv.ParseFloat(number, 64)
	if size := n * unit; ok && err == nil && size >= 0 && size < 1<<53 {
		*s = ByteSize(size)
		return nil
	}
	return fmt.Errorf("%q is not a size such as 64MiB or 1GiB", text)
}

// FileMode is the permission bits of a file, written in octal: 0644.
type FileMode uint32

// Bits is the mode as a plain number.
func (m FileMode) Bits() uint32 { return uint32(m) }

func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// MarshalText is String.
func (m FileMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a mode of at most 0777 that lets the owner read.
func (m *FileMode) UnmarshalText(text []byte) error {
	digits := strings.TrimPrefix(strings.TrimSpace(string(text)), "0o")
	n, err := strconv.ParseUint(digits, 8, 32)
	if err != nil || n > 0o777 || n&0o400 == 0 {
		return fmt.Errorf("%q is not an octal mode up to 0777 that lets the owner read", text)
	}
	*m = FileMode(n)
	return nil
}

// Duration is a length of time in a configuration.
type Duration time.Duration

// String writes the duration so that UnmarshalText reads the same from it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration: Go's form, or a plain number of seconds.
func (d *Duration) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if n, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(n) < math.MaxInt32 {
		*d = Duration(n * float64(time.Second))
		return nil
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}
