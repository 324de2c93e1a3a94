package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/golden"
)

// inFixture makes a copy of the predecessor's archive the current directory and
// takes settings of exhume out of the environment.
func inFixture(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../integration/testdata/sqlite")); err != nil {
		t.Fatal(err)
	}
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "CODEX_") || strings.HasPrefix(name, "EXHUME_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("CODEX_ARCHIVE_URL", "sqlite:///./archive.sqlite")
	t.Chdir(dir)
	return dir
}

// ran is what a command line did.
type ran struct {
	code           int
	stdout, stderr string
}

func exhume(args ...string) ran { return runAs("exhume", "", args...) }

func runAs(name, stdin string, args ...string) ran {
	var out, errOut bytes.Buffer
	code := run(append([]string{"/usr/bin/" + name}, args...), strings.NewReader(stdin), &out, &errOut)
	return ran{code, out.String(), errOut.String()}
}

// The tombstones of the fixture that the tests use.
const (
	small   = "9039c97b-1acb-4124-a066-1c30c7ed65f4" // runtime/compiler.go, 410 bytes
	purged  = "2c997023-9770-4063-8052-554ff00dbc86"
	unknown = "00000000-0000-4000-8000-000000000000"
)

func TestExitCodes(t *testing.T) {
	inFixture(t)
	write(t, "bad.csv", "tombstone,output\nnope,a\n"+small+",../b\n")
	write(t, "broken.json", `[{"tombstone": "`+small+`", "output": "a"}, `)
	write(t, "half.csv", "tombstone,output\n"+small+",half/a\n"+unknown+",half/b\n")
	write(t, "none.csv", "tombstone,output\n"+unknown+",none/b\n")
	write(t, "other.go", "something else\n")
	write(t, "unknown.toml", "[batch]\nconcurent = 2\n")
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string // part of stderr
	}{
		{"no command", nil, 0, ""},
		{"unknown command", []string{"restor"}, 2, `unknown command "restor"`},
		{"unknown flag", []string{"list", "--lmit", "3"}, 2, "unknown flag: --lmit"},
		{"missing argument", []string{"restore", small}, 2, "missing argument OUTPUT"},
		{"missing actor", []string{"restore", small, "x"}, 2, "--by is required"},
		{"missing manifest", []string{"batch-restore", "nope.json", "--by", "ops"}, 2, "manifest nope.json: there is no such file"},
		{"invalid rows", []string{"batch-restore", "bad.csv", "--by", "ops"}, 2, "bad.csv:2: "},
		{"no valid row", []string{"batch-restore", "bad.csv", "--by", "ops", "--on-invalid", "skip"}, 2, "none of its rows is valid (2 invalid)"},
		{"broken manifest", []string{"batch-restore", "broken.json", "--by", "ops"}, 2, "broken.json:1: "},
		{"bad batch name", []string{"batch-restore", "half.csv", "--by", "ops", "--batch", "a.b"}, 2, `name "a.b"`},
		{"bad policy", []string{"batch-restore", "half.csv", "--by", "ops", "--overwrite", "maybe"}, 2, "--overwrite"},
		{"bad priority", []string{"batch", "set", "b", "--priority", "high"}, 2, `--priority "high": want one of urgent, normal, bulk`},
		{"bad number", []string{"batch", "why", "b", "--items", "x"}, 2, `--items "x": want a number`},
		{"nobody answers", []string{"probe", "127.0.0.1:1"}, 5, "nobody answers at 127.0.0.1:1 (does the role run there?"},
		{"bad memory", []string{"batch-restore", "half.csv", "--by", "ops", "--memory", "1MiB"}, 2, "--memory"},
		{"unknown key", []string{"config-show", "--config-file", "unknown.toml"}, 2, `batch.concurrent`},
		{"partial", []string{"batch-restore", "half.csv", "--by", "ops"}, 3, "1 restored (410 B), 0 unchanged, 1 failed of 2"},
		{"failed", []string{"batch-restore", "none.csv", "--by", "ops"}, 4, "1 failed of 1"},
		{"tombstone not found", []string{"restore", unknown, "x", "--by", "ops"}, 6, "tombstone_not_found: check the id"},
		{"purged", []string{"restore", purged, "x", "--by", "ops"}, 4, "artifact_purged: "},
		{"show not found", []string{"show", unknown}, 6, "tombstone_not_found"},
		{"batch not found", []string{"batch", "show", "nope"}, 6, `no such batch: "nope"`},
		{"exists", []string{"restore", small, "other.go", "--by", "ops"}, 7, "destination_exists: "},
		{"outside", []string{"restore", small, "../x", "--root", ".", "--by", "ops"}, 7, "path_refused: "},
		{"directory", []string{"restore", small, "half", "--by", "ops"}, 7, "destination_exists: "},
		{"archive away", []string{"health-check", "--archive", "sqlite:///./away.sqlite"}, 5, "archive_down: "},
		{"batch, archive away", []string{"batch-restore", "half.csv", "--by", "ops", "--archive", "away.sqlite"}, 5, "archive_down: "},
		{"unsupported archive", []string{"list", "--archive", "foo://x"}, 2, `foo`},
		{"unknown error code", []string{"errors", "nope"}, 6, `no error code "nope"`},
		{"restored", []string{"restore", small, "deep/er/x.go", "--by", "ops"}, 0, ""},
		{"restored again", []string{"restore", small, "deep/er/x.go", "--by", "ops"}, 0, "has this content already"},
		{"replaced", []string{"restore", small, "other.go", "--by", "ops", "--overwrite", "if-different"}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := exhume(tt.args...)
			if got.code != tt.code || !strings.Contains(got.stderr, tt.says) {
				t.Errorf("exhume %v: exit code %d, want %d; stderr should say %q:\n%s", tt.args, got.code, tt.code, tt.says, got.stderr)
			}
		})
	}
	for _, path := range []string{"away.sqlite", "../x", "../b", "a"} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s exists (%v) and should not", path, err)
		}
	}
}

