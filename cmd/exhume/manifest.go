package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/producer"
)

// manifestOptions are the flags of manifest.
type manifestOptions struct {
	queryFlags
	template, onCollision, actor, format, to string
	includePurged                            bool
}

func (c *cli) manifestCommand() *cobra.Command {
	var o manifestOptions
	cmd := &cobra.Command{
		Use:     "manifest",
		GroupID: groupArchive,
		Short:   "Write a manifest of what a query of the archive finds",
		Long: `Write a manifest of the items that all of the flags choose, newest first, for
batch-restore and submit. Nothing is written unless all of it is known to be
good; where no item is found, nothing is written either, and the exit code is 6.

--path is compared with an item's whole path, letter by letter. Within one name,
* stands for any characters, ? for one, [a-z] for one of some, [^a-z] for one of
all others; \ takes their meaning from them. A name ** stands for any number of
directories: '*.md' finds files at the top only, '**/*.md' those of any depth, and
'docs/**' all that lies below docs.

--output-template makes each item's output, relative to the root of the restore:
  {repo}       the repository            {commit}     the commit
  {path}       the path in it            {date}       when it was archived: 2026-01-31, UTC
  {name}       the path's last name      {sha256}     the content's SHA-256
  {tombstone}  the tombstone             {kind}, {reason}
Paths in the archive that are absolute or climb with .. are taken as if their
repository were the root of all.

Two items can't have the same output, not even but for letter case, and one can't
lie beneath another. --on-collision says what happens then: error names some of
them; newest keeps the item that was archived last and leaves the others out;
suffix keeps all, the older ones with ~ and the begin of their tombstone appended.`,
		Example: `  exhume manifest --repo acme/app --path 'docs/**' | exhume batch-restore - --root out --by ops
  exhume manifest --tag release-1 --since 2026-01-01 --until 2026-02-01 --to january.csv
  exhume manifest --repo acme/app --on-collision newest --by ops --to app.jsonl.gz
  exhume manifest --path '**/*.go' --output-template '{repo}/{commit}/{path}' --to all.jsonl`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.manifest(cmd, o) },
	}
	fs := cmd.Flags()
	o.add(fs, 0)
	fs.BoolVar(&o.includePurged, "include-purged", false, "also items whose bytes were purged or lost, which cannot be restored")
	fs.StringVar(&o.template, "output-template", "{repo}/{path}", "make outputs from this `template`")
	fs.StringVar(&o.onCollision, "on-collision", "error", "where items have the same output: `error|newest|suffix`")
	fs.StringVar(&o.actor, "by", "", "write into each row that it is restored on behalf of this `actor` (also --actor)")
	fs.StringVar(&o.to, "to", "", "write to this `file`, which appears only when it is complete; .gz compresses it (default stdout)")
	fs.StringVarP(&o.format, "output", "o", "", "`jsonl|json|csv` (default by the ending of --to, else jsonl)")
	aliases(fs, map[string]string{"actor": "by"})
	return cmd
}

func (c *cli) manifest(cmd *cobra.Command, o manifestOptions) (err error) {
	q, qerr := o.complete()
	q.Restorable = !o.includePurged
	template, terr := parseTemplate(o.template)
	if o.to == "-" {
		o.to = ""
	}
	err = errors.Join(qerr, terr, checkBy(o.actor), oneOf("on-collision", o.onCollision, "error", "newest", "suffix"),
		oneOf("output", o.format, "", "jsonl", "json", "csv"))
	if err != nil {
		return usage(cmd, err)
	}
	found, err := c.query(cmd, q, template)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, found.close()) }()
	if found.items == 0 {
		hint := ""
		if q.Restorable {
			hint = "; what was purged is left out without --include-purged"
		}
		return &codeError{exitNotFound, errors.New("the archive has no such items" + hint)}
	}
	result, err := c.settle(cmd.Context(), found, o.onCollision)
	if err != nil {
		return err
	}
	if result != found {
		defer func() { err = errors.Join(err, result.close()) }()
	}
	if err := deliverRows(c.out, o.to, o.format, result.rows(strings.TrimSpace(o.actor))); err != nil {
		return err
	}
	target, note := "stdout", ""
	if o.to != "" {
		target = o.to
	}
	if left := found.items - result.items; left > 0 {
		note = fmt.Sprintf("; %d older ones left out", left)
	}
	c.say("%d items, %s -> %s%s", result.items, bytesText(result.bytes), target, note)
	return nil
}

