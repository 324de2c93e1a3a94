package producer

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tombA = "9039c97b-1acb-4124-a066-1c30c7ed65f4"
	tombB = "83ce9cb9-d57c-462b-8d68-15ee7a6ed639"
	tombC = "B05C6A3C-CAE3-49DD-BB7F-C6031A7CF3C2"
)

// expand puts tombstones in the place of $A, $B and $C.
func expand(s string) string {
	return strings.NewReplacer("$A", tombA, "$B", tombB, "$C", tombC).Replace(s)
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// openManifestOf opens a manifest with the given bytes as a file named m.
func openManifestOf(t testing.TB, data []byte, o ManifestOptions) *Manifest {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "m")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if o.Root == "" {
		o.Root = "/dest"
	}
	o.TempDir = dir
	m, err := OpenManifest(path, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	m.name = "m" // short in messages
	return m
}

// reading is all that can be seen of a manifest.
type reading struct {
	Check   Check
	Rejects []string
	Err     string
	Items   []schemas.Request
}

func readManifest(t testing.TB, m *Manifest) reading {
	t.Helper()
	var r reading
	var err error
	r.Check, err = m.Check(t.Context(), func(x Reject) { r.Rejects = append(r.Rejects, x.String()) })
	if err != nil {
		r.Err = err.Error()
		return r
	}
	r.Items = allItems(t, m)
	// Read again instead of kept, they are the same.
	keeping := m.kept
	m.kept = tooMany
	if d := cmp.Diff(r.Items, allItems(t, m)); d != "" || !keeping.all() {
		t.Errorf("kept (-) and read again (+), kept %v: %s", keeping.all(), d)
	}
	m.kept = keeping
	return r
}

// tooMany is what is kept of a manifest with too many rows to be kept.
var tooMany = kept{bytes: keptBytes + 1}

func allItems(t testing.TB, m *Manifest) []schemas.Request {
	t.Helper()
	var items []schemas.Request
	for item, err := range m.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, item)
	}
	return items
}

// item is an expected request.
func item(index int64, tombstone, output, actor string, labels ...string) schemas.Request {
	r := schemas.Request{Index: index, Tombstone: tombstone, Output: output, Actor: actor}
	for i := 0; i < len(labels); i += 2 {
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		r.Labels[labels[i]] = labels[i+1]
	}
	return r
}

