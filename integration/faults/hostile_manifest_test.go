package faults

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/schemas"
)

// manifestTombstone is the tombstone that the manifest has for a row of the archive.
func (tr *trial) manifestTombstone(r harness.Row) string {
	if is := tr.truth[r.Output]; is.code == schemas.CodeTombstoneNotFound {
		return fmt.Sprintf("00000000-0000-4000-8000-%012d", is.index)
	}
	return r.Tombstone
}

// hostileLines are rows that must be refused, as JSON. The first is that of the outputs
// of other rows: the first row of the manifest, and the last.
func hostileLines(tombstone, outside, first, last string) (lines []string) {
	outputs := []string{
		"../outside/x", "../../../../../../../../../../../../tmp/exhume-was-here", "out/../../outside/x", "out/./../../outside/sentinel",
		outside + "/x", outside + "/sentinel", "/etc/exhume-was-here", "//etc/exhume-was-here", "/proc/self/cwd/x",
		".", "..", "/", "out/", "out/.", "out/..", "out/../", "\x00", "out/\x00", "out/a\x00b", "\x00/../../outside/x", "out/a\nb", "out/a\rb",
		"out/\x1b[2Ja", "out/\u0085", "out/\u009b31m", "out/\x7f",
		strings.Repeat("x", 256), "out/" + strings.Repeat("é", 128), strings.Repeat("d/", 2100) + "x",
		".exhume-00000000/1", "out/.exhume-x", ".exhume-",
		// These collide with the first row.
		first, "./" + first, "out/../" + first, strings.ToUpper(first), "OUT" + strings.TrimPrefix(first, "out"),
		strings.ReplaceAll(first, "/", "//"), first + "/below", first + "/below/further",
	}
	for _, output := range outputs {
		lines = append(lines, jsonRow(tombstone, output, ""))
	}
	for _, bad := range []string{"", " ", "x", "../../outside", "00000000-0000-4000-8000-00000000000", "{00000000-0000-4000-8000-000000000000}",
		"00000000-0000-4000-8000-000000000000\x00", "urn:uuid:00000000-0000-4000-8000-000000000000"} {
		lines = append(lines, jsonRow(bad, "out/of-a-bad-tombstone", ""))
	}
	lines = append(lines,
		jsonRow(tombstone, "out/of-a-bad-actor", "a\x00b"), jsonRow(tombstone, "out/of-a-bad-actor", "a\x1b[2J"),
		jsonRow(tombstone, "out/of-a-bad-actor", strings.Repeat("x", 257)),
		fmt.Sprintf(`{"tombstone":%q}`, tombstone), fmt.Sprintf(`{"tombstone":%q,"output":null}`, tombstone), fmt.Sprintf(`{"tombstone":%q,"output":""}`, tombstone),
		fmt.Sprintf(`{"tombstone":%q,"output":["out/x"]}`, tombstone), fmt.Sprintf(`{"tombstone":%q,"output":{"a":1}}`, tombstone),
		`{"tombstone":5,"output":"out/five"}`, `{"output":"out/of-nothing"}`, `{}`,
		"{\"tombstone\":\""+tombstone+"\",\"output\":\"out/\xff\xfe\"}",
		fmt.Sprintf(`{"tombstone":%q,"output":"out/labelled",%s"end":1}`, tombstone, manyKeys(5000)),
	)
	// These collide with the last row, or with all of them, and so come last.
	decomposed := strings.NewReplacer("Ä", "A\u0308", "é", "e\u0301").Replace(last)
	for _, output := range []string{
		last, decomposed, strings.ReplaceAll(last, "é", "e\u0301"), strings.ToUpper(last), strings.ToLower(last), strings.ReplaceAll(last, "ß", "ss"),
		strings.ReplaceAll(last, "ß", "ẞ"), strings.ReplaceAll(decomposed, "ß", "SS"), filepath.Dir(last), strings.ToUpper(filepath.Dir(decomposed)),
		last + "/below", strings.ToUpper(decomposed) + "/below", "out", "OUT", "out/0", "Out/0",
	} {
		lines = append(lines, jsonRow(tombstone, output, ""))
	}
	return lines
}

func jsonRow(tombstone, output, actor string) string {
	line, _ := json.Marshal(map[string]string{"tombstone": tombstone, "output": output, "actor": actor})
	return string(line)
}

// manyKeys are so many members of an object.
func manyKeys(n int) string {
	var text strings.Builder
	for i := range n {
		_, _ = fmt.Fprintf(&text, "\"k%d\":%d,", i, i)
	}
	return text.String()
}

