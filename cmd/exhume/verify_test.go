package main

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// marks are the lines that a command printed, without reasons.
func marks(stdout string) []string {
	var lines []string
	for line := range strings.Lines(stdout) {
		mark, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		lines = append(lines, mark)
	}
	return lines
}

func TestBatchVerify(t *testing.T) {
	inFixture(t)
	var rows strings.Builder
	rows.WriteString("tombstone,output\n")
	for _, name := range []string{"a", "b", "c/d", "e", "f"} {
		rows.WriteString(small + ",out/" + name + "\n")
	}
	write(t, "five.csv", rows.String()+unknown+",out/g\n")
	if got := exhume("batch-restore", "five.csv", "--by", "ops"); got.code != exitPartial {
		t.Fatal(got.stderr)
	}
	verify := func(args ...string) ran { return exhume(append([]string{"batch", "verify", "latest"}, args...)...) }
	all := verify()
	if all.code != exitOK || all.stdout != "" || !strings.HasPrefix(all.stderr, "5 checked: 5 match, 0 differs, 0 missing, 0 errors; 2.0 KiB in ") ||
		!strings.HasSuffix(all.stderr, "; 1 not restored, not checked\n") {
		t.Errorf("exit code %d:\n%s%s", all.code, all.stdout, all.stderr)
	}

	good, err := os.ReadFile("out/a")
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte{good[0] ^ 1}, good[1:]...)
	err = errors.Join(os.WriteFile("out/a", bad, 0o644), os.Truncate("out/b", 100), os.Remove("out/c/d"),
		os.Remove("out/e"), os.Symlink("f", "out/e"))
	if err != nil {
		t.Fatal(err)
	}
	got := verify()
	if diff := cmp.Diff([]string{"* out/a", "* out/b", "- out/c/d", "* out/e"}, marks(got.stdout)); diff != "" || got.code != exitPartial {
		t.Errorf("exit code %d (-want +got):\n%s", got.code, diff)
	}
	for _, reason := range []string{"its SHA-256 is ", "100 bytes instead of 410", "a symlink stands there"} {
		if !strings.Contains(got.stdout, reason) {
			t.Errorf("no reason %q in\n%s", reason, got.stdout)
		}
	}
	if !strings.HasPrefix(got.stderr, "5 checked: 1 match, 3 differs, 1 missing, 0 errors; 820 B in ") {
		t.Errorf("stderr: %s", got.stderr)
	}
	if got := verify("--all"); len(marks(got.stdout)) != 5 || marks(got.stdout)[4] != "= out/f" {
		t.Errorf("--all:\n%s", got.stdout)
	}
	if got := verify("--only", "missing"); got.stdout != "- out/c/d\n" || got.code != exitPartial {
		t.Errorf("--only missing, exit code %d:\n%s", got.code, got.stdout)
	}
	var list []struct {
		Verdict, Output string
		Size            int64
		FoundSize       int64 `json:"found_size"`
	}
	if err := json.Unmarshal([]byte(verify("-o", "json").stdout), &list); err != nil || len(list) != 4 || list[1].FoundSize != 100 || list[1].Size != 410 {
		t.Errorf("-o json: %v: %+v", err, list)
	}
	if got := verify("--all", "-o", "jsonl"); strings.Count(got.stdout, "\n") != 5 || !strings.Contains(got.stdout, `"verdict":"match"`) {
		t.Errorf("-o jsonl:\n%s", got.stdout)
	}

	// Elsewhere.
	if err := os.CopyFS("copy/out", os.DirFS("out")); err != nil {
		t.Fatal(err)
	}
	if got := verify("--root", "copy"); got.code != exitPartial || !strings.Contains(got.stderr, "1 match") {
		t.Errorf("--root: exit code %d:\n%s%s", got.code, got.stdout, got.stderr)
	}
	if err := os.MkdirAll("empty", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"latest", "--root", "empty"}, exitFailed, "5 checked: 0 match, 0 differs, 5 missing"},
		{[]string{"latest", "--root", "nowhere"}, exitError, "--root names another place"},
		{[]string{"nope"}, exitNotFound, "no such batch"},
		{[]string{"latest", "--only", "all"}, exitUsage, "--only"},
		{[]string{"latest", "--only", "missing", "--all"}, exitUsage, "--all and --only"},
		{nil, exitUsage, "missing argument BATCH"},
	} {
		got := exhume(append([]string{"batch", "verify"}, tt.args...)...)
		if got.code != tt.code || !strings.Contains(got.stderr, tt.says) {
			t.Errorf("batch verify %v: exit code %d, want %d:\n%s", tt.args, got.code, tt.code, got.stderr)
		}
	}
	if _, err := os.Stat("nowhere"); err == nil {
		t.Error("verifying has made the root")
	}
}

// A batch of which nothing was restored has nothing that could be wrong.
func TestBatchVerifyNothing(t *testing.T) {
	inFixture(t)
	write(t, "none.csv", "tombstone,output\n"+unknown+",none/b\n")
	if got := exhume("batch-restore", "none.csv", "--by", "ops"); got.code != exitFailed {
		t.Fatal(got.stderr)
	}
	got := exhume("batch", "verify", "latest")
	if got.code != exitOK || !strings.Contains(got.stderr, "0 checked: 0 match") || !strings.Contains(got.stderr, "1 not restored, not checked") {
		t.Errorf("exit code %d:\n%s", got.code, got.stderr)
	}
}
