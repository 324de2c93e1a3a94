package producer

import (
	"context"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// An output that is accepted lies below its root, however it is written, and
// its clean form means the same place.
func FuzzOutput(f *testing.F) {
	f.Fuzz(func(t *testing.T, root, output string) {
		o := ManifestOptions{Root: root}
		if o.complete() != nil || !utf8.ValidString(root) {
			return
		}
		clean, err := cleanOutput(root, output)
		if err != nil {
			if len(err.Error()) > 1000+4*len(root) {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if clean == "." || !filepath.IsLocal(clean) || path.Clean(clean) != clean || strings.Contains("/"+clean, "/"+reserved) {
			t.Fatalf("%q below %q is %q", output, root, clean)
		}
		if _, found := control(clean); found {
			t.Errorf("%q has a control character", clean)
		}
		if again, err := cleanOutput(root, clean); err != nil || again != clean {
			t.Errorf("%q is %q, and that %q, %v", output, clean, again, err)
		}
		if _, found := control(root); found || !path.IsAbs(root) {
			return // a bucket, or a root that no output names
		}
		full := path.Join(root, clean)
		if rel, err := filepath.Rel(root, full); err != nil || rel != clean {
			t.Errorf("%q below %q is %q: %q, %v", output, root, full, rel, err)
		}
		if again, err := cleanOutput(root, full); err != nil || again != clean {
			t.Errorf("%q below %q is %q, and that %q, %v", output, root, full, again, err)
		}
	})
}

// Of outputs, one a line, those are refused that collide with an earlier one.
// Sorting them finds the same as comparing each with each.
func FuzzCollisions(f *testing.F) {
	fold := cases.Fold()
	folded := func(s string) string { return norm.NFC.String(fold.String(norm.NFD.String(s))) }
	beneath := func(a, b string) bool { return strings.HasPrefix(a, b+"/") }
	f.Fuzz(func(t *testing.T, text string) {
		c := newCollider(context.Background(), t.TempDir())
		defer c.close()
		var outputs []string
		var want []int64
		for line := range strings.SplitSeq(text, "\n") {
			output, err := cleanOutput("/dest", line)
			if err != nil || len(outputs) > 100 {
				continue
			}
			row := int64(len(outputs)) + 1
			if err := c.add(place{row: row, line: row}, output); err != nil {
				t.Fatal(err)
			}
			output = folded(output)
			if slices.ContainsFunc(outputs, func(o string) bool { return o == output || beneath(o, output) || beneath(output, o) }) {
				want = append(want, row)
			}
			outputs = append(outputs, output)
		}
		var got []int64
		if err := c.find(func(p place, _ string) { got = append(got, p.row) }); err != nil {
			t.Fatal(err)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("refused %v, want %v of %q", got, want, outputs)
		}
	})
}
