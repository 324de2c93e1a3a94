package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/bench"
)

// benchFlags are the flags of bench; what is not given is the mode's default.
type benchFlags struct {
	mode, size, files, backend, ledger, durability, dir, output string
	items, workers, batches, runs                               int
}

func (c *cli) benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:     "bench",
		GroupID: groupFleet,
		Short:   "Measure how fast this machine restores, beside the bare work",
		Long: `Measure exhume on this machine: make up an archive, restore it, and print items
and bytes a second, where the time went, what it cost in processor and memory, and
beside it what the same machine does without queue and bookkeeping. Everything is
kept in a temporary directory, and removed in the end.

  restore       a batch of files from manifest to evidence (20,000 of 8 KiB)
  large         a batch of large files (100 of 50 MiB)
  noop          queue and bookkeeping alone, nothing is read or written (200,000)
  submit        submitting a manifest, without restoring it (1,000,000 rows)
  many-batches  500 batches at the same time, which share the items
  idle          what a fleet uses that has nothing to do

Figures are medians of the runs. File systems are slow for a minute or two after
many files were deleted: let a machine rest before, and between two measurements.
With a server as --backend or --ledger, a database is created there for the
purpose, which its user must be allowed to do, and removed in the end.`,
		Example: `  exhume bench
  exhume bench --mode restore --items 50000 --size 64KiB --dir /srv/restored
  exhume bench --backend postgresql://me@127.0.0.1/postgres --workers 2
  exhume bench --mode noop --durability memory
  exhume bench --mode submit --runs 1 -o json`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.bench(cmd, f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.mode, "mode", string(bench.Restore), "what to measure: `restore|large|noop|submit|many-batches|idle`")
	fs.IntVar(&f.items, "items", 0, "the `number` of items (default depends on the mode)")
	fs.StringVar(&f.size, "size", "", "the mean `size` of made-up files (default depends on the mode)")
	fs.StringVar(&f.files, "files", "", "archive files of these `directories`, with colons between, instead of made-up ones")
	fs.StringVar(&f.backend, "backend", bench.SQLite, "where the archive is: sqlite, or the `URL` of a PostgreSQL or MariaDB server")
	fs.StringVar(&f.ledger, "ledger", bench.SQLite, "where the ledger is: sqlite, or the `URL` of a PostgreSQL server")
	fs.IntVar(&f.workers, "workers", 0, "the `number` of worker processes, beside a collector; 0 does all in one process")
	fs.IntVar(&f.batches, "batches", 0, "the `number` of batches that share the items (default 1; many-batches 500)")
	fs.StringVar(&f.durability, "durability", "synced", "`synced|memory`: keep files where --dir says, or in memory, where a sync costs nothing")
	fs.IntVar(&f.runs, "runs", 0, "the `number` of runs (default 3; idle 1)")
	fs.StringVar(&f.dir, "dir", "", "work below this `directory`, best on the disk that is restored to (default the one for temporary files)")
	fs.StringVarP(&f.output, "output", "o", "table", "`table|json`")
	return cmd
}

// memoryDir is kept in memory on Linux.
const memoryDir = "/dev/shm"

// options are what the flags say, and the mode's defaults.
func (f *benchFlags) options() (bench.Options, error) {
	o, err := bench.Defaults(bench.Mode(f.mode))
	if err != nil {
		return o, err
	}
	for given, at := range map[*int]*int{&f.items: &o.Items, &f.workers: &o.Workers, &f.batches: &o.Batches, &f.runs: &o.Runs} {
		if *given != 0 {
			*at = *given
		}
	}
	if f.size != "" {
		var size app.ByteSize
		if err := size.UnmarshalText([]byte(f.size)); err != nil {
			return o, fmt.Errorf("--size: %w", err)
		}
		o.Size = size.Bytes()
	}
	o.Files, o.Backend, o.Ledger, o.Dir = f.files, f.backend, f.ledger, f.dir
	if f.durability == "memory" {
		if o.Dir != "" {
			return o, fmt.Errorf("--durability memory works in %s: leave out --dir", memoryDir)
		}
		o.Dir = memoryDir
	}
	o.Program, err = os.Executable()
	return o, err
}

func (c *cli) bench(cmd *cobra.Command, f benchFlags) error {
	if err := oneOf("output", f.output, "table", "json"); err != nil {
		return usage(cmd, err)
	}
	if err := oneOf("durability", f.durability, "synced", "memory"); err != nil {
		return usage(cmd, err)
	}
	o, err := f.options()
	if err != nil {
		return usage(cmd, err)
	}
	o.Say = c.say
	r, err := bench.Run(cmd.Context(), o)
	if err != nil {
		return err
	}
	if f.output == "json" {
		return c.json(r)
	}
	return c.benchTable(r)
}

// benchTable prints a measurement: each run, their median, and where time went.
func (c *cli) benchTable(r bench.Report) error {
	if r.Mode == bench.Idle {
		c.say("An idle fleet of %d workers used %.2f %% of a processor.", r.Workers, r.Median.CPUShare)
	} else if err := c.table("RUN ITEMS/S MB/S RAW-ITEMS/S RAW-MB/S RATIO CPU-µS/ITEM", func(row func(...any)) {
		for i, m := range r.Runs {
			benchRow(row, fmt.Sprint(i+1), m)
		}
		benchRow(row, "median", r.Median)
	}); err != nil {
		return err
	}
	for _, p := range r.Median.Processes {
		c.say("Memory, at most: %s %s", p.Role, bytesText(p.PeakMemory))
	}
	if len(r.Median.Stages) > 0 {
		if _, err := fmt.Fprintln(c.out); err != nil {
			return err
		}
		if err := c.table("STAGE OF P50-MS P95-MS P99-MS", func(row func(...any)) {
			for _, s := range r.Median.Stages {
				row(s.Name, s.Of, milliseconds(s.P50), milliseconds(s.P95), milliseconds(s.P99))
			}
		}); err != nil {
			return err
		}
	}
	if r.Against != "" {
		c.say("Raw: %s.", r.Against)
	}
	return nil
}

func benchRow(row func(...any), name string, m bench.Measured) {
	raw, megabytes, ratio := "-", "-", "-"
	if m.Raw != nil {
		raw, megabytes, ratio = fmt.Sprintf("%.0f", m.Raw.Items), fmt.Sprintf("%.1f", m.Raw.Megabytes), fmt.Sprintf("%.2f", m.Ratio)
	}
	row(name, fmt.Sprintf("%.0f", m.Items), fmt.Sprintf("%.1f", m.Megabytes), raw, megabytes, ratio, fmt.Sprintf("%.0f", m.CPU))
}

// milliseconds prints a duration with as many digits as mean something.
func milliseconds(ms float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.*f", max(0, 2-len(fmt.Sprint(int(ms)))+1), ms), ".")
}
