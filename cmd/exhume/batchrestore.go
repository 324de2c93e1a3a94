package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// shownRejects is how many invalid rows are printed; all go to --rejects.
const shownRejects = 20

// batchRestoreFlags are the flags of batch-restore.
type batchRestoreFlags struct {
	actor, name, root, onInvalid, rejects, output string
	from                                          int64
	dryRun, continueOnError, acceptEvidence       bool
	terms                                         termsFlags
}

func (c *cli) batchRestoreCommand() *cobra.Command {
	var f batchRestoreFlags
	cmd := &cobra.Command{
		Use:     "batch-restore MANIFEST",
		GroupID: groupRestore,
		Short:   "Restore all items of a manifest",
		Long: `Restore all items of a manifest, a file or - for standard input, and return when
each has its result.

A manifest is a JSON list, a JSON object with "items", JSON lines, or CSV with a
header; each may be gzip-compressed. A row has a tombstone, an output (a path
below the root) and, if it differs from --by, an actor; whatever else it has is
carried along to the results.

Queue and ledger live in the state directory. A batch is named after what it
does; the same command again finishes only what is missing, whatever stopped it
before. Ctrl-C stops it in order, twice at once.`,
		Example: `  exhume batch-restore manifest.json --by ops
  exhume batch-restore items.csv --by ops --root /srv/restored --overwrite if-different
  zcat items.jsonl.gz | exhume batch-restore - --by ops --results results.json
  exhume batch-restore manifest.json --by ops --dry-run --rejects bad-rows.txt`,
		Args: exactArgs("MANIFEST"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.batchRestore(cmd, args[0], f) },
	}
	fs := cmd.Flags()
	manifestFlags(fs, &f)
	natsFlags(fs)
	fs.String("results", "", "write the result document, JSON, to this `file`")
	fs.String("memory", "", "hold at most this `size` of artifacts in memory (default 256MiB)")
	fs.String("item-timeout", "", "give an item up after this `long` and try it again (default 10m)")
	fs.BoolVar(&f.acceptEvidence, "accept-evidence", false, "go on although the evidence log was moved away, replaced or cut")
	output := ""
	if c.codex {
		output = "json"
	}
	fs.StringVarP(&f.output, "output", "o", output, "print to stdout: `json` (the result document) or name (the batch)")
	fs.BoolVar(&f.continueOnError, "continue-on-error", true, "accepted for compatibility: a failed item never stops the others")
	_ = fs.MarkHidden("continue-on-error")
	aliases(fs, map[string]string{"actor": "by"})
	return cmd
}

// manifestFlags are the flags of commands that submit a manifest.
func manifestFlags(fs *pflag.FlagSet, f *batchRestoreFlags) {
	fs.StringVar(&f.actor, "by", "", "restore on behalf of this `actor`, noted in evidence (also --actor)")
	fs.StringVar(&f.root, "root", "", "restore below this `directory` (default the manifest's)")
	fs.String("overwrite", "", "where other content stands: `never|if-different|always` (default never)")
	fs.String("mode", "", "permission `bits` of restored files, before the umask (default 0644)")
	fs.StringVar(&f.name, "batch", "", "name the batch instead of deriving its `name` from the work")
	fs.StringVar(&f.onInvalid, "on-invalid", "abort", "what invalid rows do: `abort|skip`")
	fs.StringVar(&f.rejects, "rejects", "", "write all invalid rows to this `file`, as file:line: reason")
	fs.Int64Var(&f.from, "resume-from", 0, "leave out the rows before this `number`, counted from 1")
	f.terms.add(fs)
	fs.BoolVar(&f.dryRun, "dry-run", false, "print the manifest's total, tell what would be done (see plan) and restore nothing")
}

// options are what the flags say of a manifest.
func (f *batchRestoreFlags) options(c *cli, manifest string, r *rejects, p app.Progress) app.BatchOptions {
	return app.BatchOptions{
		Manifest: manifest, Stdin: c.in, Actor: f.actor, Name: f.name, Root: f.root, SkipInvalid: f.onInvalid == "skip",
		From: f.from, CheckOnly: f.dryRun, AcceptEvidence: f.acceptEvidence, Rejected: r.add, Progress: p,
		Terms: f.terms.terms, Hold: f.terms.hold,
	}
}

func (c *cli) batchRestore(cmd *cobra.Command, manifest string, f batchRestoreFlags) (err error) {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	if err := errors.Join(f.check(), oneOf("output", f.output, "", "json", "name")); err != nil {
		return usage(cmd, err)
	}
	if f.dryRun && !c.codex {
		return c.dryRun(cmd, cfg, manifest, f, app.HasFleet(cfg))
	}
	rejects, err := c.newRejects(f.rejects)
	if err != nil {
		return err
	}
	start := time.Now()
	p := newProgress(c.err)
	batch, err := app.BatchRestore(cmd.Context(), cfg, f.options(c, manifest, rejects, p), c.logger(cfg))
	p.finish()
	if cerr := rejects.close(); cerr != nil {
		return errors.Join(err, cerr)
	}
	switch {
	case errors.Is(err, app.ErrInterrupted):
		return c.interrupted(batch)
	case err != nil:
		return err
	case f.dryRun:
		_, err := fmt.Fprintf(c.out, "{\n  \"total\": %d\n}\n", batch.Total)
		return err
	}
	c.summary(cfg, batch, time.Since(start))
	if err := c.deliver(cmd, cfg, batch, f.output); err != nil {
		return err
	}
	if code := codeOfState(batch.State); code != exitOK {
		return &codeError{code: code}
	}
	return nil
}