func TestManifestFormats(t *testing.T) {
	t.Parallel()
	ab := []schemas.Request{item(0, tombA, "a", "ann"), item(1, tombB, "d/b", "def")}
	for _, c := range []struct {
		name, format, text string
		want               []schemas.Request
	}{
		{"list", "json", `[{"tombstone":"$A","output":"a","actor":"ann"},{"tombstone":"$B","output":"d/b"}]`, ab},
		{"object", "json", `{"items":[{"tombstone":"$A","output":"a","actor":"ann"},{"tombstone":"$B","output":"d/b"}]}`, ab},
		{"items not first", "json", ` {"version":{"items":[1]},"output":"x","n":[[]],
			"items" : [{"tombstone":"$A","output":"a","actor":"ann"},{"tombstone":"$B","output":"d/b"}],"after":null}` + "\n", ab},
		{"byte order mark before JSON", "json", "\ufeff" + `[{"tombstone":"$A","output":"a","actor":"ann"},{"tombstone":"$B","output":"d/b"}]`, ab},
		{"lines", "jsonl", `{"tombstone":"$A","output":"a","actor":"ann"}` + "\n" + `{"tombstone":"$B","output":"d/b"}` + "\n", ab},
		{"lines, blank ones between, no newline at the end", "jsonl", "\n \r\n" + `{"output":"a","actor":" ann ","tombstone":" $A "}` + "\r\n\n\t" + `{"tombstone":"$B","output":"d/b","actor":null}`, ab},
		{"one line", "jsonl", `{"tombstone":"$A","output":"a","actor":"ann"}`, ab[:1]},
		{"a line with items of its own", "jsonl", `{"items":3,"tombstone":"$A","output":"a","actor":""}`,
			[]schemas.Request{item(0, tombA, "a", "def", "items", "3")}},
		{"CSV", "csv", "tombstone,output,actor\n$A,a,ann\n$B,d/b,\n", ab},
		{"CSV, another order, byte order mark, CRLF", "csv", "\ufeffactor, output ,tombstone\r\nann,a,$A\r\n\r\n ,d/b, $B \r\n", ab},
		{"CSV, cells missing at the end", "csv", "tombstone,output,actor\n$A,a,ann\n$B,d/b", ab},
		{"CSV, quoted", "csv", "tombstone,output,note\n\"$A\",\"a,\"\"b\"\"\",\"two\nlines\"\n",
			[]schemas.Request{item(0, tombA, `a,"b"`, "def", "note", "two\nlines")}},
		{"CSV, empty columns without a name", "csv", "tombstone,,output,\n$A,,a,,\n", []schemas.Request{item(0, tombA, "a", "def")}},
		{"CSV labels", "csv", "tombstone,output,Output,team\n$A,a,x,red\n$B,b,,\n",
			[]schemas.Request{item(0, tombA, "a", "def", "Output", "x", "team", "red"), item(1, tombB, "b", "def")}},
		{"JSON labels", "jsonl", `{"tombstone":"$A","output":"a","s":"x\u00e9","n":1.50,"b":false,"z":null,"e":"","l":[1, {"k" : "v"}],"o":{ }}`,
			[]schemas.Request{item(0, tombA, "a", "def", "s", "xé", "n", "1.50", "b", "false", "l", `[1,{"k":"v"}]`, "o", "{}")}},
		{"the last of equal keys", "jsonl", `{"tombstone":"x","output":"a","tombstone":"$A","output":"b"}`,
			[]schemas.Request{item(0, tombA, "b", "def")}},
		{"escapes that are none", "jsonl", `{"tombstone":"$A","output":"\\ud800\ufffd"}`, []schemas.Request{item(0, tombA, "\\ud800\ufffd", "def")}},
		{"escapes", "json", `[{"tombstone":"$C","output":"\ud83d\ude00\\\/x\ufffd"}]`, []schemas.Request{item(0, tombC, "😀\\/x\ufffd", "def")}},
	} {
		for _, gz := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gzip %v", c.name, gz), func(t *testing.T) {
				t.Parallel()
				data, format := []byte(expand(c.text)), c.format
				if gz {
					data, format = zipped(t, data), format+".gz"
				}
				sum := sha256.Sum256(data)
				n := int64(len(c.want))
				want := reading{Check: Check{format, n, n, 0, hex.EncodeToString(sum[:])}, Items: c.want}
				m := openManifestOf(t, data, ManifestOptions{Actor: " def "})
				if d := cmp.Diff(want, readManifest(t, m)); d != "" {
					t.Error(d)
				}
				if d := cmp.Diff(want.Items, allItems(t, m)); d != "" {
					t.Error("read again:", d)
				}
			})
		}
	}
}