// query writes a draft of what the query finds.
func (c *cli) query(cmd *cobra.Command, q archive.Query, t template) (_ *draft, err error) {
	r, err := c.openArchive(cmd)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	d, err := newDraft()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	p := newProgress(c.err)
	for item, err := range r.List(cmd.Context(), q) {
		if err != nil {
			return nil, err
		}
		row, err := producer.CheckRow(rowOptions(), item.Tombstone, t.output(&item), "")
		if err != nil {
			return nil, &codeError{exitUsage, fmt.Errorf("item %s, %q of %q: %w\n"+
				"Choose an --output-template without what is wrong, such as {repo}/{tombstone}, or leave the item out", item.Tombstone, item.Path, item.Repo, err)}
		}
		if err := d.add(draftRow{row.Tombstone, row.Output, item.Size}); err != nil {
			return nil, err
		}
		p.line("%d items found", d.items)
	}
	return d, nil
}

// rowOptions are what rows are checked by. Where they go, and on whose behalf, is
// said when they are restored.
func rowOptions() producer.ManifestOptions {
	return producer.ManifestOptions{Root: "/", Actor: "-"}
}

// checkBy refuses an actor that no row may have.
func checkBy(actor string) error {
	if _, err := producer.CheckRow(rowOptions(), uuid.Nil.String(), "x", actor); err != nil {
		return fmt.Errorf("--by: %w", err)
	}
	return nil
}

// shownCollisions is how many of them are printed.
const shownCollisions = 5

// settle gives a draft without collisions: d itself if it has none.
func (c *cli) settle(ctx context.Context, d *draft, onCollision string) (_ *draft, err error) {
	older, reasons, err := d.collisions(ctx)
	switch {
	case err != nil:
		return nil, err
	case older.count == 0:
		return d, nil
	case onCollision == "error":
		return nil, c.collision(d, older, reasons, "--on-collision newest leaves these out, suffix gives them names of their own; "+
			"--output-template '{repo}/{commit}/{path}' tells commits apart, '{tombstone}/{path}' everything")
	}
	next, err := newDraft()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, next.close())
		}
	}()
	line := int64(0)
	for row, err := range d.all() {
		if err != nil {
			return nil, err
		}
		line++
		if older.has(line) {
			if onCollision == "newest" {
				continue
			}
			row.Output += "~" + row.Tombstone[:8]
		}
		if err := next.add(row); err != nil {
			return nil, err
		}
	}
	if onCollision == "newest" {
		return next, nil
	}
	older, reasons, err = next.collisions(ctx)
	if err == nil && older.count > 0 {
		err = c.collision(next, older, reasons, "a suffix does not help here; --output-template '{tombstone}/{path}' does")
	}
	return next, err
}

// collision names the first of the items that collide with newer ones.
func (c *cli) collision(d *draft, older lineSet, reasons map[int64]string, remedy string) error {
	line := int64(0)
	for row, err := range d.all() {
		if err != nil {
			return err
		}
		line++
		if reason := reasons[line]; reason != "" {
			c.say("%d: %s, output %q: %s", line, row.Tombstone, row.Output, reason)
		}
	}
	if more := older.count - int64(len(reasons)); more > 0 {
		c.say("… and %d more", more)
	}
	return &codeError{exitUsage, fmt.Errorf("%d of %d items cannot be restored beside newer ones (lines count the items, newest first)\n%s",
		older.count, d.items, remedy)}
}
