package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/exhume/exhume/schemas"
)

// A record that was read of a line is written as a line that means the same, and
// that stays as it is.
func FuzzRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		var r, again schemas.Record
		if json.Unmarshal(text, &r) != nil {
			return
		}
		line := appendRecord(nil, &r)
		if bytes.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("not one line of ASCII: %q", line)
		}
		if err := json.Unmarshal(line, &again); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if twice := appendRecord(nil, &again); !bytes.Equal(line, twice) {
			t.Errorf("%s\nis read and written again as\n%s", line, twice)
		}
		for _, r := range []*schemas.Record{&r, &again} { // rounded
			r.DecompressionMS, r.DurationMS, r.WriteMS = nil, nil, nil
		}
		if !reflect.DeepEqual(r, again) {
			t.Errorf("%+v\nis read again as\n%+v", r, again)
		}
	})
}

// A log of lines that exhume wrote, and others did, verifies. When anything at all
// of it is changed, it does not.
func FuzzTampered(f *testing.F) {
	dir := f.TempDir()
	l, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	var end schemas.EvidencePosition
	for i := range int64(4) {
		if end, err = l.Append(f.Context(), samples(3*i, 3)); err != nil {
			f.Fatal(err)
		}
		if i%2 == 0 {
			appendText(f, l.Path(), `{"action": "ARCHIVE", "actor": "the predecessor"}`+"\n")
		}
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(l.Path())
	if err != nil {
		f.Fatal(err)
	}
	if _, err := Verify(l.Path(), end); err != nil {
		f.Fatal(err)
	}
	// The actor of the first record and of the last.
	const actor = `"actor":"`
	f.Add(uint16(bytes.Index(whole, []byte(actor))+len(actor)), uint16(1), []byte("X"))
	f.Add(uint16(bytes.LastIndex(whole, []byte(actor))+len(actor)), uint16(1), []byte("X"))
	f.Fuzz(func(t *testing.T, from, to uint16, with []byte) {
		a := int(from) % (len(whole) + 1)
		b := a + int(to)%(len(whole)+1-a)
		changed := slices.Concat(whole[:a], with, whole[b:])
		if bytes.HasPrefix(changed, whole) {
			return // lines that were added, which nobody noted yet
		}
		path := filepath.Join(t.TempDir(), FileName)
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(path, end)
		if err == nil {
			t.Fatalf("bytes %d to %d became %q, and it verifies: %+v", a, b, with, r)
		}
		lines := int64(bytes.Count(changed, []byte("\n")))
		if e, ok := errors.AsType[*BrokenError](err); !ok || e.Line < 1 || e.Line > lines+1 {
			t.Errorf("%d lines: %v", lines, err)
		}
	})
}

// Whatever stands in a file, a log goes on after it: what verified before verifies
// afterwards, and what was appended is found again.
func FuzzContinue(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		writeLog(t, dir, string(text))
		l := openLog(t, dir)
		before, berr := Verify(l.Path())
		at, err := l.Append(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		mended, verr := Verify(l.Path())
		lines, whole := before.Lines, json.Valid(text[bytes.LastIndexByte(text, '\n')+1:])
		if whole { // but for its newline
			lines++
		}
		switch {
		case (berr == nil) != (verr == nil) && !whole:
			t.Fatalf("it was mended: %v became %v", berr, verr)
		case verr == nil && (at != mended.End && mended.Lines > 0 || mended.Torn > 0 || mended.Lines != lines):
			t.Fatalf("it ends at %+v, but %+v was read of it", at, mended)
		}
		if at.Seq > math.MaxInt64-3 {
			return // no log that exhume wrote comes that far
		}
		end := mustAppend(t, l, samples(0, 3)...)
		if verr == nil {
			if r, err := Verify(l.Path(), end); err != nil || r.Lines != mended.Lines+3 {
				t.Errorf("%+v, %v", r, err)
			}
		}
		n := int64(0)
		for r, err := range l.Since(t.Context(), at) {
			if n++; err != nil || r.Seq != at.Seq+n || *r.Index != n-1 {
				t.Errorf("record %d: %+v, %v", n, r, err)
			}
		}
		if n != 3 {
			t.Errorf("%d records are found again", n)
		}
	})
}

func appendText(f *testing.F, path, text string) {
	f.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = file.WriteString(text)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		f.Fatal(err)
	}
}
