package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
)

func (c *cli) healthCheckCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "health-check",
		GroupID: groupAsk,
		Short:   "Check that the archive answers, and count what it holds",
		Long: `Check that the archive answers, and count what it holds. Nothing is created or
written. Exit code 5 when the archive is away.`,
		Example: `  exhume health-check
  exhume health-check --archive sqlite:////srv/archive.sqlite -o json`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			cfg, err := c.config(cmd)
			if err != nil {
				return err
			}
			return c.healthCheck(cmd, cfg, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

// health is what health-check prints as JSON.
type health struct {
	Status  string         `json:"status"`
	Backend string         `json:"backend"`
	URL     string         `json:"url"`
	Error   string         `json:"error,omitempty"`
	Archive *archive.Stats `json:"archive,omitempty"`
}

func (c *cli) healthCheck(cmd *cobra.Command, cfg *app.Config, output string) error {
	h := health{Status: "ok", Backend: cfg.Backend.Backend, URL: redacted(cfg, c.debug)}
	stats, err := archiveStats(cmd, cfg)
	if err != nil {
		h.Status, h.Error = "failed", err.Error()
	} else {
		h.Archive = &stats
	}
	if output == "json" {
		if jerr := c.json(h); jerr != nil {
			return jerr
		}
	} else {
		c.printHealth(h)
	}
	if err != nil {
		return &codeError{exitTemporary, err}
	}
	return nil
}

func (c *cli) printHealth(h health) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format+"\n", args...) }
	p("=== Archive Health Check ===")
	p("Backend: %s", h.Backend)
	p("URL: %s", printable(h.URL))
	if h.Archive == nil {
		p("Status: ✗ FAILED (%s)", printable(h.Error))
		return
	}
	s := h.Archive
	p("Items: %d", s.Items)
	p("Items Retrievable: %d", s.Retrievable)
	p("Items Purged: %d", s.Purged)
	p("Items Without Bytes: %d", s.Missing)
	p("Artifacts: %d, %s stored as %s", s.Artifacts, bytesText(s.RawBytes), bytesText(s.StoredBytes))
	p("Status: ✓ OK (backend accessible, %d items retrievable)", s.Retrievable)
}

func archiveStats(cmd *cobra.Command, cfg *app.Config) (s archive.Stats, err error) {
	r, err := archive.OpenReader(cmd.Context(), cfg.Backend.URL)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return r.Stats(cmd.Context())
}
