package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

func (c *cli) batchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "batch",
		GroupID: groupAsk,
		Short:   "Look at batches and their results, and steer them",
		Long: `Look at batches and their results, and steer them. A batch is named by its id, the
beginning of one, or 'latest'.

What is changed is changed by the fleet's collector, and leaves a line of evidence
with who wanted it and why. In a state directory where nothing runs it is changed
there.`,
		Example: `  exhume batch list
  exhume batch show latest
  exhume batch results latest --outcome failed -o csv
  exhume batch why latest
  exhume batch pause latest --reason 'backup of the archive'`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	natsFlags(cmd.PersistentFlags())
	cmd.PersistentFlags().String("ledger", "", "ask the ledger in this PostgreSQL database, by `URL`")
	cmd.AddCommand(c.batchListCommand(), c.batchShowCommand(), c.batchResultsCommand(), c.batchWatchCommand(),
		c.batchWhyCommand(), c.batchHistoryCommand(), c.batchAuditCommand(),
		c.batchPauseCommand(), c.batchResumeCommand(), c.batchCancelCommand(), c.batchSetCommand(),
		c.batchRetryCommand(), c.batchCloneCommand(), c.batchReportCommand(), c.batchVerifyCommand())
	return cmd
}

// openBatches opens what answers questions about batches.
func (c *cli) openBatches(cmd *cobra.Command) (app.Batches, error) {
	cfg, err := c.config(cmd)
	if err != nil {
		return nil, err
	}
	l, err := app.OpenBatches(cmd.Context(), cfg, c.logger(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &codeError{exitNotFound, err}
	}
	return l, err
}

func (c *cli) batchListCommand() *cobra.Command {
	var output string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List batches, newest first",
		Example: `  exhume batch list
  exhume batch list --limit 5 -o json`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json", "jsonl", "name"); err != nil {
				return usage(cmd, err)
			}
			if limit < 0 {
				return usage(cmd, fmt.Errorf("--limit %d: want 0 (all) or more", limit))
			}
			return c.batchList(cmd, limit, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json|jsonl|name`")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this `many`, 0 for all")
	return cmd
}

func (c *cli) batchList(cmd *cobra.Command, limit int, output string) error {
	l, err := c.openBatches(cmd)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // opened for reading
	list, err := l.Batches(cmd.Context(), limit)
	if err != nil {
		return err
	}
	switch output {
	case "json":
		if list == nil {
			list = []schemas.Summary{}
		}
		return c.json(list)
	case "jsonl", "name":
		for _, s := range list {
			if output == "name" {
				_, err = fmt.Fprintln(c.out, s.ID)
			} else {
				err = c.jsonLine(s)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return c.table("BATCH STATE REASON TOTAL RESTORED UNCHANGED FAILED SKIPPED CANCELLED OPEN SIZE CREATED BY", func(row func(...any)) {
		for _, s := range list {
			n := s.Counts
			row(s.ID, s.State, s.Reason, s.Total, n.Restored, n.Unchanged, n.Failed, n.Skipped, n.Cancelled, s.Open(), bytesText(n.Bytes), moment(s.CreatedAt), s.Actor)
		}
	})
}

func (c *cli) batchShowCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "show BATCH",
		Short: "Show one batch, with its failures by code",
		Example: `  exhume batch show latest
  exhume batch show manifest-1f2e -o json`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			return c.batchShow(cmd, args[0], output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) batchShow(cmd *cobra.Command, ref, output string) error {
	l, err := c.openBatches(cmd)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // opened for reading
	s, err := l.Batch(cmd.Context(), ref)
	if err != nil {
		return err
	}
	if output == "json" {
		return c.json(s)
	}
	n := s.Counts
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format+"\n", args...) }
	p("Batch      %s", s.ID)
	p("State      %s", standingText(s.Batch))
	p("Items      %d: %d restored (%s), %d unchanged, %d failed, %d skipped, %d cancelled, %d open",
		s.Total, n.Restored, bytesText(n.Bytes), n.Unchanged, n.Failed, n.Skipped, n.Cancelled, s.Open())
	p("Terms      %s", termsText(s.Terms))
	if s.Source != nil {
		p("Items of   %s", s.Source.Batch)
	}
	p("Manifest   %s", printable(s.Manifest))
	p("           SHA-256 %s", s.ManifestSHA256)
	p("Archive    %s", printable(s.Archive))
	p("Root       %s", printable(s.Settings.Root))
	p("Overwrite  %s, mode %04o", s.Settings.Overwrite, s.Settings.Mode)
	p("By         %s", printable(s.Actor))
	p("Created    %s", moment(s.CreatedAt))
	if !s.EndedAt.IsZero() {
		p("Ended      %s, after %s", moment(s.EndedAt), s.EndedAt.Sub(s.CreatedAt).Round(time.Millisecond))
	}
	for _, i := range schemas.Codes() {
		if k := s.FailedByCode[i.Code]; k > 0 {
			p("Failed     %d %s: %s", k, i.Code, i.Cause)
		}
	}
	return nil
}

func (c *cli) batchResultsCommand() *cobra.Command {
	var output, outcome, code string
	cmd := &cobra.Command{
		Use:   "results BATCH",
		Short: "Print the results of a batch, item by item",
		Long: `Print the results of a batch in the order of its manifest. JSON is the document
that batch-restore writes with --results; CSV and JSON lines can be submitted
again as manifests.`,
		Example: `  exhume batch results latest
  exhume batch results latest --outcome failed -o csv > failed.csv
  exhume batch results latest -o jsonl | jq .durations`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			outcomes := []string{"", "restored", "unchanged", "failed", "skipped", "cancelled"}
			err := errors.Join(oneOf("output", output, "table", "json", "jsonl", "csv"), oneOf("outcome", outcome, outcomes...), knownCode(code))
			if err != nil {
				return usage(cmd, err)
			}
			return c.batchResults(cmd, args[0], resultFilter(outcome, code), output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json|jsonl|csv`")
	cmd.Flags().StringVar(&outcome, "outcome", "", "only `restored|unchanged|failed|skipped|cancelled` items")
	cmd.Flags().StringVar(&code, "code", "", "only items that failed with this `code`")
	return cmd
}

func resultFilter(outcome, code string) (f schemas.ResultFilter) {
	if outcome != "" {
		f.Outcomes = []schemas.Outcome{schemas.Outcome(outcome)}
	}
	f.Code = schemas.Code(code)
	return f
}

func (c *cli) batchResults(cmd *cobra.Command, ref string, f schemas.ResultFilter, output string) error {
	ctx := cmd.Context()
	l, err := c.openBatches(cmd)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // opened for reading
	s, err := l.Batch(ctx, ref)
	if err != nil {
		return err
	}
	switch output {
	case "json":
		cfg, err := c.config(cmd)
		if err != nil {
			return err
		}
		if err := app.WriteResults(c.out, s.Summary, l.Results(ctx, s.ID, f), cfg.Performance.Enabled); err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.out)
		return err
	case "csv":
		return app.ResultsCSV(c.out, l.Results(ctx, s.ID, f))
	case "jsonl":
		for r, err := range l.Results(ctx, s.ID, f) {
			if err != nil {
				return err
			}
			if err := c.jsonLine(r); err != nil {
				return err
			}
		}
		return nil
	}
	err = nil
	terr := c.table("INDEX OUTCOME CODE ATTEMPTS SIZE TOMBSTONE OUTPUT DETAIL", func(row func(...any)) {
		for r, rerr := range l.Results(ctx, s.ID, f) {
			if rerr != nil {
				err = rerr
				return
			}
			row(r.Index, r.Outcome, r.Code, r.Attempts, r.Size, r.Tombstone, r.Output, r.Detail)
		}
	})
	return errors.Join(err, terr)
}

// moment is a time for people, in UTC.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