func (f *batchRestoreFlags) check() error {
	if f.name != "" {
		if err := schemas.CheckName(f.name); err != nil {
			return fmt.Errorf("--batch: %w", err)
		}
	}
	if f.from < 0 {
		return fmt.Errorf("--resume-from %d: want 1 or more", f.from)
	}
	return errors.Join(oneOf("on-invalid", f.onInvalid, "abort", "skip"), f.terms.check())
}

// interrupted says how to go on.
func (c *cli) interrupted(b app.Batch) error {
	if b.ID == "" {
		return &codeError{exitInterrupted, errors.New("interrupted before anything was submitted")}
	}
	if b.SealedAt.IsZero() {
		return &codeError{exitInterrupted, fmt.Errorf("interrupted: batch %s has %d items done, and is not submitted as a whole yet; the same command continues it",
			b.ID, b.Counts.Done())}
	}
	return &codeError{exitInterrupted, fmt.Errorf("interrupted: batch %s has %d of %d items done; the same command continues it",
		b.ID, b.Counts.Done(), b.Total)}
}

// summary tells how a batch ended, and where its evidence is.
func (c *cli) summary(cfg *app.Config, b app.Batch, took time.Duration) {
	c.counts(b, took)
	if !app.HasFleet(cfg) {
		c.say("Evidence: %s", app.EvidencePath(cfg))
	}
}

// counts tells how a batch ended.
func (c *cli) counts(b app.Batch, took time.Duration) {
	n := b.Counts
	if b.Known {
		switch missing := b.Total - b.Before.Done(); {
		case missing > 0:
			c.say("This batch was submitted before: %d items were done already, %d were missing.", b.Before.Done(), missing)
		default:
			c.say("This batch was submitted before and has ended: nothing was missing, nothing was done.")
			c.say("To do it all again, give it another name with --batch; what is there already is left as it is.")
		}
	}
	if b.Rejected > 0 {
		c.say("%d of %d rows were invalid and left out.", b.Rejected, b.Rows)
	}
	left := ""
	if n.Skipped+n.Cancelled > 0 {
		left = fmt.Sprintf(", %d skipped, %d cancelled", n.Skipped, n.Cancelled)
	}
	c.say("Batch %s %s: %d restored (%s), %d unchanged, %d failed%s of %d.",
		b.ID, b.State, n.Restored, bytesText(n.Bytes), n.Unchanged, n.Failed, left, b.Total)
	if did := n.Done() - b.Before.Done(); did > 0 {
		c.say("%.2f s, %.0f items/s.", took.Seconds(), float64(did)/took.Seconds())
	}
	if n.Cancelled > 0 {
		c.say("Cancelled items: %s batch retry %s --outcome cancelled", cmdName(c), b.ID)
	}
	if n.Failed > 0 {
		c.say("Failed items: %s batch results %s --outcome failed", cmdName(c), b.ID)
	}
}

// deliver writes the result document to where it was asked for.
func (c *cli) deliver(cmd *cobra.Command, cfg *app.Config, b app.Batch, output string) error {
	if path := cfg.Batch.ResultsPath; path != "" {
		if err := app.SaveResultDocument(cmd.Context(), cfg, b.ID, path, c.logger(cfg)); err != nil {
			return err
		}
		c.say("Batch results saved to %s", path)
	}
	switch output {
	case "json":
		if err := app.WriteResultDocument(cmd.Context(), cfg, b.ID, c.out, c.logger(cfg)); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.out)
		return err
	case "name":
		_, err := fmt.Fprintln(c.out, b.ID)
		return err
	}
	return nil
}

// rejects prints the first invalid rows and keeps all in a file.
type rejects struct {
	c     *cli
	shown int
	more  int64
	path  string
	file  *os.File
	w     *bufio.Writer
	err   error
}

func (c *cli) newRejects(path string) (*rejects, error) {
	r := &rejects{c: c, path: path}
	if path == "" {
		return r, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("--rejects: %w", err)
	}
	r.file, r.w = f, bufio.NewWriter(f)
	return r, nil
}

func (r *rejects) add(x producer.Reject) {
	if r.shown < shownRejects {
		r.shown++
		r.c.say("%s", x)
	} else {
		r.more++
	}
	if r.w != nil && r.err == nil {
		_, r.err = fmt.Fprintln(r.w, x)
	}
}

func (r *rejects) close() error {
	if r.more > 0 {
		hint := "; --rejects FILE keeps all of them"
		if r.path != "" {
			hint = "; all are in " + r.path
		}
		r.c.say("… and %d more invalid rows%s", r.more, hint)
	}
	if r.file == nil {
		return nil
	}
	if err := errors.Join(r.err, r.w.Flush(), r.file.Close()); err != nil {
		return fmt.Errorf("--rejects %s: %w", r.path, err)
	}
	return nil
}

func cmdName(c *cli) string {
	if c.codex {
		return "codex archive"
	}
	return "exhume"
}

// redacted is the configured archive as it may be shown.
func redacted(cfg *app.Config, debug bool) string {
	if debug {
		return cfg.Backend.URL
	}
	return archive.Redact(cfg.Backend.URL)
}
