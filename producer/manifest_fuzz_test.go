package producer

import (
	"encoding/json"
	"maps"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func FuzzManifest(f *testing.F) {
	for _, seed := range []string{
		`[{"tombstone":"$A","output":"a"},{"tombstone":"$B","output":"a/b","x":[1]}]`,
		"{\"v\":1,\"items\":[{\"tombstone\":\"$A\",\"output\":\"../a\"},\n{\"tombstone\":\"$A\",\"output\":\"/dest/A\"}]}",
		"{\"tombstone\":\"$A\",\"output\":\"e\u0301\"}\n\n{\"output\":\"\u00e9\",\"tombstone\":\"$B\"}\n{",
		"\ufeffoutput,tombstone,,n\na,$A\n\"b\"\"\n\",$B,,x\nA/b,$A,y\n\"",
		"\x1f\x8b",
		"{\"items\":3,\"tombstone\":\"\\ud800\"}",
	} {
		f.Add([]byte(expand(seed)))
	}
	f.Add(zipped(f, []byte(expand("tombstone,output\n$A,a\n$B,a\n"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := openManifestOf(t, data, ManifestOptions{Actor: "x"})
		r := readManifest(t, m)
		if again := readManifest(t, m); !cmp.Equal(r, again) {
			t.Fatal("not the same again:", cmp.Diff(r, again))
		}
		c := r.Check
		if c.Valid+c.Rejected != c.Rows || int64(len(r.Rejects)) != c.Rejected {
			t.Fatalf("%+v with %d rejects", c, len(r.Rejects))
		}
		if r.Err != "" {
			return
		}
		if c.Rows == 0 || int64(len(r.Items)) != c.Valid {
			t.Fatalf("%+v with %d items", c, len(r.Items))
		}
		seen := map[string]bool{}
		for i, item := range r.Items {
			o := item.Output
			if item.Index != int64(i) || o == "." || path.Clean("/"+o) != "/"+o || strings.HasPrefix(o, "../") || seen[o] {
				t.Fatalf("item %d: %+v", i, item)
			}
			seen[o] = true
		}
	})
}

// Both ways to split an object give the same.
func FuzzObject(f *testing.F) {
	for _, row := range []string{
		`{"tombstone":"a","output":"b","actor":null}`, `{"a":1,"a":2,"tombstone":"x","tombstone":"\u0041"}`, `{"a":{"b":[1,{}]},"c":[]}`,
		`{"\ud83d\ude00":"\n", "x" : -1e5 }`, `{"a":"\ud800"}`, `{} {}`, `{"a":1,}`, `{"Tombstone":"a"}`,
	} {
		f.Add(row)
	}
	f.Fuzz(func(t *testing.T, row string) {
		if !utf8.ValidString(row) || !strings.HasPrefix(row, "{") {
			return
		}
		want := map[string]json.RawMessage{}
		werr := json.Unmarshal([]byte(row), &want)
		var d objectDecoder
		err := d.split([]byte(row))
		if (err == nil) != (werr == nil) {
			t.Fatalf("got %v, want %v", err, werr)
		}
		if err != nil {
			return
		}
		got := map[string]json.RawMessage{}
		maps.Copy(got, d.fields)
		for name, value := range map[string]json.RawMessage{"tombstone": d.tombstone, "output": d.output, "actor": d.actor} {
			if value != nil {
				got[name] = value
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}
