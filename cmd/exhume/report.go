package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
)

func (c *cli) batchReportCommand() *cobra.Command {
	var output, to string
	cmd := &cobra.Command{
		Use:   "report BATCH",
		Short: "Write the completion report of a batch",
		Long: `Write the completion report of a batch into a directory that has the batch's id
for a name, and print its path. There are

  report.json   how the batch went: counts, speed, failures in groups with a
                remedy, the slowest items, what each worker did, events
  restored.csv  the items that are in their places, with size and SHA-256
  failed.csv    those that failed, with code and cause
  skipped.csv   those that were skipped or cancelled

Each CSV can be submitted again as a manifest; --root says then below which
directory. An earlier report on the batch is replaced. The collector writes one by
itself when a batch ends.`,
		Example: `  exhume batch report latest
  exhume batch report latest --to /srv/reports
  exhume batch report latest -o json | jq .failures`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "path", "json"); err != nil {
				return usage(cmd, err)
			}
			return c.batchReport(cmd, args[0], to, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "path", "`path|json`; json prints report.json and writes nothing")
	cmd.Flags().StringVar(&to, "to", ".", "write into a directory below this `directory`")
	return cmd
}

func (c *cli) batchReport(cmd *cobra.Command, ref, to, output string) error {
	ctx := cmd.Context()
	l, err := c.openBatches(cmd)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // opened for reading
	if output == "json" {
		r, err := app.MakeReport(ctx, l, ref)
		if err != nil {
			return err
		}
		return c.json(r)
	}
	path, b, err := app.SaveReport(ctx, l, ref, to)
	if err != nil {
		return err
	}
	if !b.State.Final() {
		c.say("Batch %s is still %s: this is the report on what it has done so far.", b.ID, b.State)
	}
	_, err = fmt.Fprintln(c.out, path)
	return err
}
