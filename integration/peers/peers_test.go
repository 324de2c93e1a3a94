package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPeers measures all peers with a few jobs. The measurement itself fails
// unless each job was done exactly once and the peer's server says so too.
func TestPeers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // or the servers' user could not enter
			t.Fatal(err)
		}
	}
	o := options{items: 500, runs: 2, dir: dir}
	var progress bytes.Buffer
	r, err := bench(ctx, o, &progress)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
	if n := strings.Count(progress.String(), "run 2: "); n != 6 {
		t.Errorf("the second run has %d measurements, not 6:\n%s", n, progress.String())
	}
	durable := map[string]bool{"river": true, "asynq": false, "asynq-always": true}
	if len(r.Rows) != len(durable) {
		t.Fatalf("%d rows, want %d", len(r.Rows), len(durable))
	}
	for _, row := range r.Rows {
		if want, ok := durable[row.Name]; !ok || row.Durable != want {
			t.Errorf("row %q, durable %t", row.Name, row.Durable)
		}
		if row.Insert <= 0 || row.Work <= 0 || row.EndToEnd <= 0 || len(row.Samples) != 4 || row.Exhume != 0 {
			t.Errorf("%s: %+v", row.Name, row)
		}
		if strings.Contains(row.Version, "unknown") {
			t.Errorf("%s: version %s", row.Name, row.Version)
		}
	}
	checkOutput(t, r)
}

