// Package bench measures the whole of exhume on the machine it runs on, each time
// beside the bare work that cannot be saved, and cleans up after itself.
//
// A measurement consists of runs. Each has a directory of its own, in which
// nothing existed before, and nothing is deleted before the last one has ended:
// file systems are slow for a while after many files were deleted. What a run is
// held against is measured in turn with it, because machines change their pace.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/ledger"
)

// Mode is what is measured.
type Mode string

// The modes.
const (
	// Restore: a batch of files from manifest to evidence.
	Restore Mode = "restore"
	// Large: the same with few large files.
	Large Mode = "large"
	// Noop: the same without reading or writing an artifact: queue and
	// bookkeeping alone.
	Noop Mode = "noop"
	// Submit: a manifest is submitted to a fleet that does not work on it yet.
	Submit Mode = "submit"
	// ManyBatches: many batches are active at the same time; all are submitted
	// before the workers start.
	ManyBatches Mode = "many-batches"
	// Idle: a fleet that has nothing to do.
	Idle Mode = "idle"
)

// Options say what is measured. The zero value of each field but Mode is
// replaced by the mode's default; see Defaults.
type Options struct {
	Mode Mode
	// Items is how many there are in all, Size their mean size in bytes.
	Items int
	Size  int64
	// Files, if set, is a directory whose files are archived instead of made-up
	// ones, as many as Items; Size does not count then.
	Files string
	// Backend and Ledger are "sqlite", or the URL of a server on which a database
	// may be created: PostgreSQL or MariaDB for the archive, PostgreSQL for the
	// ledger. The database is removed in the end.
	Backend, Ledger string
	// Workers is how many worker processes there are, beside one of the
	// collector; 0 does everything in one process.
	Workers int
	// Batches is how many batches share the items of ManyBatches.
	Batches int
	// Runs is how many runs there are.
	Runs int
	// Dir is below which everything is kept (default: the directory for temporary
	// files).
	Dir string
	// Program is exhume's executable file, for processes of its own.
	Program string
	// Say, if set, tells how the work goes on.
	Say func(format string, args ...any)
}

// SQLite is the backend and the ledger that need no server.
const SQLite = "sqlite"

// Defaults are the options that a mode is measured with unless told otherwise.
func Defaults(m Mode) (Options, error) {
	o := Options{Mode: m, Items: 20_000, Size: 8 << 10, Backend: SQLite, Ledger: SQLite, Runs: 3, Batches: 1}
	switch m {
	case Restore:
	case Large:
		o.Items, o.Size = 100, 50<<20
	case Noop:
		o.Items, o.Size = 200_000, 0
	case Submit:
		o.Items, o.Size = 1_000_000, 0
	case ManyBatches:
		o.Batches, o.Workers = 500, 1
	case Idle:
		o.Items, o.Workers, o.Runs = 0, 1, 1
	default:
		return o, fmt.Errorf("mode %q: want restore, large, noop, submit, many-batches or idle", m)
	}
	return o, nil
}

// check refuses what cannot be measured.
func (o *Options) check() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Items < 1 && o.Mode != Idle {
		refuse("%d items: want 1 or more", o.Items)
	}
	if o.Size < 0 || o.Size > maxSize {
		refuse("a size of %d bytes: want at most %d", o.Size, int64(maxSize))
	}
	if o.Runs < 1 || o.Batches < 1 || o.Workers < 0 {
		refuse("%d runs of %d batches with %d workers: want 1 or more", o.Runs, o.Batches, o.Workers)
	}
	if o.Batches > max(o.Items, 1) {
		refuse("%d batches cannot share %d items", o.Batches, o.Items)
	}
	switch {
	case o.Mode == Noop && o.Workers > 0:
		refuse("mode noop works in one process: leave out the workers")
	case (o.Mode == ManyBatches || o.Mode == Idle) && o.Workers == 0:
		refuse("mode %s needs 1 worker process or more", o.Mode)
	case o.Mode == Submit && o.Workers > 0:
		refuse("mode submit measures without workers: leave them out")
	}
	return errors.Join(errs...)
}

// world is what the runs of one measurement share.
type world struct {
	Options
	dir string
	// archive is the URL of the archive that all runs restore from.
	archive string
	corpus  corpus
	runs    int // so far
	// drop removes databases, the last first.
	drop []func(context.Context) error
}

