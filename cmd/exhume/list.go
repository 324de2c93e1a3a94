package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/archive"
)

// openArchive opens the configured archive for reading.
func (c *cli) openArchive(cmd *cobra.Command) (*archive.Reader, error) {
	cfg, err := c.config(cmd)
	if err != nil {
		return nil, err
	}
	return archive.OpenReader(cmd.Context(), cfg.Backend.URL)
}

func (c *cli) listCommand() *cobra.Command {
	var q archive.Query
	var since, output string
	def := "table"
	if c.codex {
		def = "json"
	}
	cmd := &cobra.Command{
		Use:     "list",
		GroupID: groupArchive,
		Short:   "List what is in the archive, newest first",
		Example: `  exhume list --limit 10
  exhume list --repo acme/app --since 2026-01-01
  exhume list --limit 0 -o jsonl | jq -r .tombstone_id`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json", "jsonl", "name"); err != nil {
				return usage(cmd, err)
			}
			var err error
			if q.Since, err = parseSince(since); err != nil {
				return usage(cmd, err)
			}
			if q.Limit < 0 {
				return usage(cmd, fmt.Errorf("--limit %d: want 0 (all) or more", q.Limit))
			}
			return c.list(cmd, q, output)
		},
	}
	cmd.Flags().StringVar(&q.Repo, "repo", "", "only this `repository`")
	cmd.Flags().StringVar(&since, "since", "", "only items archived at this `time` or later: 2026-01-31 or 2026-01-31T12:00:00Z, UTC")
	cmd.Flags().IntVar(&q.Limit, "limit", 50, "at most this `many`, 0 for all")
	cmd.Flags().StringVarP(&output, "output", "o", def, "`table|json|jsonl|name`")
	return cmd
}

func parseSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q: want 2026-01-31 or 2026-01-31T12:00:00Z", s)
}

func (c *cli) list(cmd *cobra.Command, q archive.Query, output string) (err error) {
	r, err := c.openArchive(cmd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	items := r.List(cmd.Context(), q)
	switch output {
	case "json":
		return jsonList(c, items)
	case "jsonl", "name":
		for item, err := range items {
			if err == nil && output == "name" {
				_, err = fmt.Fprintln(c.out, item.Tombstone)
			} else if err == nil {
				err = c.jsonLine(item)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	terr := c.table("TOMBSTONE STATE SIZE CODEC KIND REASON ARCHIVED BY REPO PATH TAGS", func(row func(...any)) {
		for item, ierr := range items {
			if ierr != nil {
				err = ierr
				return
			}
			row(item.Tombstone, item.State, item.Size, item.Codec, item.Kind, item.Reason, item.ArchivedAt, item.ArchivedBy,
				item.Repo, item.Path, strings.Join(item.Tags, ","))
		}
	})
	return errors.Join(err, terr)
}

func (c *cli) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show TOMBSTONE",
		GroupID: groupArchive,
		Short:   "Show all that the archive knows about one item, as JSON",
		Example: "  exhume show 9039c97b-1acb-4124-a066-1c30c7ed65f4",
		Args:    exactArgs("TOMBSTONE"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r, err := c.openArchive(cmd)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			d, err := r.Show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.json(d)
		},
	}
}
