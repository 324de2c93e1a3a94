package schemas

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"unicode/utf8"
)

// What was read of a message is all in what is written of it: read and written
// once more, it stays as it is.
func FuzzMessage(f *testing.F) {
	kinds := samples()
	for name, sample := range kinds {
		text, err := json.Marshal(sample)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(name, text)
	}
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		sample, ok := kinds[name]
		if !ok {
			return
		}
		again := func(text []byte) []byte {
			v := reflect.New(reflect.TypeOf(sample))
			if json.Unmarshal(text, v.Interface()) != nil {
				return nil
			}
			written, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatalf("%s was read from %q and cannot be written: %v", name, text, err)
			}
			return written
		}
		once := again(text)
		if once == nil {
			return
		}
		if twice := again(once); !bytes.Equal(once, twice) {
			t.Errorf("%s: written %s, read and written again %s", name, once, twice)
		}
	})
}

// A sample has as many items as it is to have, or all, however large the numbers.
func FuzzCanary(f *testing.F) {
	f.Fuzz(func(t *testing.T, size, total int64) {
		if size < 1 || total < 1 || total > 2000 {
			return
		}
		c, in := &Canary{Size: size}, int64(0)
		for i := range total {
			if c.Has(i, total) {
				in++
			}
		}
		if want := min(size, total); in != want {
			t.Errorf("of %d items %d are in a sample of %d", total, in, size)
		}
	})
}

// A normalised detail is short, and stays as it is unless it was cut.
func FuzzNormalise(f *testing.F) {
	f.Fuzz(func(t *testing.T, detail string) {
		once := Normalise(detail)
		if len(once) > maxNormalised {
			t.Errorf("%d bytes of %q", len(once), detail)
		}
		uncut := utf8.ValidString(detail) && len(once) <= maxNormalised-utf8.UTFMax
		if twice := Normalise(once); twice != once && uncut {
			t.Errorf("%q becomes %q, and that %q", detail, once, twice)
		}
	})
}

// Whatever can name a batch or a worker is one token of a subject, of which the
// batch can be told again, and one name of a file.
func FuzzName(f *testing.F) {
	token := func(s string) bool {
		return s != "" && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte("./*>$\\"), c) >= 0 })
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckRequestID(s) && !token(s) {
			t.Errorf("id %q", s)
		}
		if CheckName(s) != nil {
			return
		}
		if !token(s) || s == Single || s == "latest" || len(s) > 64 {
			t.Errorf("name %q", s)
		}
		for _, subject := range []string{RestoreSubject(s), RetrySubject(s), CanarySubject(s), RestoreSubjects(s)} {
			if BatchOfSubject(subject) != s {
				t.Errorf("subject %s is of batch %q, not %q", subject, BatchOfSubject(subject), s)
			}
		}
	})
}
