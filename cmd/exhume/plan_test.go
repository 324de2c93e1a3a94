package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

const total304 = "{\n  \"total\": 304\n}\n"

// Each format tells the same plan, and no format does anything.
func TestPlan(t *testing.T) {
	inFixture(t)
	write(t, "out/golang/go/runtime/compiler.go", "something else\n")

	got := exhume("plan", "manifest_all.json", "--by", "ops")
	for _, want := range []string{
		"Items      304: 293 to restore, 0 to replace, 0 unchanged, 11 would fail\n",
		"To write   5.5 MiB; there is room for ",
		"Note       no batch of 100 items or more has ended here yet, so no estimate\n",
		"Fails      7 artifact_purged: the artifact's bytes were purged",
		"           … and 4 more\n",
		"Fails      1 destination_exists: ",
		"           " + small + " -> out/golang/go/runtime/compiler.go: output ",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("the table does not say %q:\n%s", want, got.stdout)
		}
	}
	if got.code != exitUsage || got.stderr != "" || strings.Count(got.stdout, "artifact_purged") != 1 {
		t.Errorf("exit code %d:\n%s%s", got.code, got.stderr, got.stdout)
	}
	if got := exhume("plan", "manifest_all.json", "--by", "ops", "--only", "fail", "--all"); strings.Count(got.stdout, "  artifact_purged  ") != 7 ||
		!strings.HasPrefix(got.stdout, "INDEX  VERDICT  ") || strings.Contains(got.stdout, "  restore  ") {
		t.Errorf("--only fail:\n%s", got.stdout)
	}

	var doc struct {
		Items  []map[string]any
		Totals map[string]any
	}
	got = exhume("plan", "manifest_all.json", "--by", "ops", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || len(doc.Items) != 304 || doc.Totals["fail"] != 11.0 {
		t.Errorf("JSON with %d items and the totals %v (%v)", len(doc.Items), doc.Totals, err)
	}
	if d := doc.Items[0]; d["verdict"] != "fail" || d["target_state"] != "differs" || d["code"] != "destination_exists" || d["found"] != true {
		t.Errorf("JSON: first item %v", d)
	}
	got = exhume("plan", "manifest_all.json", "--by", "ops", "-o", "json", "--only", "unchanged")
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || len(doc.Items) != 0 || doc.Totals["items"] != 304.0 {
		t.Errorf("JSON without items (%v):\n%s", err, got.stdout)
	}

	lines := strings.Split(strings.TrimSpace(exhume("plan", "manifest_all.json", "--by", "ops", "-o", "jsonl").stdout), "\n")
	if len(lines) != 305 || !strings.HasPrefix(lines[0], `{"type":"item","index":0,`) || !strings.HasPrefix(lines[304], `{"type":"totals",`) {
		t.Errorf("%d JSON lines, from %s to %s", len(lines), lines[0], lines[len(lines)-1])
	}

	if _, err := os.Stat(".exhume"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("planning left a state directory behind (%v)", err)
	}
}

// CSV is a manifest again, of what is left to do, say.
func TestPlanCSV(t *testing.T) {
	inFixture(t)
	write(t, "out/golang/go/runtime/compiler.go", "something else\n")
	got := exhume("plan", "manifest_all.json", "--by", "ops", "-o", "csv", "--only", "restore")
	rows, err := csv.NewReader(strings.NewReader(got.stdout)).ReadAll()
	if err != nil || len(rows) != 294 || strings.Join(rows[0][:3], ",") != "tombstone,output,actor" {
		t.Fatalf("%d rows, the header %v (%v)", len(rows), rows[0], err)
	}
	left := runAs("exhume", got.stdout, "batch-restore", "-", "--by", "ops")
	if left.code != 0 || !strings.Contains(left.stderr, "293 restored") {
		t.Fatalf("exit code %d:\n%s", left.code, left.stderr)
	}
	after := exhume("plan", "manifest.json", "--by", "ops", "--overwrite", "if-different")
	if after.code != 0 || !strings.Contains(after.stdout, "294: 0 to restore, 1 to replace, 293 unchanged, 0 would fail\n") ||
		!strings.Contains(after.stdout, "Estimate   less than a second, at the ") {
		t.Errorf("exit code %d:\n%s%s", after.code, after.stdout, after.stderr)
	}
}

