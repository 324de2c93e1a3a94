package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
)

func (c *cli) batchWatchCommand() *cobra.Command {
	var status bool
	cmd := &cobra.Command{
		Use:   "watch BATCH",
		Short: "Follow a batch of a fleet until it has ended",
		Long: `Follow a batch of the fleet that is configured or works in the state directory,
until it has ended. Ctrl-C ends the watching; the fleet goes on.`,
		Example: `  exhume batch watch latest
  exhume batch watch latest --exit-status && echo all restored`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.batchWatch(cmd, args[0], status) },
	}
	cmd.Flags().BoolVar(&status, "exit-status", false, "exit with the code of the state that the batch ends in")
	return cmd
}

func (c *cli) batchWatch(cmd *cobra.Command, ref string, status bool) error {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	p := newProgress(c.err)
	s, err := app.WatchBatch(cmd.Context(), cfg, ref, p.Restoring, c.logger(cfg))
	p.finish()
	if errors.Is(err, app.ErrInterrupted) {
		return &codeError{code: exitInterrupted}
	}
	if err != nil {
		return err
	}
	n := s.Counts
	c.say("Batch %s %s: %d restored (%s), %d unchanged, %d failed of %d.", s.ID, s.State, n.Restored, bytesText(n.Bytes), n.Unchanged, n.Failed, s.Total)
	if code := codeOfState(s.State); status && code != exitOK {
		return &codeError{code: code}
	}
	return nil
}
