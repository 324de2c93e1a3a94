package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// probeTimeout bounds a probe.
const probeTimeout = 10 * time.Second

func (c *cli) probeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "probe [HOST:PORT]",
		GroupID: groupFleet,
		Short:   "Ask a role whether it is ready",
		Long: `Ask the role that answers HTTP at HOST:PORT (default: where --http-listen or its
variable says) whether it is ready. Exit code 0 means that it is, 5 that it is not;
container engines use that.`,
		Example: `  exhume probe 127.0.0.1:7702`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.config(cmd)
			if err != nil {
				return err
			}
			at := cfg.Exhume.HTTPListen
			if len(args) == 1 {
				at = args[0]
			}
			return c.probe(cmd.Context(), at)
		},
	}
}

func (c *cli) probe(ctx context.Context, at string) error {
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return &codeError{exitUsage, fmt.Errorf("probe %q: want HOST:PORT, as an argument or in EXHUME_HTTP_LISTEN", at)}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	url := "http://" + net.JoinHostPort(host, port) + "/readyz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return &codeError{exitTemporary, fmt.Errorf("nobody answers at %s (does the role run there? --http-listen says where it answers): %w", at, err)}
	}
	defer resp.Body.Close() //nolint:errcheck // read as far as it is of interest
	var report struct {
		Status string            `json:"status"`
		Checks map[string]string `json:"checks"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&report); err != nil {
		return &codeError{exitTemporary, fmt.Errorf("%s: %w", url, err)}
	}
	if resp.StatusCode != http.StatusOK {
		bad := []string{report.Status}
		for _, name := range slices.Sorted(maps.Keys(report.Checks)) {
			bad = append(bad, fmt.Sprintf("  %s: %s", name, report.Checks[name]))
		}
		return &codeError{exitTemporary, fmt.Errorf("%s: %s", url, strings.Join(bad, "\n"))}
	}
	_, err = fmt.Fprintln(c.out, report.Status)
	return err
}