func TestPlanExitCodes(t *testing.T) {
	inFixture(t)
	write(t, "bad.csv", "tombstone,output\nnope,a\n"+small+",b\n")
	write(t, "worse.csv", "tombstone,output\nnope,a\n")
	for _, tt := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // parts
	}{
		{"all can work", []string{"plan", "manifest.json", "--by", "ops"}, 0, "294 to restore", ""},
		{"flags of batch-restore", []string{"plan", "manifest.json", "--by", "ops", "--mode", "0600", "--batch", "x", "--dry-run"}, 0, "294 to restore", ""},
		{"invalid rows", []string{"plan", "bad.csv", "--by", "ops"}, 2, "2 rows, 1 invalid", "bad.csv:2: "},
		{"left out", []string{"plan", "bad.csv", "--by", "ops", "--on-invalid", "skip"}, 0, "1 to restore", "bad.csv:2: "},
		{"nobody named", []string{"plan", "bad.csv", "--on-invalid", "skip"}, 0, "1 to restore", "bad.csv:2: "},
		{"no valid row", []string{"plan", "worse.csv", "--by", "ops"}, 2, "", "none of its rows is valid"},
		{"no manifest", []string{"plan", "nope.csv", "--by", "ops"}, 2, "", "there is no such file"},
		{"bad format", []string{"plan", "bad.csv", "-o", "xml"}, 2, "", "--output"},
		{"bad filter", []string{"plan", "bad.csv", "--only", "some"}, 2, "", "--only"},
		{"archive away", []string{"plan", "manifest.json", "--by", "ops", "--archive", "away.sqlite"}, 5, "", "archive_down: "},
		{"dry run", []string{"batch-restore", "manifest_all.json", "--by", "ops", "--dry-run"}, 2, total304, "10 would fail"},
		{"dry run, all well", []string{"batch-restore", "manifest.json", "--by", "ops", "--dry-run"}, 0, "294", "0 would fail"},
		{"dry run, invalid rows", []string{"batch-restore", "bad.csv", "--by", "ops", "--dry-run"}, 2, "", "1 to restore"},
		{"dry run, archive away", []string{"batch-restore", "manifest.json", "--by", "ops", "--dry-run", "--archive", "away.sqlite"}, 5, "", "archive_down: "},
		{"dry run of submit", []string{"submit", "manifest_all.json", "--by", "ops", "--dry-run"}, 2, total304, "10 would fail"},
		{"dry run of submit, archive away", []string{"submit", "manifest_all.json", "--by", "ops", "--dry-run", "--archive", "away.sqlite"}, 0, total304, "Only the manifest was checked"},
		{
			"dry run for a fleet, archive away", []string{
				"batch-restore", "manifest_all.json", "--by", "ops", "--dry-run", "--archive", "away.sqlite", "--nats", "nats://127.0.0.1:1",
			}, 0, total304, "Only the manifest was checked",
		},
	} {
		got := exhume(tt.args...)
		if got.code != tt.code || !strings.Contains(got.stdout, tt.stdout) || tt.stdout == "" && got.stdout != "" || !strings.Contains(got.stderr, tt.stderr) {
			t.Errorf("%s: exit code %d, want %d:\n%s%s", tt.name, got.code, tt.code, got.stdout, got.stderr)
		}
		if tt.stdout == total304 && got.stdout != total304 {
			t.Errorf("%s: stdout has more than the total:\n%s", tt.name, got.stdout)
		}
	}
	// By the predecessor's name a dry run looks at the manifest and at nothing else.
	got := runAs("codex", "", "archive", "batch-restore", "manifest_all.json", "--actor", "ops", "--dry-run", "--archive", "away.sqlite")
	if got.code != 0 || got.stdout != total304 || got.stderr != "" {
		t.Errorf("codex: exit code %d:\n%s%s", got.code, got.stdout, got.stderr)
	}
	for _, name := range []string{"away.sqlite", ".exhume", "out", "a", "b"} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s exists (%v) and should not", name, err)
		}
	}
}
