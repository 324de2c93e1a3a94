package archive

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"testing"
	"testing/iotest"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// The same bytes say the same whether they come at once or one by one, and never
// is more read out of them than was declared.
func FuzzStream(f *testing.F) {
	text := bytes.Repeat([]byte("one, two, three. "), 50)
	f.Add(codecZstd, streamed(f, bytes.NewReader(text)), int64(len(text)))
	f.Fuzz(func(t *testing.T, codec string, blob []byte, size int64) {
		a := schemas.Artifact{ID: "a-1", Codec: codec, Size: size % (1 << 20)}
		want, wantErr := Decode(a, blob, nil)
		for how, r := range map[string]io.Reader{
			"at once": bytes.NewReader(blob), "one by one": iotest.OneByteReader(bytes.NewReader(blob)), "end with the last": iotest.DataErrReader(bytes.NewReader(blob)),
		} {
			s, err := DecodeStream(a, io.NopCloser(r))
			var got []byte
			if err == nil {
				got, err = io.ReadAll(s)
				if cerr := s.Close(); cerr != nil {
					t.Fatal(cerr)
				}
			}
			if fault.CodeOf(err) != fault.CodeOf(wantErr) || (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %v; decoded whole: %d bytes, %v", how, len(got), err, len(want), wantErr)
			}
			if int64(len(got)) > max(a.Size, 0) {
				t.Errorf("%s: %d bytes of %d declared", how, len(got), a.Size)
			}
		}
	})
}

// What archives hold as text of JSON and of time becomes JSON that means the same
// and times that stay as they are.
func FuzzTexts(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		once := normalStamp(text)
		if normalStamp(once) != once {
			t.Errorf("time %q is %q, and that %q", text, once, normalStamp(once))
		}
		if at, err := time.Parse(time.RFC3339, text); err == nil && at.UTC().Year() <= 9999 && at.UTC().Year() >= 0 {
			if got, err := time.Parse(stampLayout, once); err != nil || !got.Equal(at.Truncate(time.Second)) {
				t.Errorf("time %q is %q: %v, %v", text, once, got, err)
			}
		}
		want, ok := valueOf([]byte(text))
		if !ok {
			quoted, _ := json.Marshal(text)
			want, _ = valueOf(quoted)
		}
		if got, ok := valueOf(jsonValue(text)); !ok || !reflect.DeepEqual(want, got) {
			t.Errorf("%q is %s: %v", text, jsonValue(text), got)
		}
	})
}

// valueOf is the value that a text of JSON stands for, with numbers as they are
// written.
func valueOf(text []byte) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return v, json.Valid(text) && d.Decode(&v) == nil
}
