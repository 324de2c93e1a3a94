package main

import (
	"bytes"
	"compress/gzip"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/producer"
)

// accepted reads a manifest as batch-restore does, which must like all of it.
func accepted(t *testing.T, manifest string) (outputs []string) {
	t.Helper()
	m, err := producer.OpenManifest("-", strings.NewReader(manifest), producer.ManifestOptions{Root: "/srv", Actor: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := m.Check(t.Context(), func(x producer.Reject) { t.Errorf("rejected: %s", x) }); err != nil {
		t.Fatal(err)
	}
	for item, err := range m.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, item.Output)
	}
	return outputs
}

// stored makes a new archive with items of one repository, of which the last is
// the newest, and gives their tombstones.
func stored(t *testing.T, paths ...string) (tombstones []string) {
	t.Helper()
	t.Setenv("CODEX_ARCHIVE_URL", "sqlite:///./own.sqlite")
	for i, p := range paths {
		write(t, "in/file", fmt.Sprint(i))
		got := exhume("store", "acme/app", "in/file", "--by", "me", "--commit", fmt.Sprint("c", i))
		var s struct{ Tombstone string }
		if err := json.Unmarshal([]byte(got.stdout), &s); err != nil {
			t.Fatal(err, got.stderr)
		}
		change(t, `UPDATE item SET path = ?, archived_at = ? WHERE tombstone_id = ?`, p, fmt.Sprintf("2026-01-02 10:00:%02d", i), s.Tombstone)
		tombstones = append(tombstones, s.Tombstone)
	}
	return tombstones
}

