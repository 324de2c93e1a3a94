package integration

import (
	"encoding/json"
	"go/build"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/bench"
	"github.com/exhume/exhume/internal/dbtest"
)

// Each mode of 'exhume bench' measures what it should, beside what it is held
// against, and leaves nothing behind.
func TestBench(t *testing.T) {
	t.Parallel()
	items := []string{"queue", "read", "decode", "write"}
	all := append(slices.Clone(items), "sync", "settle", "record")
	for name, tc := range map[string]struct {
		args      []string
		processes []string
		stages    []string
	}{
		"restore":      {[]string{"--items", "300", "--runs", "2"}, []string{"all in one"}, all},
		"files":        {[]string{"--items", "20", "--runs", "1", "--files", "../integration:../internal"}, []string{"all in one"}, all},
		"large":        {[]string{"--mode", "large", "--items", "3", "--size", "2MiB", "--runs", "1"}, []string{"all in one"}, all},
		"noop":         {[]string{"--mode", "noop", "--items", "2000", "--runs", "1", "--durability", "memory"}, []string{"all in one"}, append(slices.Clone(items), "settle", "record")},
		"submit":       {[]string{"--mode", "submit", "--items", "2000", "--runs", "1"}, []string{"submit"}, nil},
		"many-batches": {[]string{"--mode", "many-batches", "--items", "60", "--batches", "7", "--runs", "1"}, []string{"collector", "worker 1", "broker and producer"}, all},
		"processes": {
			[]string{"--items", "300", "--workers", "2", "--runs", "1", "--backend", "PostgreSQL", "--ledger", "PostgreSQL"},
			[]string{"collector", "worker 1", "worker 2", "broker and producer"}, all,
		},
		"MariaDB": {[]string{"--items", "100", "--runs", "1", "--backend", "MariaDB"}, []string{"all in one"}, all},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := &harness.World{Dir: ".", Config: harness.LocalConfig(t, dir)}
			args := append([]string{"bench", "-o", "json"}, tc.args...)
			for i := range args {
				switch args[i] {
				case "PostgreSQL":
					args[i] = dbtest.PostgresURL(t)
				case "MariaDB":
					args[i] = dbtest.MariaDBURL(t)
				}
			}
			if name != "noop" {
				args = append(args, "--dir", dir)
			}
			// What is configured is not touched.
			env := []string{"EXHUME_NATS_URL=nats://127.0.0.1:1", "CODEX_ARCHIVE_URL=sqlite:///./none.sqlite"}
			out, said, code := w.Exhume(t, env, args...)
			if code != 0 {
				t.Fatalf("exit code %d\n%s", code, said)
			}
			var r bench.Report
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err)
			}
			checkMeasured(t, r, tc.processes, tc.stages)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// BenchmarkFleet restores real files from a PostgreSQL archive with a ledger there,
// too, with a worker process and a collector, and measures queue and ledger
// alone with each kind of ledger. Each line says what 'exhume bench' printed.
func BenchmarkFleet(b *testing.B) {
	files := runtime.GOROOT() + ":" + filepath.Join(build.Default.GOPATH, "pkg", "mod") //nolint:staticcheck // the test binary runs where it was built
	for _, bm := range []struct {
		name string
		args []string
	}{
		{"restore-PostgreSQL", []string{"--files", files, "--workers", "1", "--backend", "PostgreSQL", "--ledger", "PostgreSQL"}},
		{"noop-SQLite", []string{"--mode", "noop"}},
		{"noop-PostgreSQL", []string{"--mode", "noop", "--ledger", "PostgreSQL"}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			args := append([]string{"bench", "-o", "json", "--runs", "5"}, bm.args...)
			for i := range args {
				if args[i] == "PostgreSQL" {
					args[i] = dbtest.PostgresURL(b)
				}
			}
			w := &harness.World{Dir: "."}
			var r bench.Report
			for b.Loop() {
				out, said, code := w.Exhume(b, nil, args...)
				if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
					b.Fatalf("exit code %d, %v\n%s", code, err, said)
				}
			}
			b.ReportMetric(r.Median.Items, "items/s")
			b.ReportMetric(r.Median.Raw.Items, "raw-items/s")
			b.ReportMetric(r.Median.Ratio, "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func checkMeasured(t *testing.T, r bench.Report, processes, stages []string) {
	t.Helper()
	m := r.Median
	if m.Items <= 0 || m.Raw == nil || m.Raw.Items <= 0 || m.Ratio <= 0 || m.CPU <= 0 || len(r.Runs) == 0 || r.Against == "" {
		t.Errorf("%+v against %+v", m, m.Raw)
	}
	var got []string
	for _, p := range m.Processes {
		got = append(got, p.Role)
		if p.PeakMemory < 10<<20 {
			t.Errorf("%s: %d bytes of memory at most", p.Role, p.PeakMemory)
		}
	}
	if !slices.Equal(got, processes) {
		t.Errorf("processes %v, want %v", got, processes)
	}
	got = nil
	for _, s := range m.Stages {
		got = append(got, s.Name)
		if s.P50 > s.P95 || s.P95 > s.P99 {
			t.Errorf("%+v", s)
		}
	}
	if !slices.Equal(got, stages) {
		t.Errorf("stages %v, want %v", got, stages)
	}
}
