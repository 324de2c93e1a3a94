package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
)

func (c *cli) ledgerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ledger",
		GroupID: groupFleet,
		Short:   "Rebuild the ledger, or the evidence, when one of them was lost",
		Long: `Rebuild the ledger, or the evidence, when one of them was lost. For the schema of the
ledger see 'exhume migrate'.`,
		Example: `  exhume ledger rebuild --dry-run
  exhume ledger rebuild --by ops --reason 'the disk died'`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.ledgerRebuildCommand())
	return cmd
}

func (c *cli) ledgerRebuildCommand() *cobra.Command {
	var f commandFlags
	var output string
	var o app.RebuildOptions
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Bring back what was lost of ledger and evidence",
		Long: `Bring back what was lost of ledger and evidence, from what is left: the results that
the broker keeps (exhume.results_age, 30 days), the batches that it shows to workers,
the evidence and the ledger itself. It only adds, and running it again adds nothing;
--dry-run says what would be added. Lines of evidence that are there are never written
again, and before those that are added stand ones that say so (EVIDENCE_REBUILD). One
that was broken off has to be run again: collectors refuse to start until then.

Stop all collectors before, and start them afterwards: batches that have not ended go
on then. A ledger or an evidence log that is damaged, and not lost, has to be moved
away first. Where several collectors share a ledger, run it with the evidence
directory of one of them, and name those of the others with --beside, and so logs that
were moved away: what stands in a log that is not named is written again.

What cannot be known any more: settings and manifest of batches of which only results
are left, and of items of which only evidence is left, their ids in the archive.

Exit codes: 0 done, 1 evidence does not verify or another error, 5 broker or ledger
away, 7 a collector is working, or somebody else rebuilds.`,
		Example: `  exhume ledger rebuild --dry-run
  exhume ledger rebuild --by ops --reason 'the disk died'
  exhume ledger rebuild --nats nats://nats:4222 --ledger postgresql://exhume@db/ledger --evidence-dir /var/lib/exhume/evidence
  exhume ledger rebuild --nats nats://nats:4222 --evidence-dir /srv/a/evidence --beside /srv/b/evidence -o json
  exhume ledger rebuild --beside old/archive_ops.2026.jsonl`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			by := f.command()
			o.Actor, o.Reason = by.Actor, by.Note
			return c.ledgerRebuild(cmd, o, output)
		},
	}
	f.add(cmd)
	natsFlags(cmd.Flags())
	cmd.Flags().String("ledger", "", "the ledger's PostgreSQL `URL` (default a SQLite file in the state directory)")
	cmd.Flags().StringArrayVar(&o.Beside, "beside", nil, "`path` of the evidence directory of another collector of this ledger, or of a log that was moved away; may be repeated")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be added")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) ledgerRebuild(cmd *cobra.Command, o app.RebuildOptions, output string) error {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	r, err := app.RebuildLedger(cmd.Context(), cfg, o, c.logger(cfg))
	if used, ok := errors.AsType[*app.InUseError](err); ok {
		return &codeError{exitRefused, used}
	}
	if err != nil {
		return err
	}
	for _, p := range r.Problems {
		c.say("warning: %s", printable(p))
	}
	if output == "json" {
		return c.json(r)
	}
	what := "Added"
	if o.DryRun {
		what = "Would add"
	}
	_, err = fmt.Fprintf(c.out, `Read      %d messages of results, %d lines of evidence
%-9s %d batches, %d results, %d failed attempts to ledger %s
%-9s %d lines to evidence %s
Ended     %d batches
`, r.Messages, r.Records, what, r.Batches, r.Results, r.Attempts, r.Ledger, what, r.Lines, r.Evidence, r.Ended)
	return err
}
