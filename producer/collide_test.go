package producer

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

func TestCollisions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		outputs []string
		want    []string
	}{
		{"none", []string{"a", "b", "ab", "a.b", "a b/c", "a!/c", "A-", "b.c/d", "é", "e", "ss-", "ﬁ", "ﬂ"}, nil},
		{"same", []string{"a/b", "x", "a/b", "a//b", "/dest/a/./b"}, []string{
			"m:4: same output as line 2", "m:5: same output as line 2", "m:6: same output as line 2"}},
		{"case", []string{"a/B", "A/b", "a/b", "a/B"}, []string{
			"m:3: same output as line 2 but for letter case or Unicode form",
			"m:4: same output as line 2 but for letter case or Unicode form",
			"m:5: same output as line 2"}},
		{"Unicode form", []string{"caf\u00e9", "cafe\u0301", "CAFE\u0301"}, []string{
			"m:3: same output as line 2 but for letter case or Unicode form",
			"m:4: same output as line 2 but for letter case or Unicode form"}},
		{"sharp s", []string{"\u1e9e", "\u00df", "SS"}, []string{
			"m:3: same output as line 2 but for letter case or Unicode form",
			"m:4: same output as line 2 but for letter case or Unicode form"}},
		{"dotted I", []string{"\u0130", "i\u0307", "i", "\u0131"}, []string{
			"m:3: same output as line 2 but for letter case or Unicode form"}},
		{"ligature, sigma, iota below", []string{"ﬃ", "FFI", "ς", "Σ", "\u1fb3", "\u03b1\u0399"}, []string{
			"m:3: same output as line 2 but for letter case or Unicode form",
			"m:7: same output as line 6 but for letter case or Unicode form",
			"m:5: same output as line 4 but for letter case or Unicode form"}},
		{"iota below in another order", []string{"\u1fb4", "\u1fb3\u0301"}, []string{
			"m:3: same output as line 2 but for letter case or Unicode form"}},
		{"file, then directory", []string{"a/b", "a/b/c", "A/B/c/d", "a/bc"}, []string{
			`m:3: line 2 already uses "a/b" as a file, so it cannot be a directory`,
			`m:4: line 2 already uses "a/b" as a file, so it cannot be a directory`}},
		{"directory, then file", []string{"a/b/c/D", "x", "A/b", "a"}, []string{
			`m:4: line 2 already uses "A/b" as a directory, so it cannot be a file`,
			`m:5: line 2 already uses "a" as a directory, so it cannot be a file`}},
		{"between", []string{"a/b", "a", "a/c", "a-b"}, []string{
			`m:4: line 3 already uses "a" as a file, so it cannot be a directory`,
			`m:3: line 2 already uses "a" as a directory, so it cannot be a file`}},
		{"above and beneath", []string{"a", "a/b/c", "a/b", "A/b"}, []string{
			`m:4: line 2 already uses "a" as a file, so it cannot be a directory`,
			`m:5: same output as line 4 but for letter case or Unicode form`,
			`m:3: line 2 already uses "a" as a file, so it cannot be a directory`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := "tombstone,output\n"
			for _, o := range c.outputs {
				text += tombA + "," + o + "\n"
			}
			r := readManifest(t, openManifestOf(t, []byte(text), ManifestOptions{Actor: "x"}))
			if d := cmp.Diff(c.want, r.Rejects); d != "" || r.Err != "" {
				t.Error(r.Err, d)
			}
			if len(r.Items) != len(c.outputs)-len(c.want) {
				t.Error(r.Items)
			}
		})
	}
}

func TestCollisionsOnOneLine(t *testing.T) {
	t.Parallel()
	row := `{"tombstone":"$A","output":"a"}`
	r := readManifest(t, openManifestOf(t, []byte(expand("["+row+","+row+",\n"+row+"]")), ManifestOptions{Actor: "x"}))
	want := []string{"m:1: same output as line 1 (row 2)", "m:2: same output as line 1"}
	if d := cmp.Diff(want, r.Rejects); d != "" {
		t.Error(d)
	}
}

// TestCollisionsExactly compares with the plain definition, on enough rows for
// sorted runs in a file.
func TestCollisionsExactly(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "A", "b", "é", "E\u0301", "c.d", "c", "0-"}
	var outputs []string
	for i := range 3 * sortChunk {
		path := []string{fmt.Sprint(random.IntN(2 * sortChunk)), names[i%len(names)]}[:1+random.IntN(2)]
		if random.IntN(3) == 0 {
			path = append(path, names[random.IntN(len(names))])
		}
		outputs = append(outputs, strings.Join(path, "/"))
	}
	c := newCollider(t.Context(), t.TempDir())
	defer c.close()
	for i, o := range outputs {
		if err := c.add(place{row: int64(i), line: int64(i)}, o); err != nil {
			t.Fatal(err)
		}
	}
	got := map[int64]bool{}
	if err := c.find(func(p place, reason string) {
		if got[p.row] {
			t.Error("rejected twice:", p, reason)
		}
		got[p.row] = true
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(collisionsByDefinition(outputs), got); d != "" || len(got) < sortChunk/4 {
		t.Error(len(got), d)
	}
}

func collisionsByDefinition(outputs []string) map[int64]bool {
	files, dirs := map[string]bool{}, map[string]bool{}
	rejected := map[int64]bool{}
	for i, o := range outputs {
		path := norm.NFC.String(cases.Fold().String(norm.NFD.String(o)))
		bad := files[path] || dirs[path]
		files[path] = true
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			bad = bad || files[dir]
			dirs[dir] = true
		}
		if bad {
			rejected[int64(i)] = true
		}
	}
	return rejected
}

func TestSorterWithoutSpace(t *testing.T) {
	t.Parallel()
	c := newCollider(t.Context(), "/dev/null/none")
	defer c.close()
	var err error
	for i := int64(0); err == nil && i < 20*sortChunk; i++ {
		err = c.add(place{row: i, line: i}, fmt.Sprint(i))
	}
	if err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Error(err)
	}
}

func TestSorterAbandoned(t *testing.T) {
	t.Parallel()
	s := newSorter(t.Context(), t.TempDir())
	for i := range 3 * sortChunk {
		if err := s.add(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range s.all() {
		if err != nil {
			t.Error(err)
		}
		break
	}
	s.close()
}
