package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

func (c *cli) submitCommand() *cobra.Command {
	var f batchRestoreFlags
	var wait bool
	cmd := &cobra.Command{
		Use:     "submit MANIFEST",
		GroupID: groupFleet,
		Short:   "Submit a manifest to a fleet",
		Long: `Submit a manifest, a file or - for standard input, to the fleet that is configured
or works in the state directory (see 'exhume up'). Manifests are those of
batch-restore, and so are the names of batches: the same manifest again finishes
only what is missing.

The root is a directory as the workers see it, or s3://bucket/prefix.`,
		Example: `  exhume submit manifest.jsonl --by ops --root /srv/restored
  exhume submit items.csv --by ops --root s3://restored/2026 --nats nats://nats:4222 --wait
  exhume batch watch "$(exhume submit items.csv --by ops -o name)"`,
		Args: exactArgs("MANIFEST"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.submit(cmd, args[0], f, wait) },
	}
	fs := cmd.Flags()
	manifestFlags(fs, &f)
	f.terms.addHold(fs)
	natsFlags(fs)
	fs.BoolVar(&wait, "wait", false, "return when the batch has ended, with the exit code of its state")
	fs.StringVarP(&f.output, "output", "o", "", "print to stdout: `name` (the batch)")
	aliases(fs, map[string]string{"actor": "by"})
	return cmd
}

func (c *cli) submit(cmd *cobra.Command, manifest string, f batchRestoreFlags, wait bool) error {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	if err := errors.Join(f.check(), oneOf("output", f.output, "", "name")); err != nil {
		return usage(cmd, err)
	}
	if f.dryRun && !c.codex {
		return c.dryRun(cmd, cfg, manifest, f, true)
	}
	rejects, err := c.newRejects(f.rejects)
	if err != nil {
		return err
	}
	start := time.Now()
	p := newProgress(c.err)
	batch, err := app.Submit(cmd.Context(), cfg, f.options(c, manifest, rejects, p), wait, c.logger(cfg))
	p.finish()
	if cerr := rejects.close(); cerr != nil {
		return errors.Join(err, cerr)
	}
	switch {
	case errors.Is(err, app.ErrInterrupted) && batch.ID != "":
		return &codeError{exitInterrupted, fmt.Errorf("interrupted: the fleet goes on with batch %s; '%s batch watch %s' follows it", batch.ID, cmdName(c), batch.ID)}
	case errors.Is(err, app.ErrInterrupted):
		return c.interrupted(batch)
	case err != nil:
		return err
	case f.dryRun:
		_, err := fmt.Fprintf(c.out, "{\n  \"total\": %d\n}\n", batch.Total)
		return err
	case f.output == "name":
		if _, err := fmt.Fprintln(c.out, batch.ID); err != nil {
			return err
		}
	}
	switch {
	case batch.State == schemas.StatePaused:
		c.say("Batch %s submitted: %d items. It is %s; '%s batch start %s' begins it.", batch.ID, batch.Total, standingText(batch.Batch), cmdName(c), batch.ID)
		return nil
	case !batch.State.Final():
		c.say("Batch %s submitted: %d items. '%s batch watch %s' follows it.", batch.ID, batch.Total, cmdName(c), batch.ID)
		return nil
	}
	c.counts(batch, time.Since(start))
	if code := codeOfState(batch.State); code != exitOK {
		return &codeError{code: code}
	}
	return nil
}