// change changes the archive of stored behind its back.
func change(t *testing.T, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "own.sqlite")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // the statement's error counts
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// What a query finds comes back by the manifest of it.
func TestManifestRestores(t *testing.T) {
	inFixture(t)
	all := exhume("manifest")
	if all.code != 0 || all.stderr != "294 items, 5.5 MiB -> stdout\n" {
		t.Fatalf("exit code %d: %s", all.code, all.stderr)
	}
	outputs := accepted(t, all.stdout)
	if len(outputs) != 294 || !slices.Contains(outputs, "acme/special/naïve-日本.txt") {
		t.Errorf("%d outputs", len(outputs))
	}
	docs := exhume("manifest", "--repo", "acme/docs", "--path", "**/*.md", "--since", "2026-01-01")
	got := runAs("exhume", docs.stdout, "batch-restore", "-", "--root", "out", "--by", "ops")
	if got.code != 0 || !strings.Contains(got.stderr, "2 restored") {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	if _, err := os.Stat("out/acme/docs/go/doc/comment/testdata/README.md"); err != nil {
		t.Error(err)
	}
	purged := accepted(t, exhume("manifest", "--include-purged").stdout)
	if len(purged) != 301 {
		t.Errorf("with what was purged %d items, want 301", len(purged))
	}
	listed := exhume("list", "--repo", "golang/go", "--tag", "std", "--tag", "hot", "--limit", "0", "-o", "name")
	want := exhume("manifest", "--repo", "golang/go", "--tag", "std", "--tag", "hot", "--output-template", "{tombstone}", "--include-purged")
	if diff := cmp.Diff(strings.Fields(listed.stdout), accepted(t, want.stdout)); diff != "" {
		t.Errorf("list and manifest differ:\n%s", diff)
	}
}

func TestManifestFormats(t *testing.T) {
	inFixture(t)
	want := accepted(t, exhume("manifest").stdout)
	for _, tt := range []struct {
		args []string
		file string
		head string
	}{
		{[]string{"-o", "jsonl"}, "", `{"tombstone":"`},
		{[]string{"-o", "json"}, "", "[\n  {\n    \"tombstone\": \""},
		{[]string{"-o", "csv", "--to", "-"}, "", "tombstone,output,actor\n"},
		{[]string{"--to", "m.csv"}, "m.csv", "tombstone,output,actor\n"},
		{[]string{"--to", "M.JSON"}, "M.JSON", "[\n"},
		{[]string{"--to", "m.txt"}, "m.txt", `{"tombstone":"`},
		{[]string{"--to", "m.csv", "-o", "jsonl"}, "m.csv", `{"tombstone":"`},
		{[]string{"--to", "m.csv.gz"}, "m.csv.gz", "tombstone,output,actor\n"},
	} {
		for _, by := range []string{"", " ann "} {
			got := exhume(append([]string{"manifest", "--actor", by}, tt.args...)...)
			text := []byte(got.stdout)
			if tt.file != "" {
				var err error
				if text, err = os.ReadFile(tt.file); err != nil || got.stdout != "" {
					t.Fatalf("%v: %v: %s%s", tt.args, err, got.stdout, got.stderr)
				}
			}
			if strings.HasSuffix(tt.file, ".gz") {
				text = unzipped(t, text)
			}
			if !strings.HasPrefix(string(text), tt.head) || strings.Contains(string(text), "ann") != (by != "") || strings.Contains(string(text), " ann") {
				t.Errorf("%v by %q: %.100s", tt.args, by, text)
			}
			if diff := cmp.Diff(want, accepted(t, string(text))); diff != "" {
				t.Errorf("%v: (-want +got):\n%s", tt.args, diff)
			}
		}
	}
	rows, err := csv.NewReader(strings.NewReader(exhume("manifest", "-o", "csv", "--by", "ann").stdout)).ReadAll()
	if err != nil || rows[1][2] != "ann" {
		t.Errorf("%v, %v", rows[1], err)
	}
}

func unzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A file appears only when it is complete, and nothing else is left over.
func TestManifestWhole(t *testing.T) {
	inFixture(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	write(t, "to/m.jsonl", "before\n")
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--repo", "none"}, exitNotFound, "no such items"},
		{[]string{"--output-template", "{name}"}, exitUsage, "42 of 294 items"},
		{[]string{"--output-template", "{repo}/"}, exitUsage, "names a directory"},
		{[]string{"--archive", "away.sqlite"}, exitTemporary, "archive_down"},
	} {
		got := exhume(append([]string{"manifest", "--to", "to/m.jsonl"}, tt.args...)...)
		if got.code != tt.code || !strings.Contains(got.stderr, tt.says) || got.stdout != "" {
			t.Errorf("%v: exit code %d: %s%s", tt.args, got.code, got.stdout, got.stderr)
		}
		if text, err := os.ReadFile("to/m.jsonl"); err != nil || string(text) != "before\n" {
			t.Errorf("%v: the file is now %.60q, %v", tt.args, text, err)
		}
	}
	if got := exhume("manifest", "--to", "to/m.jsonl"); got.code != 0 {
		t.Error(got.stderr)
	}
	if got := exhume("manifest", "--to", "to/no/m.jsonl"); got.code != exitError || !strings.Contains(got.stderr, "--to to/no/m.jsonl: ") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if err := os.Symlink(os.DevNull, "null"); err != nil {
		t.Fatal(err)
	}
	if got := exhume("manifest", "--to", "null"); got.code != 0 {
		t.Error(got.stderr)
	}
	if st, err := os.Stat("null"); err != nil || st.Mode().IsRegular() {
		t.Error("a device was replaced by a file")
	}
	err := writeWhole("to/m.jsonl", func(w io.Writer) error {
		_, err := io.WriteString(w, "half")
		return errors.Join(err, io.ErrUnexpectedEOF)
	})
	if text, rerr := os.ReadFile("to/m.jsonl"); !errors.Is(err, io.ErrUnexpectedEOF) || rerr != nil || !strings.HasPrefix(string(text), "{") {
		t.Errorf("after a write that failed (%v) the file is %.60q, %v", err, text, rerr)
	}
	for dir, want := range map[string]int{"to": 1, tmp: 0} {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != want {
			t.Errorf("%s has %v, %v", dir, left, err)
		}
	}
}

func TestManifestCollisions(t *testing.T) {
	inFixture(t)
	id := stored(t, "a", "a", "A", "dir/x", "dir")
	for _, tt := range []struct {
		args []string
		want []string
		says string
	}{
		{[]string{"--on-collision", "newest"}, []string{"acme/app/dir", "acme/app/A"}, "2 items, 2 B -> stdout; 3 older ones left out"},
		{[]string{"--on-collision", "suffix", "--path", "[aA]"},
			[]string{"acme/app/A", "acme/app/a~" + id[1][:8], "acme/app/a~" + id[0][:8]}, "3 items, 3 B -> stdout"},
		{[]string{"--output-template", "{commit}/{path}"}, []string{"c4/dir", "c3/dir/x", "c2/A", "c1/a", "c0/a"}, "5 items"},
		{[]string{"--limit", "1"}, []string{"acme/app/dir"}, "1 items, 1 B -> stdout"},
		{[]string{"--until", "2026-01-02T10:00:01Z"}, []string{"acme/app/a"}, "1 items, 1 B -> stdout"},
	} {
		got := exhume(append([]string{"manifest"}, tt.args...)...)
		if got.code != 0 || !strings.Contains(got.stderr, tt.says) {
			t.Errorf("%v: exit code %d: %s", tt.args, got.code, got.stderr)
			continue
		}
		if diff := cmp.Diff(tt.want, accepted(t, got.stdout)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.args, diff)
		}
	}
	got := exhume("manifest")
	for _, want := range []string{
		"4: " + id[1] + `, output "acme/app/a": same output as line 3 but for letter case or Unicode form` + "\n",
		"5: " + id[0] + `, output "acme/app/a": same output as line 3`,
		"2: " + id[3] + `, output "acme/app/dir/x": line 1 already uses "acme/app/dir" as a file, so it cannot be a directory`,
		"3 of 5 items cannot be restored beside newer ones", "--on-collision newest",
	} {
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, want) {
			t.Errorf("exit code %d, want %q:\n%s%s", got.code, want, got.stdout, got.stderr)
		}
	}
	if got := exhume("manifest", "--on-collision", "suffix"); got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "a suffix does not help here") {
		t.Errorf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
}