func TestManifestRejects(t *testing.T) {
	t.Parallel()
	good := `{"tombstone":"$A","output":"good"}`
	actor := strings.Repeat("é", 256)
	long := strings.Repeat("x", maxRow)
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"fields of JSON rows", strings.Join([]string{
			good,
			`{"output":"a"}`,
			`{"tombstone":null,"output":"a"}`,
			`{"tombstone":"  ","output":"a"}`,
			`{"tombstone":"{$A}","output":"a"}`,
			`{"tombstone":"9039c97b1acb4124a0661c30c7ed65f4","output":"a"}`,
			`{"tombstone":"9039c97b-1acb-4124-a066-1c30c7ed65fg","output":"a"}`,
			`{"tombstone":7,"output":"a"}`,
			`{"tombstone":"$A"}`,
			`{"tombstone":"$A","output":null}`,
			`{"tombstone":"$A","output":5}`,
			`{"tombstone":"$A","output":["a"]}`,
			`{"tombstone":"$A","output":"a","actor":true}`,
			`{"tombstone":"$A","output":"a","actor":"x\u0007"}`,
			`{"tombstone":"$A","output":"` + "a\xff" + `"}`,
			`{"tombstone":"$A","output":"\ud83d\\\ude00"}`,
			`{"tombstone":"$A","output":"a","x":"\u0000"}`,
			`{"tombstone":"$A","output":"a","":"x"}`,
		}, "\n"), []string{
			"m:2: missing tombstone",
			"m:3: missing tombstone",
			"m:4: missing tombstone",
			`m:5: tombstone "{9039c97b-1acb-4124-a066-1c30c7ed65f4}" is not a UUID (hex digits 8-4-4-4-12)`,
			`m:6: tombstone "9039c97b1acb4124a0661c30c7ed65f4" is not a UUID (hex digits 8-4-4-4-12)`,
			`m:7: tombstone "9039c97b-1acb-4124-a066-1c30c7ed65fg" is not a UUID (hex digits 8-4-4-4-12)`,
			"m:8: tombstone must be a string, not a number",
			"m:9: missing output",
			"m:10: missing output",
			"m:11: output must be a string, not a number",
			"m:12: output must be a string, not a list",
			"m:13: actor must be a string, not a boolean",
			`m:14: actor "x\a" contains the control character U+0007`,
			"m:15: the row is not valid UTF-8",
			`m:16: output: a \u escape is half of a surrogate pair`,
			"m:17: a label contains the control character U+0000",
			"m:18: a label's name is empty or contains a control character",
		}},
		{"the first line without a tombstone", `{"output":"a"}` + "\n" + good, []string{"m:1: missing tombstone"}},
		{"bad labels", good + strings.Repeat("\n"+`{"d":1,"c":"\ud801","b":"\udfff","e":"\udbff"}`, 3), []string{
			`m:2: label "b": a \u escape is half of a surrogate pair`,
			`m:3: label "b": a \u escape is half of a surrogate pair`,
			`m:4: label "b": a \u escape is half of a surrogate pair`,
		}},
		{"JSON lines stand alone", good + "\n" + `{"tombstone":"$A",` + "\n[1]\n7\n\"x\"\nnull\nfalse\n" + good + ",\nnonsense\n", []string{
			"m:2: not valid JSON: unexpected end of JSON input",
			"m:3: the row is a list, not an object",
			"m:4: the row is a number, not an object",
			"m:5: the row is a string, not an object",
			"m:6: the row is null, not an object",
			"m:7: the row is a boolean, not an object",
			"m:8: not valid JSON: invalid character ',' after top-level value",
			"m:9: not valid JSON: invalid character 'o' in literal null (expecting 'u')",
		}},
		{"long JSON lines", good + "\n" + `{"tombstone":"$A","output":"b","x":"` + long + `"}` + "\n{}\n{" + long, []string{
			"m:2: the row is longer than 1 MiB",
			"m:3: missing tombstone",
			"m:4: the row is longer than 1 MiB",
		}},
		{"deep JSON", good + "\n" + `{"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}", []string{
			"m:2: not valid JSON: invalid character '[' exceeded max depth",
		}},
		{"too many labels", good + "\n" + `{"tombstone":"$A","output":"b"` + manyLabels(65) + "}\n" +
			`{"tombstone":"$A","output":"b","l":"` + strings.Repeat("x", 4096) + `"}`, []string{
			"m:2: too many labels (65 with 390 bytes): at most 64 with 4096 bytes are carried along",
			"m:3: too many labels (1 with 4097 bytes): at most 64 with 4096 bytes are carried along",
		}},
		{"rows of a document", "{\n  \"items\": [\n    3,\n    {\n      \"output\": \"a\"\n    }, {\n\n\"tombstone\": \"$A\" },\n[] ,null]}", []string{
			"m:3: the row is a number, not an object",
			"m:4: missing tombstone",
			"m:6: missing output",
			"m:9: the row is a list, not an object",
			"m:9: the row is null, not an object (row 5)",
		}},
		{"CSV", strings.Join([]string{
			"tombstone,output,,actor",
			",a",
			"$A",
			"",
			"$A,,,x",
			"$A,a,x",
			"$A,a,,x,y",
			"$A,a\"b",
			"\"$A\",\"a\nb\",,x",
			"$A,\"a\nb\"c,,x",
			"$A," + "\xff",
			"$A,good,,\x1b[0m",
			"$A,ok,,ann",
			`$A,"open`,
			"$A,x",
		}, "\n"), []string{
			"m:2: missing tombstone",
			"m:3: missing output",
			"m:5: missing output",
			`m:6: cell 3 "x" has no column in the header`,
			`m:7: cell 5 "y" has no column in the header`,
			`m:8: column 39: bare " in non-quoted-field`,
			`m:9: output "a\nb" contains the control character U+000A`,
			`m:11: line 12, column 2: extraneous or missing " in quoted-field`,
			"m:13: the row is not valid UTF-8",
			`m:14: actor "\x1b[0m" contains the control character U+001B`,
			`m:16: line 17, column 39: extraneous or missing " in quoted-field`,
		}},
		{"long actor", `{"tombstone":"$A","output":"y","actor":"` + actor + `"}` + "\n" + `{"tombstone":"$A","output":"x","actor":"é` + actor + `"}`, []string{
			`m:2: actor "` + strings.Repeat("é", 50) + `"… is longer than 256 characters`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := readManifest(t, openManifestOf(t, []byte(expand(c.text)), ManifestOptions{Actor: "def"}))
			if d := cmp.Diff(c.want, r.Rejects); d != "" || r.Err != "" {
				t.Error(r.Err, d)
			}
			if r.Check.Rejected != int64(len(c.want)) || r.Check.Valid != int64(len(r.Items)) || r.Check.Rows != r.Check.Valid+r.Check.Rejected {
				t.Errorf("counts %+v with %d items", r.Check, len(r.Items))
			}
		})
	}
}

