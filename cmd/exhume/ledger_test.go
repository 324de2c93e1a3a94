package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofrs/flock"
	"github.com/google/go-cmp/cmp"
)

const evidenceLog = ".codex/evidence/archive_ops.jsonl"

// loseLedger removes the ledger of a state directory.
func loseLedger(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(".exhume/ledger.sqlite*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

func rebuild(t *testing.T, args ...string) (out struct {
	DryRun                                   bool `json:"dry_run"`
	Messages, Batches, Results, Ended, Lines int64
	Problems                                 []string
}) {
	t.Helper()
	got := exhume(append([]string{"ledger", "rebuild", "--by", "ops", "--reason", "the disk died", "-o", "json"}, args...)...)
	if got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	if err := json.Unmarshal([]byte(got.stdout), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// mustSay runs a command that succeeds and gives what it prints.
func mustSay(t *testing.T, args ...string) string {
	t.Helper()
	got := exhume(args...)
	if got.code != 0 {
		t.Fatalf("exhume %v: exit code %d: %s%s", args, got.code, got.stdout, got.stderr)
	}
	return got.stdout
}

func TestLedgerRebuild(t *testing.T) {
	inFixture(t)
	write(t, "m.csv", "tombstone,output\n"+small+",half/a\n"+unknown+",half/b\n")
	if got := exhume("batch-restore", "m.csv", "--by", "ops", "--batch", "b"); got.code != exitPartial {
		t.Fatal(got.stderr)
	}
	results, history := mustSay(t, "batch", "results", "b", "-o", "jsonl"), mustSay(t, "batch", "history", "b", "-o", "jsonl")
	log, err := os.ReadFile(evidenceLog)
	if err != nil {
		t.Fatal(err)
	}
	check := func(problems []string) {
		t.Helper()
		if len(problems) > 0 {
			t.Errorf("problems %q", problems)
		}
		if diff := cmp.Diff(results, mustSay(t, "batch", "results", "b", "-o", "jsonl")); diff != "" {
			t.Error(diff)
		}
		mustSay(t, "batch", "audit", "b")
		mustSay(t, "evidence", "verify")
		if again := rebuild(t); again.Batches+again.Results+again.Ended+again.Lines != 0 {
			t.Errorf("once more: %+v", again)
		}
	}

	loseLedger(t)
	for _, dry := range []bool{true, false} {
		if _, err := os.Stat(".exhume/ledger.sqlite"); err == nil {
			t.Fatal("the dry run has made a ledger")
		}
		var args []string
		if dry {
			args = []string{"--dry-run"}
		}
		out := rebuild(t, args...)
		if out.DryRun != dry || out.Batches < 1 || out.Results != 2 || out.Ended != 1 || out.Lines != 0 || out.Messages < 1 {
			t.Errorf("%+v", out)
		}
		if !dry {
			check(out.Problems)
		}
	}
	if now, err := os.ReadFile(evidenceLog); err != nil || string(now) != string(log) {
		t.Errorf("the evidence has changed (%v): %s", err, now)
	}
	// The same changes by the same people, if not to the nanosecond.
	changes := func(h string) (all []string) {
		for line := range strings.Lines(h) {
			var e struct{ Change, To, By, Note string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if e.Change == "open" || e.Change == "complete" {
				all = append(all, strings.Join([]string{e.Change, e.To, e.By, e.Note}, " "))
			}
		}
		return all
	}
	if diff := cmp.Diff(changes(history), changes(mustSay(t, "batch", "history", "b", "-o", "jsonl"))); diff != "" {
		t.Error(diff)
	}
	// It goes on: the same command finds that everything is done.
	if got := exhume("batch-restore", "m.csv", "--by", "ops", "--batch", "b"); got.code != exitPartial {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	check(nil)

	if err := os.Remove(evidenceLog); err != nil {
		t.Fatal(err)
	}
	if got := exhume("batch-restore", "m.csv", "--by", "ops", "--batch", "c"); got.code != exitError || !strings.Contains(got.stderr, "--accept-evidence") {
		t.Errorf("without its log: exit code %d: %s", got.code, got.stderr)
	}
	if got := mustSay(t, "ledger", "rebuild", "--dry-run"); !strings.Contains(got, "Would add 5 lines to evidence") {
		t.Errorf("a dry run says %q", got)
	}
	out := rebuild(t)
	if out.Lines != 5 || len(out.Problems) != 1 || !strings.Contains(out.Problems[0], "--beside") { // that they are rebuilt, start, two items, end
		t.Errorf("%+v", out)
	}
	check(nil)
	if now, err := os.ReadFile(evidenceLog); err != nil || !strings.HasPrefix(string(now), `{"action":"EVIDENCE_REBUILD","actor":"ops"`) {
		t.Errorf("%v: the log begins with %.200s", err, now)
	}
	if got := exhume("batch-restore", "m.csv", "--by", "ops", "--batch", "c"); got.code != exitPartial {
		t.Errorf("with its log: exit code %d: %s", got.code, got.stderr)
	}

	// A log that was moved away is named, and not lost.
	if err := os.Rename(evidenceLog, "moved.jsonl"); err != nil {
		t.Fatal(err)
	}
	if got := exhume("batch-restore", "m.csv", "--by", "ops", "--batch", "d", "--accept-evidence"); got.code != exitPartial {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if out := rebuild(t, "--dry-run"); out.Lines == 0 || len(out.Problems) != 1 || !strings.Contains(out.Problems[0], "of 2 batches") {
		t.Errorf("not named: %+v", out)
	}
	if out := rebuild(t, "--beside", "moved.jsonl"); out.Lines != 0 || len(out.Problems) != 0 {
		t.Errorf("named: %+v", out)
	}
}

func TestLedgerRebuildRefuses(t *testing.T) {
	inFixture(t)
	write(t, "m.csv", "tombstone,output\n"+small+",half/a\n")
	mustSay(t, "batch-restore", "m.csv", "--by", "ops", "--batch", "b")
	log, err := os.ReadFile(evidenceLog)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(string) string{
		"changed":         func(s string) string { return strings.Replace(s, `"size":410`, `"size":411`, 1) },
		"changed at last": func(s string) string { return strings.Replace(s, `"state":"succeeded"`, `"state":"sUcceeded"`, 1) },
	} {
		write(t, evidenceLog, spoil(string(log)))
		got := exhume("ledger", "rebuild")
		if got.code != exitError || !strings.Contains(got.stderr, "does not verify: line ") || !strings.Contains(got.stderr, "move it away") {
			t.Errorf("%s: exit code %d: %s", name, got.code, got.stderr)
		}
	}
	write(t, evidenceLog, string(log))
	for _, ledger := range []string{"no ledger at all, but long enough to be one"} {
		write(t, ".exhume/ledger.sqlite", ledger)
		if got := exhume("ledger", "rebuild"); got.code != exitError || !strings.Contains(got.stderr, "move the file away") {
			t.Errorf("exit code %d: %s", got.code, got.stderr)
		}
	}
	if got := exhume("ledger", "rebuild", "--ledger", "postgresql://127.0.0.1:1/ledger"); got.code != exitTemporary || strings.Contains(got.stderr, "away, and") {
		t.Errorf("a ledger that is away: exit code %d: %s", got.code, got.stderr)
	}
	lock := flock.New(".exhume/lock")
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Close() //nolint:errcheck // a test's
	if got := exhume("ledger", "rebuild"); got.code != exitRefused || !strings.Contains(got.stderr, "stop it first") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

func TestEvidenceVerify(t *testing.T) {
	inFixture(t)
	if got := exhume("evidence", "verify"); got.code != exitError || !strings.Contains(got.stderr, evidenceLog) {
		t.Errorf("without a log: exit code %d: %s", got.code, got.stderr)
	}
	write(t, "m.csv", "tombstone,output\n"+small+",half/a\n")
	mustSay(t, "batch-restore", "m.csv", "--by", "ops", "--batch", "b")
	if got := mustSay(t, "evidence", "verify", ".codex/evidence"); !strings.Contains(got, "Batches   1") || !strings.Contains(got, "All verify, and the log goes on") {
		t.Errorf("got %s", got)
	}
	var report struct{ Lines, Records, Batches int }
	if err := json.Unmarshal([]byte(mustSay(t, "evidence", "verify", "-o", "json")), &report); err != nil || report.Records != 3 || report.Batches != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	log, err := os.ReadFile(evidenceLog)
	if err != nil {
		t.Fatal(err)
	}
	write(t, evidenceLog, strings.Replace(string(log), `"size":410`, `"size":411`, 1))
	if got := exhume("evidence", "verify"); got.code != exitError || !strings.Contains(got.stderr, "line 2: ") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	// Only the ledger tells that the last line was changed, or dropped.
	lines := strings.SplitAfter(string(log), "\n")
	for _, spoilt := range []string{strings.Replace(string(log), `"succeeded"`, `"sUcceeded"`, 1), strings.Join(lines[:2], "")} {
		write(t, evidenceLog, spoilt)
		if got := exhume("evidence", "verify", ".codex/evidence"); got.code != exitError || !strings.Contains(got.stderr, "line 3: ") {
			t.Errorf("exit code %d: %s", got.code, got.stderr)
		}
	}
	loseLedger(t)
	if got := mustSay(t, "evidence", "verify"); !strings.Contains(got, "as far as the log alone can tell") {
		t.Errorf("without a ledger: %s", got)
	}
}
