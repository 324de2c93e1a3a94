package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/broker"
)

func (c *cli) doctorCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "doctor",
		GroupID: groupFleet,
		Short:   "Compare a fleet's broker with what it should be",
		Long: `Compare the streams, buckets and consumers of the fleet's NATS with what they
should be, say how to mend what differs, and how full the streams are. It changes
nothing: a collector that starts corrects what it safely can.

Exit codes: 0 when nothing harmful differs, 1 when something does.`,
		Example: `  exhume doctor --nats nats://nats:4222
  exhume doctor --context production -o json`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			return c.doctor(cmd, output)
		},
	}
	natsFlags(cmd.Flags())
	cmd.Flags().String("nats-replicas", "", "streams should be kept on this `number` of servers (default 1)")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) doctor(cmd *cobra.Command, output string) error {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	found, streams, err := app.CheckBroker(cmd.Context(), cfg, c.logger(cfg))
	if err != nil {
		return err
	}
	harmful := 0
	for _, d := range found {
		if d.Harmful {
			harmful++
		}
	}
	switch {
	case output == "json":
		err = c.json(struct {
			Differences []broker.Difference `json:"differences"`
			Streams     []broker.Usage      `json:"streams"`
		}{append([]broker.Difference{}, found...), append([]broker.Usage{}, streams...)})
	case len(found) == 0:
		_, err = fmt.Fprintln(c.out, "Streams, buckets and consumers are as they should be.")
	default:
		err = c.table("WHERE SETTING HAVE WANT HARMFUL CORRECTED REMEDY", func(row func(...any)) {
			for _, d := range found {
				row(d.Of, d.Setting, d.Have, d.Want, yes(d.Harmful), yes(d.Safe), d.Remedy)
			}
		})
	}
	if err == nil && output == "table" && len(streams) > 0 {
		err = c.streamsTable(streams)
	}
	if err != nil {
		return err
	}
	if harmful > 0 {
		return &codeError{exitError, fmt.Errorf("%d %s would lose or stop work", harmful, plural(harmful, "difference", "differences"))}
	}
	return nil
}

// streamsTable prints how full streams are.
func (c *cli) streamsTable(streams []broker.Usage) error {
	if _, err := fmt.Fprintln(c.out); err != nil {
		return err
	}
	return c.table("STREAM BYTES BOUND FULL SETTING", func(row func(...any)) {
		for _, s := range streams {
			bound, full := "none", ""
			if s.Bound > 0 {
				bound, full = bytesText(s.Bound), fmt.Sprintf("%d%%", 100*s.Bytes/s.Bound)
			}
			row(s.Stream, bytesText(s.Bytes), bound, full, s.Setting)
		}
	})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