// The predecessor's command line works verbatim and prints its document.
func TestCodex(t *testing.T) {
	dir := inFixture(t)
	got := runAs("codex", "", "archive", "batch-restore", "manifest_all.json", "--by", "ops", "--results", "res/out.json")
	if got.code != exitPartial {
		t.Fatalf("exit code %d, want %d:\n%s", got.code, exitPartial, got.stderr)
	}
	var doc struct {
		Total, Succeeded, Failed int
		Results                  []map[string]any
		DurationMS               *float64 `json:"duration_ms"`
	}
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Total != 304 || doc.Succeeded != 294 || doc.Failed != 10 || len(doc.Results) != 304 || doc.DurationMS == nil {
		t.Errorf("document: %d = %d + %d with %d results", doc.Total, doc.Succeeded, doc.Failed, len(doc.Results))
	}
	first := doc.Results[0]
	if first["tombstone"] != small || first["output"] != filepath.Join(dir, "out/golang/go/runtime/compiler.go") ||
		first["actor"] != "ops" || first["status"] != "SUCCESS" {
		t.Errorf("first result: %v", first)
	}
	if m, _ := first["metrics"].(map[string]any); m["name"] != "restore:"+small || m["duration_ms"] != first["duration_ms"] {
		t.Errorf("metrics of the first result: %v", first["metrics"])
	}
	saved, err := os.ReadFile("res/out.json")
	if err != nil || string(saved)+"\n" != got.stdout {
		t.Errorf("--results is not what stdout says, without the newline (%v)", err)
	}

	if got := runAs("codex", "", "archive", "list", "--limit", "2"); !strings.HasPrefix(got.stdout, "[\n  {\n    \"id\": ") {
		t.Errorf("codex archive list prints no JSON list:\n%s", got.stdout)
	}
	if got := runAs("codex", "", "archive", "batch-restore", "manifest.json", "--actor", "ops", "--dry-run"); got.stdout != "{\n  \"total\": 294\n}\n" {
		t.Errorf("--dry-run prints %q", got.stdout)
	}
}

