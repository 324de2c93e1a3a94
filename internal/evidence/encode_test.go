package evidence

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// filled gives a record with every field set, whatever fields there are.
func filled(t testing.TB, n int) schemas.Record {
	var r schemas.Record
	fill(t, reflect.ValueOf(&r).Elem(), &n)
	return r
}

func fill(t testing.TB, v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.String:
		v.SetString(strings.Repeat("x", *n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.125)
	default:
		t.Fatalf("a record has a %v: teach the encoder and this test", v.Type())
	}
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// checkKeys fails unless the keys of every object in text are sorted and text
// is compact ASCII.
func checkForm(t *testing.T, text []byte) {
	t.Helper()
	var keys [][]string
	d := json.NewDecoder(bytes.NewReader(text))
	isKey := false
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		switch v := token.(type) {
		case json.Delim:
			if v == '{' {
				keys, isKey = append(keys, nil), true
			} else {
				if !slices.IsSorted(keys[len(keys)-1]) {
					t.Errorf("keys are not sorted: %v", keys[len(keys)-1])
				}
				keys = keys[:len(keys)-1]
			}
		default:
			if isKey {
				keys[len(keys)-1] = append(keys[len(keys)-1], v.(string))
			}
			isKey = !isKey
		}
	}
	for _, c := range text {
		if c < ' ' || c > '~' {
			t.Errorf("byte %#x is not printable ASCII in %s", c, text)
		}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil || !bytes.Equal(compact.Bytes(), text) {
		t.Errorf("not compact (%v): %s", err, text)
	}
}

func TestRecordHoldsWhatJSONWould(t *testing.T) {
	t.Parallel()
	zero, small, big := 0.0, 0.000001, 123456789.123456
	none := int64(0)
	cases := map[string]schemas.Record{
		"empty":       {},
		"all fields":  filled(t, 0),
		"zeros":       {Index: &none, Size: &none, Total: &none, DurationMS: &zero, Counts: &schemas.Counts{}},
		"floats":      {DurationMS: &small, WriteMS: &big},
		"escapes":     {Path: "a\"b\\c/d\b\f\n\r\t\x00\x1f\x7f<>&'", Reason: "\u2028\u2029"},
		"other texts": {Path: "naïve-日本-𝄞.txt", Actor: "\uffff\U0010ffff\U00010000", Repo: "é"},
		"not UTF-8":   {Path: "a\xffb\xed\xa0\x80c\xc3"},
		"negative":    {CompressedSize: -5, Attempt: -1},
	}
	for name, r := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := appendRecord(nil, &r)
			want, err := json.Marshal(&r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(numbers(decode(t, want)), numbers(decode(t, got))); diff != "" {
				t.Error(diff)
			}
			checkForm(t, got)
		})
	}
}

// numbers makes numbers comparable: 1e-06 is 0.000001.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return f
		}
	}
	return v
}

func TestStringsAreWrittenAsThePredecessorDoes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain <a href='x'>&": `"plain <a href='x'>&"`,
		"a\"\\/\b\f\n\r\t":    `"a\"\\/\b\f\n\r\t"`,
		"\x00\x1f\x7f":        `"\u0000\u001f\u007f"`,
		"日本":                  `"\u65e5\u672c"`,
		"𝄞":                   `"\ud834\udd1e"`,
		"\xff":                `"\ufffd"`,
	} {
		if got := string(appendString(nil, in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestDurationsAreShortAndFinite(t *testing.T) {
	t.Parallel()
	for in, want := range map[float64]string{
		4.090298:       `,"d":4.090298`,
		0.1 + 0.2:      `,"d":0.3`,
		5:              `,"d":5`,
		0:              `,"d":0`,
		0.0000004:      `,"d":0`,
		1e-6:           `,"d":0.000001`,
		1.5e12:         `,"d":1500000000000`,
		math.Inf(1):    ``,
		math.Inf(-1):   ``,
		1e9 + 0.123456: `,"d":1000000000.123456`,
	} {
		if got := string(millis(nil, `,"d":`, &in)); got != want {
			t.Errorf("%v: got %s, want %s", in, got, want)
		}
	}
	nan := math.NaN()
	if got := string(millis(nil, `,"d":`, &nan)); got != "" {
		t.Errorf("NaN: got %s, want nothing", got)
	}
}

func FuzzString(f *testing.F) {
	f.Add("a\"\\\x00日\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := appendString(nil, s)
		want, _ := json.Marshal(s)
		if diff := cmp.Diff(decode(t, want), decode(t, got)); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	r := sample(1)
	r.Prev, r.Seq, r.TS = noLine, 12345, "2026-01-02T03:04:05Z"
	b.Run("own", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf = appendRecord(buf[:0], &r)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		for b.Loop() {
			if _, err := json.Marshal(&r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