func manyLabels(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%03d":%d`, i, 10+i%10)
	}
	return b.String()
}

func TestManifestFlaws(t *testing.T) {
	t.Parallel()
	row := `{"tombstone":"$A","output":"good"}`
	long := strings.Repeat("x", maxRow)
	gz := zipped(t, []byte(expand("tombstone,output\n$A,a\n")))
	broken := bytes.Clone(gz)
	broken[len(broken)-5]++
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "m:1: the manifest has no rows"},
		{"blank", " \n\n", "m:1: the header has no column \"tombstone\": \"\""},
		{"empty list", "[ ]", "m:1: the manifest has no rows"},
		{"empty items", `{"items":[]}`, "m:1: the manifest has no rows"},
		{"header only", "tombstone,output\n", "m:1: the manifest has no rows"},
		{"empty gzip", string(zipped(t, nil)), "m:1: the manifest has no rows"},
		{"trailing comma", "[" + row + ",\n]", "m:2: not valid JSON: invalid character ']' looking for beginning of value"},
		{"no comma", "[" + row + "\n\n" + row + "]", "m:3: not valid JSON: expected comma after array element"},
		{"comma first", "[," + row + "]", "m:1: not valid JSON: invalid character ',' looking for beginning of value"},
		{"wrong end", "[" + row + "}", "m:1: not valid JSON: invalid character '}' after array element"},
		{"flaw in a row", "[" + row + ",\n{\n\"a\":\n 1,\n}]", "m:5: not valid JSON: invalid character '}' looking for beginning of object key string"},
		{"flaw in the first row", "[\n{\"a\"\n 1}]", "m:3: not valid JSON: invalid character '1' after object key"},
		{"flaw in another key", "{\"v\":\n[1\n2],\"items\":[" + row + "]}", "m:3: not valid JSON: invalid character '2' after array element"},
		{"flaw between keys", "{\"v\"\n:1\n\"items\":[" + row + "]}", "m:3: not valid JSON: invalid character '\"' after object key:value pair"},
		{"no colon", "{\"v\"\n1}", "m:2: not valid JSON: expected colon after object key"},
		{"no object", "{1}", "m:1: not valid JSON: invalid character '1'"},
		{"cut off in a row", "[" + row + ",\n{\"a\":\n", "m:2: the manifest ends too early; is it cut off?"},
		{"cut off after a row", "[" + row + ",\n" + row, "m:2: the manifest ends too early; is it cut off?"},
		{"cut off after the items", `{"items":[` + row + "]\n", "m:1: the manifest ends too early; is it cut off?"},
		{"something after it", "[" + row + "]\n{}", "m:2: there is something after the end of the JSON document"},
		{"nonsense after it", "[" + row + "]\n]", "m:2: not valid JSON: invalid character ']' looking for beginning of value"},
		{"another document after it", "{\"items\":[" + row + "]}\n{\"items\":[" + row + "]}", "m:2: there is something after the end of the JSON document"},
		{"items twice", "{\"items\":[" + row + "],\n\"items\":[" + row + "]}", "m:2: \"items\" stands twice"},
		{"items no list", `{"items":{"a":1}}`, `m:1: "items" must be a list`},
		{"no items", "{\n\"version\":1}\n", `m:2: the object has neither a list "items" nor, as one of many lines, a "tombstone"`},
		{"deep", "[" + row + "," + strings.Repeat("[", 20000), "m:1: not valid JSON: invalid character '[' exceeded max depth"},
		{"long row", "[" + row + ",\n{\"a\":\"" + long + "\"}]", "m:2: the row is longer than 1 MiB"},
		{"endless row", "[" + row + ",\n{\"a\":\"" + long + long + long, "m:2: the row is longer than 1 MiB"},
		{"long key", "{\"" + long + long, "m:1: the row is longer than 1 MiB"},
		{"long other value", "{\"a\":\"" + long + long + long + "\"}", "m:1: the row is longer than 1 MiB"},
		{"CSV quote not closed", "tombstone,output\n$A,a\n$A,\"b" + long + long, "m:3: the row is longer than 1 MiB; is a quote not closed?"},
		{"CSV row just too long", "tombstone,output\n$A,a\n$A," + long + "\n", "m:3: the row is longer than 1 MiB; is a quote not closed?"},
		{"CSV header", "Tombstone,output\n$A,a\n", `m:1: the header has no column "tombstone": "Tombstone,output"`},
		{"CSV semicolons", "\ntombstone;output\n$A,a\n", `m:2: the header has no column "tombstone": "tombstone;output"`},
		{"CSV without output", "tombstone,file\n$A,a\n", `m:1: the header has no column "output": "tombstone,file"`},
		{"CSV header twice", "tombstone,output,x, x\n$A,a\n", `m:1: column "x" stands twice in the header`},
		{"CSV header in Latin-1", "tombstone,output,\xe9\n", "m:1: the header is not valid UTF-8"},
		{"CSV header quotes", "tombstone,\"output\n$A,a\n", `m:1: line 2, column 40: extraneous or missing " in quoted-field`},
		{"UTF-16", "\xff\xfet\x00", "m:1: the manifest is in UTF-16; save it as UTF-8"},
		{"binary", "\x7fELF\x02\x01\x00\xff", "m:1: the header is not valid UTF-8"},
		{"gzip cut off", string(gz[:len(gz)-9]), "m:3: the manifest ends too early; is it cut off?"},
		{"gzip header cut off", string(gz[:5]), "m:1: the manifest ends too early; is it cut off?"},
		{"gzip damaged", string(broken), "m:3: gzip: invalid checksum"},
		{"after gzip", string(gz) + "x", "m:3: the manifest ends too early; is it cut off?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := openManifestOf(t, []byte(expand(c.text)), ManifestOptions{Actor: "def"})
			_, err := m.Check(t.Context(), nil)
			if _, ok := errors.AsType[Reject](err); !ok || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			for _, err := range m.Items(t.Context()) {
				if err == nil {
					t.Error("items of an unchecked manifest")
				}
			}
		})
	}
}