// The rollback switch for timings leaves them out everywhere.
func TestPerformanceDisabled(t *testing.T) {
	inFixture(t)
	t.Setenv("CODEX_ARCHIVE_PERF_ENABLED", "false")
	got := exhume("batch-restore", "manifest.json", "--by", "ops", "-o", "json")
	if got.code != 0 || strings.Contains(got.stdout, `"metrics"`) || !strings.Contains(got.stdout, "\n  \"duration_ms\": null,\n") {
		t.Errorf("exit code %d; the document has timings", got.code)
	}
	lines, err := os.ReadFile(".codex/evidence/archive_ops.jsonl")
	if err != nil || bytes.Contains(lines, []byte("_ms")) {
		t.Errorf("the evidence has timings (%v)", err)
	}
}

func TestStandardInput(t *testing.T) {
	inFixture(t)
	manifest, err := os.ReadFile("manifest.csv")
	if err != nil {
		t.Fatal(err)
	}
	got := runAs("exhume", string(manifest), "batch-restore", "-", "--by", "ops", "--root", "elsewhere", "-o", "name")
	if got.code != 0 || !strings.Contains(got.stderr, "294 restored") {
		t.Fatalf("exit code %d:\n%s", got.code, got.stderr)
	}
	results := exhume("batch", "results", strings.TrimSpace(got.stdout), "-o", "csv")
	again := runAs("exhume", results.stdout, "batch-restore", "-", "--by", "ops", "--root", "elsewhere")
	if again.code != 0 || !strings.Contains(again.stderr, "294 unchanged") {
		t.Errorf("results as a manifest: exit code %d:\n%s", again.code, again.stderr)
	}
}

func TestRejects(t *testing.T) {
	inFixture(t)
	var manifest strings.Builder
	manifest.WriteString("tombstone,output\n" + small + ",good\n")
	for range 25 {
		manifest.WriteString("nope,x\n")
	}
	write(t, "m.csv", manifest.String())
	got := exhume("batch-restore", "m.csv", "--by", "ops", "--on-invalid", "skip", "--rejects", "bad.txt")
	if got.code != 0 || strings.Count(got.stderr, "m.csv:") != 20 || !strings.Contains(got.stderr, "and 5 more invalid rows; all are in bad.txt") {
		t.Errorf("exit code %d:\n%s", got.code, got.stderr)
	}
	bad, err := os.ReadFile("bad.txt")
	if err != nil || strings.Count(string(bad), "\n") != 25 {
		t.Errorf("--rejects has %d lines, want 25 (%v)", strings.Count(string(bad), "\n"), err)
	}
}

func TestHealthCheck(t *testing.T) {
	inFixture(t)
	got := exhume("health-check")
	for _, want := range []string{"Items: 301\n", "Items Retrievable: 294\n", "Items Purged: 7\n", "Status: ✓ OK (backend accessible, 294 items retrievable)\n"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("health-check does not say %q:\n%s", want, got.stdout)
		}
	}
	if _, err := os.Stat(".codex"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("health-check left something behind (%v)", err)
	}
	got = exhume("health-check", "--archive", "sqlite:///./away.sqlite")
	if !strings.Contains(got.stdout, "Status: ✗ FAILED") {
		t.Errorf("health-check of nothing:\n%s", got.stdout)
	}
}

