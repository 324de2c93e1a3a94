package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/evidence"
)

func (c *cli) evidenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "evidence",
		GroupID: groupAsk,
		Short:   "Check the evidence log",
		Long: `Check the evidence log, archive_ops.jsonl in the evidence directory. What was lost of
it brings 'exhume ledger rebuild' back.`,
		Example: `  exhume evidence verify
  exhume evidence verify /var/lib/exhume/evidence`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.evidenceVerifyCommand())
	return cmd
}

func (c *cli) evidenceVerifyCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "verify [DIRECTORY]",
		Short: "Prove that no line of the log was changed, dropped or moved",
		Long: `Prove that no line of the log was changed, dropped or moved: each line of exhume's
carries the SHA-256 of the line before it, and a number. The log is that in the
directory, or the configured one. It does not matter whether somebody writes to it.

Two things the log alone cannot tell: that its last line was changed, and that lines at
the very end were dropped. The ledger knows up to which line the log went when it was
last written: with the configured directory that is compared as well, if the ledger can
be read here. Collectors compare it when they start.

Exit codes: 0 it verifies, 1 it does not: the first bad line is named.`,
		Example: `  exhume evidence verify
  exhume evidence verify /var/lib/exhume/evidence -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			cfg, err := c.config(cmd)
			if err != nil {
				return err
			}
			dir := cfg.Exhume.EvidenceDir
			if len(args) > 0 {
				dir = args[0]
			}
			return c.evidenceVerify(cmd.Context(), cfg, dir, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) evidenceVerify(ctx context.Context, cfg *app.Config, dir, output string) error {
	r, err := app.VerifyEvidence(ctx, cfg, dir)
	if err != nil {
		return err
	}
	if r.Unasked != "" {
		c.say("warning: where the log has to end was not compared: %s", printable(r.Unasked))
	}
	if output == "json" {
		return c.json(r)
	}
	_, err = fmt.Fprintf(c.out, `Log       %s
Lines     %d, of which %d are exhume's and %d of others
Batches   %d
Written   %s
%s
`, filepath.Join(dir, evidence.FileName), r.Lines, r.Records, r.Foreign, r.Batches, writtenText(r.Report), verdictText(r))
	return err
}

func verdictText(r app.VerifiedEvidence) string {
	if r.Ledger == "" {
		return "All verify, as far as the log alone can tell: not that its last line was changed, or lines at the very end dropped."
	}
	return "All verify, and the log goes on where ledger " + r.Ledger + " knows that it ended."
}

func writtenText(r evidence.Report) string {
	if r.Records == 0 {
		return "-"
	}
	return r.First + " to " + r.Last
}