// Run measures. What it made is removed when it returns, also after an error.
func Run(ctx context.Context, o Options) (r Report, err error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if err := o.check(); err != nil {
		return r, err
	}
	w := &world{Options: o}
	if w.dir, err = os.MkdirTemp(o.Dir, "exhume-bench-"); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.remove(context.WithoutCancel(ctx))) }()
	if err := w.prepare(ctx); err != nil {
		return r, err
	}
	r = Report{
		Mode: o.Mode, Items: o.Items, Size: o.Size, Files: o.Files, Backend: kind(o.Backend), Ledger: kind(o.Ledger), Workers: o.Workers,
		Batches: o.Batches, Processors: runtime.NumCPU(), Against: against[o.Mode],
	}
	for i := range o.Runs {
		o.Say("run %d of %d", i+1, o.Runs)
		one, err := w.run(ctx)
		if ctx.Err() != nil {
			return r, app.ErrInterrupted // whatever else that has broken off
		}
		if err != nil {
			return r, err
		}
		r.Runs = append(r.Runs, one)
	}
	r.Median = median(r.Runs)
	return r, nil
}

// kind is the kind of database that a URL names.
func kind(url string) string {
	if url == SQLite {
		return SQLite
	}
	at, err := archive.ParseURL(url)
	if err != nil {
		return "unknown"
	}
	return at.Backend
}

// prepare makes the archive and the manifest.
func (w *world) prepare(ctx context.Context) (err error) {
	w.archive = "sqlite:///" + filepath.Join(w.dir, "archive.sqlite")
	if w.Backend != SQLite {
		if w.archive, err = w.database(ctx, w.Backend); err != nil {
			return err
		}
	}
	cfg, err := app.LocalConfig(w.dir, map[string]string{"backend.url": w.archive})
	if err != nil {
		return err
	}
	w.Say("preparing %d items in %s", w.Items, w.dir)
	wr, err := archive.CreateWriter(ctx, cfg.Backend.URL)
	if err == nil {
		err = wr.Close()
	}
	if err != nil {
		return err
	}
	w.corpus, err = w.pack(ctx, cfg)
	return err
}

// database creates a database on a server, to be removed in the end.
func (w *world) database(ctx context.Context, server string) (url string, err error) {
	url, drop, err := archive.Scratch(ctx, server, fmt.Sprintf("exhume_bench_%d_%d", os.Getpid(), len(w.drop)))
	if err == nil {
		w.drop = append(w.drop, drop)
	}
	return url, err
}

// remove removes all that was made.
func (w *world) remove(ctx context.Context) error {
	var errs []error
	for _, drop := range slices.Backward(w.drop) {
		errs = append(errs, drop(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// place is where one run happens: a new directory, and a ledger of its own.
func (w *world) place(ctx context.Context) (dir string, cfg *app.Config, err error) {
	if dir, err = os.MkdirTemp(w.dir, "run-"); err != nil {
		return "", nil, err
	}
	changes := map[string]string{"backend.url": w.archive}
	if w.Mode == Noop {
		changes["exhume.archive_events"] = "false" // of items that no archive has
		changes["exhume.report_dir"] = "off"       // comes after the batch, and is no bookkeeping
	}
	if w.Ledger != SQLite {
		if changes["exhume.ledger_url"], err = w.database(ctx, w.Ledger); err != nil {
			return "", nil, err
		}
		if _, err := ledger.MigrateUp(ctx, changes["exhume.ledger_url"]); err != nil {
			return "", nil, err
		}
	}
	cfg, err = app.LocalConfig(dir, changes)
	return dir, cfg, err
}

// against says what a mode's figures are held against.
var against = map[Mode]string{
	Restore:     "the same groups read, decoded, checked, written and synced without queue, results, ledger, evidence and archive events",
	Large:       "the same files read, decoded, checked, written and synced one after the other, two at a time",
	Noop:        "the same requests published, pulled and acknowledged without results, ledger and evidence",
	Submit:      "the same requests published without a manifest",
	ManyBatches: "the same items in one batch",
}

// run measures once, and what that is held against before or after it in turn.
func (w *world) run(ctx context.Context) (r Measured, err error) {
	w.runs++
	var raw *Rate
	bareFirst := w.runs%2 == 0
	if bareFirst {
		raw, err = w.bare(ctx)
	}
	if err == nil {
		r, err = w.measure(ctx)
	}
	if !bareFirst && err == nil {
		raw, err = w.bare(ctx)
	}
	if r.Raw = raw; raw != nil {
		r.Ratio = r.Items / raw.Items
	}
	return r, err
}