// unreadable submits manifests that no reader of manifests can make sense of, or that
// are made to fill its memory. It watches that each is refused with one short message
// and nothing is done, within the bound of memory: I7.
func unreadable(t *testing.T, random *rand.Rand) {
	const most = 128 << 20
	tr := newTrial(t, random, 20, "")
	row := jsonRow(tr.Rows(t)[0].Tombstone, "out/x", "")
	begun := row[:len(row)-1]
	columns := strings.Repeat("column,", 1_000_000)
	manifests := map[string][]byte{
		"columns.csv":      []byte("tombstone,output," + columns + "end\na,b\n"),
		"cells.csv":        []byte("tombstone,output\na,b," + columns + "end\n"),
		"cell.csv":         []byte("tombstone,output\na,\"" + strings.Repeat("x", 64<<20)),
		"quote.csv":        []byte("tombstone,output\na,\"" + strings.Repeat("\n", 4<<20)),
		"zeros.csv":        make([]byte, 4<<20),
		"zeros.jsonl":      append([]byte(row+"\n"), make([]byte, 4<<20)...),
		"line.jsonl":       []byte(begun + `,"x":"` + strings.Repeat("x", 64<<20) + `"}`),
		"keys.jsonl":       []byte(begun + `,` + manyKeys(1_000_000) + `"x":1}`),
		"deep.jsonl":       []byte(begun + `,"x":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000) + `}`),
		"deep.json":        []byte(strings.Repeat("[", 20_000_000)),
		"deep-items.json":  []byte(strings.Repeat(`{"items":`, 5_000_000)),
		"cut.json":         []byte(`{"items":[` + row),
		"two.json":         []byte(`[` + row + `][` + row + `]`),
		"null.json":        []byte("null"),
		"empty.json":       {},
		"utf16.csv":        []byte("\xff\xfet\x00o\x00m\x00b\x00,\x00\n\x00"),
		"bomb.jsonl.gz":    gzipBomb(),
		"cut.jsonl.gz":     gzipOf(row)[:20],
		"not.jsonl.gz":     append([]byte{0x1f, 0x8b}, noise(random, 1000)...),
		"archive.db":       noise(random, 4096),
		"traversal.jsonl":  []byte(jsonRow(tr.Rows(t)[0].Tombstone, "../outside/sentinel", "")),
		"duplicates.jsonl": []byte(row + "\n" + row + "\n"),
	}
	sentinel := filepath.Join(tr.Path("outside"), "sentinel")
	place(t, sentinel, []byte("nobody's business"))
	for name, text := range manifests {
		if err := os.WriteFile(tr.Path(name), text, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd, stdout, stderr := tr.Command(t, "batch-restore", name, "--by", "tester", "--root", tr.root)
		peak, err := harness.RunForPeak(cmd)
		if code := cmd.ProcessState.ExitCode(); code != 2 {
			t.Errorf("%s: exit code %d (%v), want 2\n%s", name, code, err, tail(stderr.String(), 2000))
		}
		if said := stderr.String() + stdout.String(); len(said) > 2000 || strings.Contains(said, "goroutine") || !strings.Contains(said, name) {
			t.Errorf("%s: it says, in %d bytes:\n%s", name, len(said), tail(said, 2000))
		}
		if peak > most {
			t.Errorf("%s: it held %d MiB of memory, want %d at most", name, peak>>20, most>>20)
		}
	}
	if sum := harness.FileSHA256(sentinel); sum != sha([]byte("nobody's business")) {
		t.Errorf("I7: the sentinel has SHA-256 %s", sum)
	}
	if left := harness.FilesBelow(t, filepath.Join(tr.root, "out", "x")); len(left) > 0 {
		t.Errorf("I7: %q were restored", left)
	}
	if out, said, code := tr.Exhume(t, nil, "batch", "list"); code != 6 {
		t.Errorf("batches: exit code %d, want 6: there are none\n%s%s", code, out, said)
	}
}

func gzipOf(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.Bytes()
}

// gzipBomb is gigabytes of one line, but for its end.
func gzipBomb() []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	piece := bytes.Repeat([]byte("x"), 4<<20)
	_, _ = w.Write(piece)
	_ = w.Flush()
	first := b.Len()
	_, _ = w.Write(piece)
	_ = w.Flush()
	return append(b.Bytes(), bytes.Repeat(b.Bytes()[first:], 1022)...)
}