func TestManifestWithoutActor(t *testing.T) {
	t.Parallel()
	r := readManifest(t, openManifestOf(t, []byte(expand("tombstone,output,actor\n$A,a,\n$B,b,x\n")), ManifestOptions{}))
	want := []string{"m:2: no actor: name one in the row, or for all rows (--by)"}
	if d := cmp.Diff(want, r.Rejects); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]schemas.Request{item(0, tombB, "b", "x")}, r.Items); d != "" {
		t.Error(d)
	}
}

func TestManifestFrom(t *testing.T) {
	t.Parallel()
	data := []byte(expand("tombstone,output\nbad,a\n$A,b\nbad,c\n$B,b/c\n"))
	for from, want := range map[int64]reading{
		1: {Check: Check{Rows: 4, Valid: 1, Rejected: 3}, Items: []schemas.Request{item(0, tombA, "b", "x")}, Rejects: []string{
			`m:2: tombstone "bad" is not a UUID (hex digits 8-4-4-4-12)`, `m:4: tombstone "bad" is not a UUID (hex digits 8-4-4-4-12)`,
			`m:5: line 3 already uses "b" as a file, so it cannot be a directory`}},
		3: {Check: Check{Rows: 2, Valid: 1, Rejected: 1}, Items: []schemas.Request{item(0, tombB, "b/c", "x")}, Rejects: []string{
			`m:4: tombstone "bad" is not a UUID (hex digits 8-4-4-4-12)`}},
		4: {Check: Check{Rows: 1, Valid: 1}, Items: []schemas.Request{item(0, tombB, "b/c", "x")}},
		5: {Err: "m:5: the manifest has 4 rows, none is left from row 5 on"},
	} {
		got := readManifest(t, openManifestOf(t, data, ManifestOptions{Actor: "x", From: from}))
		got.Check.SHA256, got.Check.Format = "", ""
		if d := cmp.Diff(want, got); d != "" {
			t.Error(from, d)
		}
	}
}

