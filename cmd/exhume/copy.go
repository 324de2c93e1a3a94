package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

// copyFlags choose results, and say what becomes of their items.
type copyFlags struct {
	commandFlags
	terms                termsFlags
	outcomes             []string
	code, message, since string
	limit                int64
	as, root, overwrite  string
	failed, dryRun       bool
}

func (f *copyFlags) addChoice(fs *pflag.FlagSet) {
	fs.StringVar(&f.code, "code", "", "only items that ended with this `code`")
	fs.StringVar(&f.message, "message", "", "only items whose error, as 'exhume dlq list' shows it, is this `text`")
	fs.StringVar(&f.since, "since", "", "only items that ended at this `time` or later: 2026-01-31 or 2026-01-31T12:00:00Z, UTC")
	fs.Int64Var(&f.limit, "limit", 0, "at most this `many` items, 0 for all")
}

func (f *copyFlags) addNew(cmd *cobra.Command) {
	f.add(cmd)
	f.addYes(cmd)
	fs := cmd.Flags()
	f.terms.add(fs)
	f.terms.addHold(fs)
	fs.BoolVar(&f.dryRun, "dry-run", false, "only say how many items that would be")
}

func (f *copyFlags) filter() (r schemas.ResultFilter, err error) {
	r.Code, r.Message = schemas.Code(f.code), f.message
	for _, o := range f.outcomes {
		if err := oneOf("outcome", o, "restored", "unchanged", "failed", "skipped", "cancelled"); err != nil {
			return r, err
		}
		r.Outcomes = append(r.Outcomes, schemas.Outcome(o))
	}
	if f.limit < 0 {
		return r, fmt.Errorf("--limit %d: want 0 (all) or more", f.limit)
	}
	if err := knownCode(f.code); err != nil {
		return r, err
	}
	r.Since, err = parseSince(f.since)
	return r, err
}

// knownCode checks the value of --code, which may be empty.
func knownCode(code string) error {
	known := func(i schemas.CodeInfo) bool { return string(i.Code) == code }
	if code == "" || slices.ContainsFunc(schemas.Codes(), known) {
		return nil
	}
	return fmt.Errorf("--code %q: there is no such code; 'exhume errors' lists them", code)
}

func (c *cli) batchRetryCommand() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use:   "retry BATCH",
		Short: "Make a new batch of what failed, or was cancelled or skipped",
		Long: `Make a new batch of those items of a batch that failed, or of others that the flags
choose. The batch must have ended. The new one has the same settings and remembers
where its items come from; it is made where the collector is, whatever its size.`,
		Example: `  exhume batch retry latest
  exhume batch retry latest --code destination_exists --overwrite if-different
  exhume batch retry nightly-1f2e --outcome cancelled --outcome failed --yes
  exhume batch retry latest --dry-run`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.failed || len(f.outcomes) == 0 {
				f.outcomes = append(f.outcomes, "failed")
			}
			return c.copyBatch(cmd, args[0], &f, "retry")
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.failed, "failed", false, "items that failed, the same as --outcome failed")
	fs.StringArrayVar(&f.outcomes, "outcome", nil, "items with this `outcome`, several times for several: restored, unchanged, failed, skipped, cancelled (default failed)")
	f.addChoice(fs)
	fs.StringVar(&f.overwrite, "overwrite", "", "another policy for outputs that exist: `never|if-different|always`")
	fs.StringVar(&f.as, "batch", "", "the new batch's `name` (default made from the old one's)")
	f.addNew(cmd)
	return cmd
}

func (c *cli) batchCloneCommand() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use:   "clone BATCH",
		Short: "Make a new batch of all items of a batch",
		Long: `Make a new batch of all items of a batch that has ended, to restore them once more
or elsewhere.`,
		Example: `  exhume batch clone latest --root /srv/second
  exhume batch clone latest --overwrite always --hold`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.copyBatch(cmd, args[0], &f, "clone") },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.root, "root", "", "restore below this `directory` or bucket instead of the batch's own")
	fs.StringVar(&f.overwrite, "overwrite", "", "another policy for outputs that exist: `never|if-different|always`")
	fs.StringVar(&f.as, "batch", "", "the new batch's `name` (default made from the old one's)")
	f.addNew(cmd)
	return cmd
}

