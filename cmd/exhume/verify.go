package main

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

// verifyFlags are those of batch verify.
type verifyFlags struct {
	output, only, root string
	all                bool
}

func (c *cli) batchVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify BATCH",
		Short: "Read what a batch restored again, and compare",
		Long: `Read what a batch restored from its destination again, and compare size and
SHA-256 with what was recorded. Nothing is changed. Each item has a mark:

  =  it is what was restored
  *  something else stands there
  -  nothing stands there
  !  it cannot be read

Those with = are left out unless asked for. Behind the path, after a tab, stands
the reason.

Exit codes: 0 all match, 3 some do not, 4 none does, 6 no such batch.`,
		Example: `  exhume batch verify latest
  exhume batch verify latest --only missing
  exhume batch verify latest --root /mnt/copy --all -o jsonl`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := errors.Join(oneOf("output", f.output, "table", "json", "jsonl"), oneOf("only", f.only, "", "differs", "missing", "error"))
			if f.all && f.only != "" {
				err = errors.Join(err, errors.New("--all and --only do not go together"))
			}
			if err != nil {
				return usage(cmd, err)
			}
			return c.batchVerify(cmd, args[0], f)
		},
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "table", "`table|json|jsonl`")
	cmd.Flags().StringVar(&f.only, "only", "", "print only items of this kind: `differs|missing|error`")
	cmd.Flags().BoolVar(&f.all, "all", false, "print the items that match, too")
	cmd.Flags().StringVar(&f.root, "root", "", "look below this `directory`, or s3://bucket/prefix, instead of where they were restored")
	return cmd
}

// shows says whether an item is printed.
func (f verifyFlags) shows(v app.Verdict) bool {
	return f.all || f.only == string(v) || f.only == "" && v != app.VerdictMatch
}

func (c *cli) batchVerify(cmd *cobra.Command, ref string, f verifyFlags) error {
	ctx := cmd.Context()
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	l, err := c.openBatches(cmd)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // opened for reading
	b, err := l.Batch(ctx, ref)
	if err != nil {
		return err
	}
	root, err := verifyRoot(cmp.Or(f.root, b.Settings.Root))
	if err != nil {
		return err
	}
	results := l.Results(ctx, b.ID, schemas.ResultFilter{Outcomes: []schemas.Outcome{schemas.OutcomeRestored, schemas.OutcomeUnchanged}})
	var n app.VerifyCounts
	start, p := time.Now(), newProgress(c.err)
	shown := func(yield func(app.Verified, error) bool) {
		for v, err := range app.Verify(ctx, cfg, root, results) {
			if err != nil {
				yield(v, err)
				return
			}
			n.Add(v)
			p.line("%d of %d items checked, %s", n.Checked, b.Counts.Restored+b.Counts.Unchanged, bytesText(n.Bytes))
			if f.shows(v.Verdict) && !yield(v, nil) {
				return
			}
		}
	}
	if err := c.printVerified(f.output, shown); err != nil {
		return err
	}
	text := fmt.Sprintf("%d checked: %d match, %d differs, %d missing, %d errors; %s in %s",
		n.Checked, n.Match, n.Differs, n.Missing, n.Errors, bytesText(n.Bytes), time.Since(start).Round(time.Millisecond))
	if left := max(b.Total, b.Counts.Done()) - b.Counts.Restored - b.Counts.Unchanged; left > 0 {
		text += fmt.Sprintf("; %d not restored, not checked", left)
	}
	c.say("%s", text)
	switch n.Match {
	case n.Checked:
		return nil
	case 0:
		return &codeError{code: exitFailed}
	default:
		return &codeError{code: exitPartial}
	}
}

// verifyRoot makes a directory's name absolute; a bucket's has a scheme.
func verifyRoot(root string) (string, error) {
	if strings.Contains(root, "://") {
		return root, nil
	}
	return filepath.Abs(root)
}

func (c *cli) printVerified(output string, items iter.Seq2[app.Verified, error]) error {
	if output == "json" {
		return jsonList(c, items)
	}
	for v, err := range items {
		if err != nil {
			return err
		}
		if output == "jsonl" {
			err = c.jsonLine(v)
		} else {
			_, err = fmt.Fprintln(c.out, verifiedLine(v))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verifiedLine is mark and path and, after a tab, the reason.
func verifiedLine(v app.Verified) string {
	line := v.Verdict.Mark() + " " + printable(v.Output)
	if v.Reason != "" && v.Verdict != app.VerdictMissing {
		line += "\t" + printable(v.Reason)
	}
	return line
}
