package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

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

That lines at the very end were dropped the log alone cannot tell: the collector
notices it when it starts, because the ledger knows where the log ended.

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
			return c.evidenceVerify(dir, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) evidenceVerify(dir, output string) error {
	path := filepath.Join(dir, evidence.FileName)
	r, err := evidence.Verify(path)
	if err != nil {
		return err
	}
	if output == "json" {
		return c.json(r)
	}
	_, err = fmt.Fprintf(c.out, `Log       %s
Lines     %d, of which %d are exhume's and %d of others
Batches   %d
Written   %s
All verify.
`, path, r.Lines, r.Records, r.Foreign, r.Batches, writtenText(r))
	return err
}

func writtenText(r evidence.Report) string {
	if r.Records == 0 {
		return "-"
	}
	return r.First + " to " + r.Last
}