// copyBatch makes a new batch of items of another.
func (c *cli) copyBatch(cmd *cobra.Command, ref string, f *copyFlags, kind string) error {
	filter, err := f.filter()
	err = errors.Join(err, f.terms.check(), oneOf("overwrite", f.overwrite, "", "never", "if-different", "always"))
	if err == nil && f.as != "" {
		err = schemas.CheckName(f.as)
	}
	if err != nil {
		return usage(cmd, err)
	}
	root, err := app.AbsoluteRoot(f.root)
	if err != nil {
		return usage(cmd, err)
	}
	return c.steer(cmd, func(to *app.Controls) error {
		r, err := to.Get(cmd.Context(), ref)
		if err != nil {
			return err
		}
		q := schemas.BatchCopy{
			BatchRef: schemas.BatchRef{Ref: r.ID}, Command: f.command(), ResultFilter: filter, Limit: f.limit,
			As: f.as, Root: root, Overwrite: schemas.Overwrite(f.overwrite), Hold: f.terms.hold,
		}
		return c.copyItems(cmd, to, q, f, kind)
	})
}

// copyItems counts first, asks, and makes the batch.
func (c *cli) copyItems(cmd *cobra.Command, to *app.Controls, q schemas.BatchCopy, f *copyFlags, kind string) error {
	count := q
	count.DryRun, count.As = true, "count"
	n, err := to.Copy(cmd.Context(), count)
	if err != nil {
		return err
	}
	if f.dryRun || n.Items == 0 {
		c.say("%d items of batch %s would be in the new batch.", n.Items, q.Ref)
		return nil
	}
	if err := c.confirm(cmd, &f.commandFlags, fmt.Sprintf("%d items of batch %s will be restored as a new batch.", n.Items, q.Ref)); err != nil {
		return err
	}
	if q.Terms, err = f.terms.terms(n.Items); err != nil {
		return err
	}
	if q.As == "" {
		q.As = copyName(q.Ref, kind)
	}
	made, err := to.Copy(cmd.Context(), q)
	if err != nil {
		return err
	}
	c.say("Batch %s has %d items and is %s.", made.Batch.ID, made.Items, standingText(made.Batch.Batch))
	if _, err := fmt.Fprintln(c.out, made.Batch.ID); err != nil {
		return err
	}
	if to.Local() {
		c.say("No fleet works here: 'exhume up' restores it.")
	}
	return nil
}

// copyName names a copy after what it is a copy of.
func copyName(of, kind string) string {
	base, _, _ := strings.Cut(of, "-"+kind+"-")
	if len(base) > 45 {
		base = base[:45]
	}
	return base + "-" + kind + "-" + strings.ReplaceAll(uuid.NewString(), "-", "")[:8]
}

func (c *cli) itemCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "item",
		GroupID: groupFleet,
		Short:   "Steer single items of a batch",
		Example: `  exhume item skip latest 4711 --reason 'known to be damaged'`,
		Args:    onlyCommands,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	natsFlags(cmd.PersistentFlags())
	cmd.AddCommand(c.itemSkipCommand())
	return cmd
}

func (c *cli) itemSkipCommand() *cobra.Command {
	var f commandFlags
	cmd := &cobra.Command{
		Use:   "skip BATCH INDEX...",
		Short: "Leave items of a batch out when their turn comes",
		Long: `Leave items of a batch out when their turn comes; 'exhume batch why --items' and
'exhume batch results' show their indexes. An item that is in hand, or has its result,
keeps what it comes to.`,
		Example: `  exhume item skip latest 4711 --reason 'known to be damaged'
  exhume item skip latest 17 18 19 --by ops`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exactArgs("BATCH", "INDEX")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			q := schemas.ItemSkip{BatchRef: schemas.BatchRef{Ref: args[0]}, Command: f.command()}
			for _, a := range args[1:] {
				i, err := strconv.ParseInt(a, 10, 64)
				if err != nil || i < 0 {
					return usage(cmd, fmt.Errorf("index %q: want a number, 0 for the first item", a))
				}
				q.Indexes = append(q.Indexes, i)
			}
			return c.steer(cmd, func(to *app.Controls) error {
				s, err := to.Skip(cmd.Context(), q)
				if err != nil {
					return err
				}
				c.say("Batch %s leaves out %d items, %d of them from now on.", s.ID, len(s.Skips), len(q.Indexes))
				return nil
			})
		},
	}
	f.add(cmd)
	return cmd
}
