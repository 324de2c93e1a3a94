package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/exhume/exhume/internal/bench"
)

// What cannot be measured is refused before anything is made.
func TestBenchRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"--mode fast":                        `mode "fast": want restore, large`,
		"--items -1":                         "-1 items",
		"--size 3GiB":                        "at most",
		"--size much":                        "is not a size",
		"--mode noop --workers 2":            "works in one process",
		"--mode submit --workers 1":          "without workers",
		"--mode idle --workers -1":           "want 1 or more",
		"--batches 10 --items 5":             "cannot share",
		"--durability none":                  `--durability "none"`,
		"--durability memory --dir /tmp":     "leave out --dir",
		"-o csv":                             `--output "csv"`,
		"--files /does/not/exist --items 10": "no such file",
		"--backend nats://x --items 10":      "nats",
	} {
		got := exhume(append([]string{"bench", "--runs", "1"}, strings.Fields(args)...)...)
		if got.code == 0 || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: exit code %d, %s; want %q", args, got.code, got.stderr, want)
		}
	}
}

func TestBenchTable(t *testing.T) {
	var out, said bytes.Buffer
	c := &cli{out: &out, err: &said}
	m := bench.Measured{
		Rate: bench.Rate{Items: 1234.6, Megabytes: 9.87}, Raw: &bench.Rate{Items: 2000, Megabytes: 16}, Ratio: 0.617, CPU: 80.4,
		Processes: []bench.Process{{Role: "all in one", PeakMemory: 100 << 20}},
		Stages:    []bench.Stage{{Name: "queue", Of: "item", P50: 0.0123, P95: 12.34, P99: 1234.5}},
	}
	if err := c.benchTable(bench.Report{Mode: bench.Restore, Against: "the bare work", Runs: []bench.Measured{m}, Median: m}); err != nil {
		t.Fatal(err)
	}
	want := `RUN     ITEMS/S  MB/S  RAW-ITEMS/S  RAW-MB/S  RATIO  CPU-µS/ITEM
1       1235     9.9   2000         16.0      0.62   80
median  1235     9.9   2000         16.0      0.62   80

STAGE  OF    P50-MS  P95-MS  P99-MS
queue  item  0.01    12.3    1234
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if s := said.String(); !strings.Contains(s, "all in one 100.0 MiB") || !strings.Contains(s, "the bare work") {
		t.Errorf("said %s", s)
	}
}