func TestManifestFixtures(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "integration", "testdata")
	byFile := map[string][]schemas.Request{}
	for _, name := range []string{"sqlite/manifest.json", "sqlite/manifest.csv", "sqlite/manifest_list.json", "sqlite/manifest_all.json", "legacy/manifest.json"} {
		m, err := OpenManifest(filepath.Join(dir, name), nil, ManifestOptions{Actor: "def", Root: "/", TempDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		r := readManifest(t, m)
		if r.Err != "" || r.Check.Rejected != 0 || len(r.Items) < 10 {
			t.Errorf("%s: %+v %s %v", name, r.Check, r.Err, r.Rejects)
		}
		byFile[name] = r.Items
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, other := range []string{"sqlite/manifest.csv", "sqlite/manifest_list.json"} {
		if d := cmp.Diff(byFile["sqlite/manifest.json"], byFile[other]); d != "" {
			t.Error(other, d)
		}
	}
}

func TestManifestFromStandardInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := expand("tombstone,output\n$A,a\n,b\n")
	m, err := OpenManifest("-", strings.NewReader(data), ManifestOptions{Actor: "x", Root: "/dest", TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Error("would be left over if killed:", left, err)
	}
	r := readManifest(t, m)
	if d := cmp.Diff([]string{"stdin:3: missing tombstone"}, r.Rejects); d != "" || r.Check.Valid != 1 || m.Name() != "-" {
		t.Error(m.Name(), r, d)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Error("left over:", left, err)
	}
}

func TestOpenManifestErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	failing := io.MultiReader(strings.NewReader("tombstone"), failingReader{})
	for _, c := range []struct {
		path, want string
		in         io.Reader
		o          ManifestOptions
	}{
		{dir, "it is a directory", nil, ManifestOptions{Root: "/"}},
		{dir + "/none", "no such file", nil, ManifestOptions{Root: "/"}},
		{"-", "no standard input", nil, ManifestOptions{Root: "/"}},
		{"-", "spool manifest: broken pipe", failing, ManifestOptions{Root: "/", TempDir: dir}},
		{"-", "spool manifest: ", failing, ManifestOptions{Root: "/", TempDir: dir + "/none"}},
		{"x", `root "" is not an absolute, clean path`, nil, ManifestOptions{}},
		{"x", `root "/a/" is not an absolute, clean path`, nil, ManifestOptions{Root: "/a/"}},
		{"x", `root "a" is not an absolute, clean path`, nil, ManifestOptions{Root: "a"}},
	} {
		m, err := OpenManifest(c.path, c.in, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || m != nil {
			t.Errorf("%s: got %v, %v, want %s", c.path, m, err, c.want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Error("left over:", left, err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestManifestChanged(t *testing.T) {
	t.Parallel()
	before := expand("tombstone,output\n$A,a\n$B,b\n")
	for name, after := range map[string]string{
		"other tombstone": expand("tombstone,output\n$A,a\n$A,b\n"),
		"no header":       strings.Replace(before, "tombstone", "tombstona", 1),
		"bad row":         strings.Replace(before, tombB, strings.Repeat("x", 36), 1),
		"shorter":         before[:len(before)-1],
		"longer":          before + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := openManifestOf(t, []byte(before), ManifestOptions{Actor: "x"})
			if r := readManifest(t, m); r.Check.Valid != 2 {
				t.Fatal(r)
			}
			if err := os.WriteFile(m.file.Name(), []byte(after), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, err := range m.Items(t.Context()) { // of a small one, as it was
				if err != nil {
					t.Error(err)
				}
			}
			m.kept = tooMany
			var last error
			for _, last = range m.Items(t.Context()) {
			}
			if !errors.Is(last, ErrManifestChanged) {
				t.Error(last)
			}
		})
	}
}

func TestManifestEndsEarly(t *testing.T) {
	t.Parallel()
	m := openManifestOf(t, bulk(t, "jsonl", 20000), ManifestOptions{Actor: "x"})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := m.Check(ctx, nil); !errors.Is(err, cause) {
		t.Error(err)
	}
	if _, err := m.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, err := range m.Items(ctx) {
		if !errors.Is(err, cause) {
			t.Error(err)
		}
	}
	n := 0
	for _, err := range m.Items(t.Context()) {
		if n++; n == 3 || err != nil {
			break
		}
	}
	if n != 3 {
		t.Error(n)
	}
}
