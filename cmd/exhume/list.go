package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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

// queryFlags are the flags that choose items of the archive.
type queryFlags struct {
	query        archive.Query
	since, until string
}

func (f *queryFlags) add(fs *pflag.FlagSet, limit int) {
	q := &f.query
	fs.StringVar(&q.Repo, "repo", "", "only this `repository`")
	fs.StringArrayVar(&q.Paths, "path", nil, "only paths that are `glob` from begin to end: *, ? and [a-z] within a name, ** for any directories; may be repeated, one is enough")
	fs.StringArrayVar(&q.Tags, "tag", nil, "only items with this `tag`; may be repeated, all are wanted")
	fs.StringVar(&f.since, "since", "", "only items archived at this `time` or later: 2026-01-31 or 2026-01-31T12:00:00Z, UTC")
	fs.StringVar(&f.until, "until", "", "only items archived before this `time`")
	fs.StringVar(&q.Kind, "kind", "", "only `code|doc|asset`")
	fs.StringVar(&q.Reason, "reason", "", "only what was archived as `dead|pruned|legacy|replaced`")
	fs.StringVar(&q.ArchivedBy, "archived-by", "", "only what this `actor` archived")
	fs.IntVar(&q.Limit, "limit", limit, "at most this `many`, 0 for all")
}

// complete checks the flags and gives what they ask for.
func (f *queryFlags) complete() (q archive.Query, err error) {
	q = f.query
	if q.Since, err = parseSince(f.since); err != nil {
		return q, err
	}
	if q.Until, err = parseTime("until", f.until); err != nil {
		return q, err
	}
	for _, p := range q.Paths {
		if err := archive.CheckGlob(p); err != nil {
			return q, fmt.Errorf("--path: %w", err)
		}
	}
	switch {
	case f.until != "" && !q.Since.Before(q.Until):
		return q, fmt.Errorf("--until %s: that is not after --since %s", f.until, f.since)
	case q.Limit < 0:
		return q, fmt.Errorf("--limit %d: want 0 (all) or more", q.Limit)
	}
	return q, errors.Join(oneOf("kind", q.Kind, "", "code", "doc", "asset"),
		oneOf("reason", q.Reason, "", "dead", "pruned", "legacy", "replaced"))
}

func parseSince(s string) (time.Time, error) { return parseTime("since", s) }

// parseTime understands the value of a flag as a time, in UTC where it does not
// say otherwise.
func parseTime(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--%s %q: want 2026-01-31 or 2026-01-31T12:00:00Z", flag, s)
}

func (c *cli) listCommand() *cobra.Command {
	var f queryFlags
	var output string
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
  exhume list --tag release-1 --path 'docs/**' --path '**/*.md'
  exhume list --limit 0 -o jsonl | jq -r .tombstone_id`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.complete()
			if err := errors.Join(err, oneOf("output", output, "table", "json", "jsonl", "name")); err != nil {
				return usage(cmd, err)
			}
			return c.list(cmd, q, output)
		},
	}
	f.add(cmd.Flags(), 50)
	cmd.Flags().StringVarP(&output, "output", "o", def, "`table|json|jsonl|name`")
	return cmd
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
