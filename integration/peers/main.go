// Command peers measures exhume's queue beside its peers on the same machine:
// the same number of jobs that do nothing through River on PostgreSQL, through
// asynq on Redis, and through 'exhume bench --mode noop'.
//
//	go run . -items 100000 -runs 5 -exhume ../../bin/exhume -o table
//
// Each has the settings that were fastest for it here, and takes its turn in
// each run; the figures are medians. The peers' servers are this program's own:
// they run while they are measured, in a temporary directory, and only this
// program reaches them. They must be installed.
//
// It is a module of its own, so that exhume does not depend on its peers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// options are what the command line says.
type options struct {
	items, runs int
	exhume      string // the path of the program; empty leaves it out
	output      string // table or json
	dir         string // where the temporary directory is made
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program: 0 when all was measured, 1 when not, 2 for a wrong
// command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "peers:", err)
		return 2
	}
	r, err := bench(ctx, o, stderr)
	if err == nil {
		err = r.print(stdout, o.output)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "peers:", err)
		return 1
	}
	return 0
}

// parse reads the command line; flag itself tells of unknown flags, and help.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.items, "items", 100_000, "jobs in each measurement")
	f.IntVar(&o.runs, "runs", 5, "how often each is measured")
	f.StringVar(&o.exhume, "exhume", "", "`path` of the program exhume; without it, its row is left out")
	f.StringVar(&o.output, "o", "table", "output: table or json")
	f.StringVar(&o.dir, "dir", os.TempDir(), "`directory` on a disk for the servers' data, which are removed at the end")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.items < 1 || o.runs < 1:
		return o, errors.New("-items and -runs must be 1 or more")
	case o.output != "table" && o.output != "json":
		return o, fmt.Errorf("-o %s: want table or json", o.output)
	}
	return o, nil
}

// bench measures all in turn and tells stderr of each measurement.
func bench(ctx context.Context, o options, stderr io.Writer) (r *report, err error) {
	found, err := findPrograms()
	if err != nil {
		return nil, err
	}
	dir, err := dataDir(o.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if inMemory(dir) {
		_, _ = fmt.Fprintf(stderr, "peers: %s is in memory, where syncing costs nothing; give a directory on a disk with -dir\n", dir)
	}
	all, err := contenders(ctx, o, dir, found)
	if err != nil {
		return nil, err
	}
	r = newReport(o, all)
	jobs := makeJobs(o.items)
	for n := range o.runs {
		for i, c := range all {
			for _, w := range c.ways {
				f, err := c.measure(ctx, w, jobs)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", c.Name, w, err)
				}
				r.Rows[i].add(sample{Way: w, figures: f})
				_, _ = fmt.Fprintf(stderr, "run %d: %s, %s: %.0f/s\n", n+1, c.Name, w, f.EndToEnd)
			}
		}
	}
	r.conclude()
	return r, nil
}

// contender is one that is measured.
type contender struct {
	about
	ways []way
	// measure does the jobs once, on fresh data.
	measure func(ctx context.Context, w way, jobs []job) (figures, error)
}

// contenders are all that are measured, in the order of their turns.
func contenders(ctx context.Context, o options, dir string, found programs) ([]contender, error) {
	river, err := newRiverPeer(ctx, dir, found)
	if err != nil {
		return nil, err
	}
	all := []contender{
		river.contender(),
		newAsynqPeer(ctx, dir, found, false).contender(),
		newAsynqPeer(ctx, dir, found, true).contender(),
	}
	if o.exhume == "" {
		return all, nil
	}
	self, err := newExhume(ctx, dir, o.exhume)
	if err != nil {
		return nil, err
	}
	return append(all, self.contender()), nil
}

// dataDir makes the directory of all data, which the servers' user may enter.
// Nothing in it is removed before the end: after many removals some file systems
// are slow for a while.
func dataDir(parent string) (string, error) {
	parent, err := filepath.Abs(parent)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, "exhume-peers-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// inMemory says whether a directory lies in a tmpfs.
func inMemory(dir string) bool {
	const tmpfs = 0x01021994 // TMPFS_MAGIC
	var s syscall.Statfs_t
	return syscall.Statfs(dir, &s) == nil && s.Type == tmpfs
}