// What store writes, restore brings back.
func TestStoreAndRestore(t *testing.T) {
	inFixture(t)
	write(t, "docs/a.txt", "hello\n")
	write(t, "docs/deep/naïve-日本.txt", "")
	write(t, "docs/.git/config", "not this")
	archive := "--archive=sqlite:///./new/archive.sqlite"
	got := exhume("store", archive, "acme", "docs", "--by", "me", "--commit", "c0ffee", "--manifest", "m.jsonl", "--tag", "one")
	if got.code != 0 || !strings.Contains(got.stderr, "Stored 2 items") {
		t.Fatalf("store: exit code %d:\n%s", got.code, got.stderr)
	}
	got = exhume("batch-restore", archive, "m.jsonl", "--by", "me", "--root", "back")
	if got.code != 0 {
		t.Fatalf("batch-restore: exit code %d:\n%s", got.code, got.stderr)
	}
	different, err := compareTrees("docs", "back/docs", []string{"a.txt", "deep/naïve-日本.txt"})
	if err != nil || len(different) > 0 {
		t.Errorf("different: %v (%v)", different, err)
	}
	one := exhume("store", archive, "acme", "docs/a.txt", "--by", "me", "--commit", "c0ffee")
	var stored struct{ Tombstone, SHA256, Repo, Path string }
	if err := json.Unmarshal([]byte(one.stdout), &stored); err != nil || stored.Path != "docs/a.txt" || stored.Repo != "acme" {
		t.Errorf("store of one file prints %q (%v)", one.stdout, err)
	}
	if got := exhume("show", archive, stored.Tombstone); !strings.Contains(got.stdout, `"state": "ok"`) {
		t.Errorf("show: %s%s", got.stdout, got.stderr)
	}
}

// Storing purged content is refused, with a word on how to do it.
func TestStorePurged(t *testing.T) {
	inFixture(t)
	write(t, "m.csv", "tombstone,output\n"+small+",again.go\n")
	if got := exhume("batch-restore", "m.csv", "--by", "ops"); got.code != 0 {
		t.Fatal(got.stderr)
	}
	purge(t, "archive.sqlite", small)
	got := exhume("store", "golang/go", "again.go", "--by", "me", "--commit", "x")
	if got.code != exitError || !strings.Contains(got.stderr, "--revive") {
		t.Errorf("storing purged content: exit code %d:\n%s", got.code, got.stderr)
	}
	if got := exhume("restore", small, "x.go", "--by", "ops"); got.code != exitFailed {
		t.Errorf("the purged item came back: exit code %d", got.code)
	}
	if got := exhume("store", "golang/go", "again.go", "--by", "me", "--commit", "x", "--revive"); got.code != 0 {
		t.Errorf("--revive: exit code %d:\n%s", got.code, got.stderr)
	}
	if got := exhume("restore", small, "x.go", "--by", "ops"); got.code != 0 {
		t.Errorf("after --revive: exit code %d:\n%s", got.code, got.stderr)
	}
}

func TestConfigShow(t *testing.T) {
	inFixture(t)
	t.Setenv("CODEX_ARCHIVE_URL", "postgres://user:s3cret@db/x")
	if got := exhume("config-show", "-o", "table"); strings.Contains(got.stdout, "s3cret") || !strings.Contains(got.stdout, "env CODEX_ARCHIVE_URL") {
		t.Errorf("config-show:\n%s", got.stdout)
	}
	if got := exhume("config-show", "--debug"); !strings.Contains(got.stdout, "s3cret") {
		t.Errorf("config-show --debug hides the password:\n%s", got.stdout)
	}
}

// Every command's help is the golden one and has an example.
func TestHelp(t *testing.T) {
	c := &cli{}
	walk(t, c.root("exhume"), nil)
}

func walk(t *testing.T, cmd *cobra.Command, path []string) {
	t.Helper()
	for _, sub := range cmd.Commands() {
		if sub.Name() != "completion" && sub.Name() != "help" {
			walk(t, sub, append(path, sub.Name()))
		}
	}
	if cmd.Example == "" || cmd.Short == "" {
		t.Errorf("%v has no example or no description", path)
	}
	got := exhume(append(path, "--help")...)
	name := filepath.Join("testdata", "help", strings.Join(append([]string{"exhume"}, path...), "-")+".txt")
	golden.Compare(t, name, []byte(got.stdout))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err := errors.Join(err, os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}
