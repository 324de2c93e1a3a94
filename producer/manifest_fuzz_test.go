package producer

import (
	"path"
	"strings"
	"testing"

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