// checkOutput checks that both forms of a report have all its rows.
func checkOutput(t *testing.T, r *report) {
	t.Helper()
	var table, object bytes.Buffer
	if err := r.print(&table, "table"); err != nil {
		t.Fatal(err)
	}
	if err := r.print(&object, "json"); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(object.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if back.Items != r.Items || len(back.Rows) != len(r.Rows) {
		t.Errorf("JSON:\n%s", object.String())
	}
	for i, row := range r.Rows {
		if !strings.Contains(table.String(), "\n"+row.Name+" ") || !strings.Contains(table.String(), "\n"+row.Name+": "+row.Version) {
			t.Errorf("no row %s in\n%s", row.Name, table.String())
		}
		if b := back.Rows[i]; b.Name != row.Name || b.EndToEnd != row.EndToEnd || b.Exhume != row.Exhume {
			t.Errorf("%s in JSON: %+v", row.Name, b)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	all := []contender{{about: about{Name: "river", Version: "1"}}, {about: about{Name: "exhume", Version: "2"}}}
	r := newReport(options{items: 10, runs: 3}, all)
	for _, rate := range []float64{30, 10, 20} {
		r.Rows[0].add(sample{insertThenWork, figures{Insert: 10 * rate, Work: 2 * rate, EndToEnd: rate}})
		r.Rows[0].add(sample{workMeanwhile, figures{EndToEnd: rate - 5}})
		r.Rows[1].add(sample{workMeanwhile, figures{EndToEnd: 4 * rate}})
	}
	r.conclude()
	river, self := r.Rows[0], r.Rows[1]
	if want := (figures{Insert: 200, Work: 40, EndToEnd: 20}); river.figures != want || river.Way != insertThenWork || river.Exhume != 4 {
		t.Errorf("river: %+v", river)
	}
	if want := (figures{EndToEnd: 80}); self.figures != want || self.Way != workMeanwhile || self.Exhume != 1 {
		t.Errorf("exhume: %+v", self)
	}
	checkOutput(t, r)
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{0: nil, 7: {7}, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		if got := median(values); got != want {
			t.Errorf("median of %v: %v, want %v", values, got, want)
		}
	}
}

func TestTallyFindsWhatWasNotDoneOnce(t *testing.T) {
	t.Parallel()
	tl := newTally(3)
	tl.done(0)
	tl.done(2)
	tl.done(2)
	select {
	case <-tl.all:
		t.Error("all are done, without job 1")
	default:
	}
	if err := tl.check(); err == nil || err.Error() != "job 1 was done 0 times" {
		t.Errorf("check: %v", err)
	}
	tl.done(1)
	<-tl.all
	if err := tl.check(); err == nil || err.Error() != "job 2 was done 2 times" {
		t.Errorf("check: %v", err)
	}
}

func TestJobsAreOfTheSizeOfRequests(t *testing.T) {
	t.Parallel()
	for _, j := range makeJobs(20) {
		if b, err := json.Marshal(j); err != nil || len(b) < 180 || len(b) > 220 {
			t.Errorf("%d bytes, %v: %s", len(b), err, b)
		}
	}
}

func TestParseBench(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		output string
		want   float64
		err    string
	}{
		"median":         {output: `{"mode":"noop","items":9,"runs":[{"items_per_second":1}],"median":{"items_per_second":12345.6}}`, want: 12345.6},
		"runs only":      {output: `{"items":9,"runs":[{"items_per_second":1},{"items_per_second":3},{"items_per_second":2}]}`, want: 2},
		"one object":     {output: `{"mode":"noop","items":9,"items_per_second":5}`, want: 5},
		"list":           {output: `[{"items_per_second":6,"mode":"noop"}]`, want: 6},
		"wrong mode":     {output: `{"mode":"restore","items":9,"median":{"items_per_second":1}}`, err: "in mode restore"},
		"wrong number":   {output: `{"mode":"noop","items":8,"median":{"items_per_second":1}}`, err: "measured 8 items"},
		"no rate":        {output: `{"mode":"noop","items":9,"runs":[]}`, err: "no items_per_second"},
		"empty list":     {output: `[]`, err: "no items_per_second"},
		"not JSON":       {output: `12 items`, err: "the output of exhume's bench"},
		"nothing at all": {output: ``, err: "the output of exhume's bench"},
	} {
		f, err := parseBench([]byte(c.output), 9)
		switch {
		case c.err == "" && (err != nil || f != figures{EndToEnd: c.want}):
			t.Errorf("%s: %+v, %v", name, f, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: error %v, want %q", name, err, c.err)
		}
	}
}

// TestExhume measures the product itself, as it is in the tree.
func TestExhume(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "exhume")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/exhume")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	e, err := newExhume(t.Context(), dir, program)
	if err != nil {
		t.Fatal(err)
	}
	f, err := e.measure(t.Context(), workMeanwhile, makeJobs(500))
	if err != nil {
		t.Fatal(err)
	}
	if f.EndToEnd <= 0 || f.Insert != 0 || f.Work != 0 {
		t.Errorf("%+v", f)
	}
	if e.version == "unknown" {
		t.Error("its version is unknown")
	}
}

func TestExhumeGetsACleanEnvironment(t *testing.T) {
	t.Setenv("EXHUME_NATS_URL", "nats://example.org")
	t.Setenv("CODEX_ARCHIVE_URL", "sqlite:///x")
	env := exhumeEnv("/data")
	for _, v := range env {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "EXHUME_") || strings.HasPrefix(name, "CODEX_") {
			t.Errorf("%s is set", name)
		}
	}
	if last := env[len(env)-1]; last != "TMPDIR=/data" {
		t.Errorf("the last variable is %s", last)
	}
}

func TestFindProgramTakesTheNewest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, release := range []string{"9", "15", "13"} {
		bin := filepath.Join(dir, release, "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, "peers-test-program"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pattern := filepath.Join(dir, "*", "bin")
	if got, want := findProgram("peers-test-program", pattern), filepath.Join(dir, "15", "bin", "peers-test-program"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := findProgram("peers-test-other", pattern); got != "" {
		t.Errorf("found %s", got)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"-h":                     {0, "-exhume path"},
		"-o xml":                 {2, "want table or json"},
		"-items 0":               {2, "1 or more"},
		"extra":                  {2, `unexpected argument "extra"`},
		"-nosuch":                {2, "not defined: -nosuch"},
		"-dir /nosuch/directory": {1, "/nosuch/directory"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(line), &stdout, &stderr)
		if code != want.code || !strings.Contains(stderr.String(), want.text) || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d\n%s%s", line, code, stdout.String(), stderr.String())
		}
	}
}
