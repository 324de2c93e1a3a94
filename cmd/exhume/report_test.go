package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBatchReport(t *testing.T) {
	inFixture(t)
	write(t, "half.csv", "tombstone,output\n"+small+",half/a\n"+unknown+",half/b\n")
	if got := exhume("batch-restore", "half.csv", "--by", "ops"); got.code != exitPartial {
		t.Fatal(got.stderr)
	}
	got := exhume("batch", "report", "latest", "--to", "reports")
	dir := strings.TrimSpace(got.stdout)
	if got.code != exitOK || filepath.Dir(dir) != "reports" {
		t.Fatalf("exit code %d, %q:\n%s", got.code, got.stdout, got.stderr)
	}
	saved, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(saved), exhume("batch", "report", "latest", "-o", "json").stdout); diff != "" {
		t.Errorf("-o json is not the file (-file +stdout):\n%s", diff)
	}
	var report struct {
		ID, State string
		Events    []struct{ Change string }
		Failures  []struct {
			Code  string
			Count int
		}
	}
	if err := json.Unmarshal(saved, &report); err != nil {
		t.Fatal(err)
	}
	if report.ID != filepath.Base(dir) || report.State != "partial" || len(report.Failures) != 1 || report.Failures[0].Code != "tombstone_not_found" {
		t.Errorf("report: %+v", report)
	}
	if n := len(report.Events); n == 0 || report.Events[n-1].Change != "complete" {
		t.Errorf("events: %+v", report.Events)
	}

	// What the report lists can be submitted again, in the same root.
	again := func(file string) ran {
		return exhume("batch-restore", filepath.Join(dir, file), "--by", "ops", "--root", ".")
	}
	if got := again("restored.csv"); got.code != exitOK || !strings.Contains(got.stderr, "0 restored (0 B), 1 unchanged, 0 failed of 1") {
		t.Errorf("restored.csv again: exit code %d:\n%s", got.code, got.stderr)
	}
	if got := again("failed.csv"); got.code != exitFailed || !strings.Contains(got.stderr, "1 failed of 1") {
		t.Errorf("failed.csv again: exit code %d:\n%s", got.code, got.stderr)
	}

	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"nope"}, exitNotFound},
		{[]string{"latest", "-o", "csv"}, exitUsage},
		{nil, exitUsage},
	} {
		if got := exhume(append([]string{"batch", "report"}, tt.args...)...); got.code != tt.code {
			t.Errorf("batch report %v: exit code %d, want %d:\n%s", tt.args, got.code, tt.code, got.stderr)
		}
	}
	write(t, filepath.Join(dir, "note.txt"), "mine")
	if got := exhume("batch", "report", report.ID, "--to", "reports"); got.code != exitError || !strings.Contains(got.stderr, "note.txt") {
		t.Errorf("over something else: exit code %d:\n%s", got.code, got.stderr)
	}
}