// What archives contain does not get out of the root, or is refused by name.
func TestManifestStrangePaths(t *testing.T) {
	inFixture(t)
	id := stored(t, "/etc/passwd", "../../up", "a/../../b", "./c//d")
	if diff := cmp.Diff([]string{"acme/app/c/d", "acme/app/b", "acme/app/up", "acme/app/etc/passwd"}, accepted(t, exhume("manifest").stdout)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"etc/passwd"}, accepted(t, exhume("manifest", "--path", "/etc/*", "--output-template", "/{path}").stdout)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for path, want := range map[string]string{
		"..":                     "names a directory",
		"x\ny":                   "control character",
		"\xff":                   "not valid UTF-8",
		".exhume-1":              "reserved",
		strings.Repeat("n", 300): "has a name of 300 bytes",
	} {
		change(t, `UPDATE item SET path = ? WHERE tombstone_id = ?`, path, id[0])
		got := exhume("manifest")
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, want) || !strings.Contains(got.stderr, id[0]) {
			t.Errorf("%q: exit code %d, want %q: %s%s", path, got.code, want, got.stdout, got.stderr)
		}
		if got := exhume("manifest", "--output-template", "{repo}/{tombstone}"); got.code != 0 {
			t.Errorf("%q: the remedy does not help: %s", path, got.stderr)
		}
	}
}

func TestManifestUsage(t *testing.T) {
	inFixture(t)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"--path", "a/["}, `--path: pattern "a/["`},
		{[]string{"--path", ""}, "an empty pattern"},
		{[]string{"--kind", "codes"}, "--kind"},
		{[]string{"--reason", "old"}, "--reason"},
		{[]string{"--since", "yesterday"}, "--since"},
		{[]string{"--until", "tomorrow"}, `--until "tomorrow"`},
		{[]string{"--since", "2026-02-01", "--until", "2026-02-01"}, "not after --since"},
		{[]string{"--limit", "-1"}, "--limit"},
		{[]string{"--by", "a\nb"}, "--by: actor"},
		{[]string{"--on-collision", "oldest"}, "--on-collision"},
		{[]string{"-o", "table"}, "--output"},
		{[]string{"--output-template", ""}, "it is empty"},
		{[]string{"--output-template", "x/{paths}"}, "{paths} is none of"},
		{[]string{"--output-template", "x/{path"}, "{path is none of"},
		{[]string{"more"}, "unexpected argument"},
	} {
		got := exhume(append([]string{"manifest"}, tt.args...)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, tt.says) || got.stdout != "" {
			t.Errorf("%v: exit code %d, want %q: %s", tt.args, got.code, tt.says, got.stderr)
		}
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	item := &archive.Item{Repo: "acme/app", Path: "/src/../lib/a.go", Commit: "c0ffee", ArchivedAt: "2026-01-31T12:00:00Z", Tombstone: small,
		SHA256: "5a", Kind: "code", Reason: "dead"}
	for text, want := range map[string]string{
		"{repo}/{path}":                         "acme/app/lib/a.go",
		"v/{commit}@{date}-{name}":              "v/c0ffee@2026-01-31-a.go",
		"{kind}/{reason}/{sha256}/{tombstone}}": "code/dead/5a/" + small + "}",
	} {
		tmpl, err := parseTemplate(text)
		if err != nil || tmpl.output(item) != want {
			t.Errorf("%s: got %q, want %q (%v)", text, tmpl.output(item), want, err)
		}
	}
	for name := range placeholders {
		if _, err := parseTemplate("{none}"); err == nil || !strings.Contains(err.Error(), "{"+name+"}") {
			t.Errorf("the error does not name {%s}: %v", name, err)
		}
		if long := (&cli{}).manifestCommand().Long; !strings.Contains(long, "{"+name+"}") {
			t.Errorf("the help does not name {%s}", name)
		}
	}
}

// The lines of many rows are kept apart.
func TestLineSet(t *testing.T) {
	t.Parallel()
	var s lineSet
	for line := int64(1); line < 1000; line += 7 {
		s.add(line)
	}
	for line := range int64(2000) {
		if s.has(line) != (line < 1000 && line%7 == 1) {
			t.Errorf("line %d: %t", line, s.has(line))
		}
	}
	if s.count != 143 {
		t.Error(s.count)
	}
}

// The examples of the help can be parsed.
func TestManifestExamples(t *testing.T) {
	inFixture(t)
	for line := range strings.Lines((&cli{}).manifestCommand().Example) {
		command, _, _ := strings.Cut(strings.TrimSpace(line), " |")
		args := strings.Fields(strings.ReplaceAll(command, "'", ""))[1:]
		if got := exhume(args...); got.code != exitOK && got.code != exitNotFound {
			t.Errorf("%s: exit code %d: %s", command, got.code, got.stderr)
		}
	}
	if left, err := filepath.Glob("*.jsonl*"); err != nil || len(left) == 0 {
		t.Errorf("no example wrote a file: %v, %v", left, err)
	}
}
