package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

func (c *cli) batchWatchCommand() *cobra.Command {
	var status bool
	var output string
	cmd := &cobra.Command{
		Use:   "watch BATCH",
		Short: "Follow a batch until it has ended",
		Long: `Follow a batch of the fleet that is configured or works in the state directory,
until it has ended. Ctrl-C ends the watching; the fleet goes on.

JSON lines have a type: progress (how the batch stands, with its rate and how many
seconds are left), where (what its open items wait for) and end.`,
		Example: `  exhume batch watch latest
  exhume batch watch latest --exit-status && echo all restored
  exhume batch watch latest -o jsonl | jq 'select(.type == "progress").items_per_second'`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "table", "jsonl"); err != nil {
				return usage(cmd, err)
			}
			return c.batchWatch(cmd, args[0], status, output)
		},
	}
	cmd.Flags().BoolVar(&status, "exit-status", false, "exit with the code of the state that the batch ends in")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|jsonl`")
	return cmd
}

func (c *cli) batchWatch(cmd *cobra.Command, ref string, status bool, output string) error {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	p := newProgress(c.err)
	var to app.Watcher = p
	if output == "jsonl" {
		to = &watchLines{c: c}
	}
	s, err := app.WatchBatch(cmd.Context(), cfg, ref, to, c.logger(cfg))
	p.finish()
	if errors.Is(err, app.ErrInterrupted) {
		return &codeError{code: exitInterrupted}
	}
	if err != nil {
		return err
	}
	if output == "jsonl" {
		if err := c.jsonLine(progressLine{Type: "end", Summary: s}); err != nil {
			return err
		}
	} else {
		n := s.Counts
		c.say("Batch %s %s: %d restored (%s), %d unchanged, %d failed, %d skipped, %d cancelled of %d.", s.ID, s.State,
			n.Restored, bytesText(n.Bytes), n.Unchanged, n.Failed, n.Skipped, n.Cancelled, s.Total)
	}
	if code := codeOfState(s.State); status && code != exitOK {
		return &codeError{code: code}
	}
	return nil
}

// watchLines tells of a batch in JSON lines.
type watchLines struct {
	c *cli
	pace
}

type progressLine struct {
	Type string `json:"type"`
	schemas.Summary
	ItemsPerSecond float64  `json:"items_per_second,omitempty"`
	BytesPerSecond float64  `json:"bytes_per_second,omitempty"`
	SecondsLeft    *float64 `json:"seconds_left,omitempty"`
}

type whereLine struct {
	Type string `json:"type"`
	schemas.Whereabouts
}

// Restoring implements app.Watcher.
func (w *watchLines) Restoring(s schemas.Summary) {
	w.observe(s, time.Now())
	line := progressLine{Type: "progress", Summary: s, ItemsPerSecond: w.items, BytesPerSecond: w.bytes}
	if left, ok := w.left(s); ok {
		seconds := left.Seconds()
		line.SecondsLeft = &seconds
	}
	_ = w.c.jsonLine(line) // whoever reads has gone
}

// Where implements app.Watcher.
func (w *watchLines) Where(at schemas.Whereabouts) {
	_ = w.c.jsonLine(whereLine{Type: "where", Whereabouts: at}) // whoever reads has gone
}
