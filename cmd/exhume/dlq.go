package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// dlqFlags choose dead letters.
type dlqFlags struct {
	copyFlags
	batch string
	all   bool
}

func (f *dlqFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.batch, "batch", "", "only items of this `batch`")
	cmd.Flags().BoolVar(&f.all, "all", false, "also items that a retry or clone of their batch tries again")
	f.addChoice(cmd.Flags())
}

func (f *dlqFlags) query() (q schemas.LettersQuery, err error) {
	q.Batch, q.All = f.batch, f.all
	q.ResultFilter, err = f.filter()
	return q, err
}

func (c *cli) dlqCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dlq",
		GroupID: groupAsk,
		Short:   "Look at dead letters: items that failed for good",
		Long: `Look at dead letters: items of all batches that failed for good, with their whole
request, all their attempts and the last error. Requests that cannot be understood, or
during which workers died, are among them; those that a retry or clone of their batch
tries again are not, unless --all says so.`,
		Example: `  exhume dlq list
  exhume dlq list --code destination_exists --each
  exhume dlq show nightly-1f2e:4711
  exhume dlq retry --code archive_busy
  exhume dlq export --since 2026-01-31 -o csv > failed.csv`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	natsFlags(cmd.PersistentFlags())
	cmd.PersistentFlags().String("ledger", "", "ask the ledger in this PostgreSQL database, by `URL`")
	cmd.AddCommand(c.dlqListCommand(), c.dlqShowCommand(), c.dlqRetryCommand(), c.dlqExportCommand())
	return cmd
}

func (c *cli) dlqListCommand() *cobra.Command {
	var f dlqFlags
	var output string
	var each bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters in groups of alike ones, or each",
		Example: `  exhume dlq list
  exhume dlq list --batch latest -o json
  exhume dlq list --code integrity_mismatch --each --limit 20`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err == nil {
				err = oneOf("output", output, "table", "json", "jsonl")
			}
			if err != nil {
				return usage(cmd, err)
			}
			return c.ask(cmd, func(to app.Questions, _ bool) error {
				if each {
					return c.letters(letters(cmd, to, q, f.limit), output)
				}
				g, err := to.LetterGroups(cmd.Context(), q)
				if err != nil {
					return err
				}
				return c.letterGroups(g.Groups, output)
			})
		},
	}
	f.addTo(cmd)
	cmd.Flags().BoolVar(&each, "each", false, "list them one by one")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json|jsonl`")
	return cmd
}

// letters goes through dead letters, a page at a time.
func letters(cmd *cobra.Command, to app.Questions, q schemas.LettersQuery, limit int64) iter.Seq2[schemas.Result, error] {
	return func(yield func(schemas.Result, error) bool) {
		for n := int64(0); ; {
			page, err := to.Letters(cmd.Context(), q)
			if err != nil {
				yield(schemas.Result{}, err)
				return
			}
			for _, r := range page.Letters {
				if n++; limit > 0 && n > limit || !yield(r, nil) {
					return
				}
			}
			if q.After = page.Next; q.After == "" {
				return
			}
		}
	}
}

func (c *cli) letters(all iter.Seq2[schemas.Result, error], output string) (err error) {
	switch output {
	case "json":
		return jsonList(c, all)
	case "jsonl":
		for r, err := range all {
			if err != nil {
				return err
			}
			if err := c.jsonLine(r); err != nil {
				return err
			}
		}
		return nil
	}
	terr := c.table("ITEM CODE ATTEMPTS FINISHED TOMBSTONE OUTPUT ERROR", func(row func(...any)) {
		for r, rerr := range all {
			if rerr != nil {
				err = rerr
				return
			}
			row(r.ID(), r.Code, r.Attempts, moment(r.FinishedAt), r.Tombstone, r.Output, r.Detail)
		}
	})
	if err == nil {
		err = terr
	}
	return err
}

func (c *cli) letterGroups(groups []schemas.LetterGroup, output string) error {
	if output != "table" {
		if groups == nil {
			groups = []schemas.LetterGroup{}
		}
		if output == "json" {
			return c.json(groups)
		}
		for _, g := range groups {
			if err := c.jsonLine(g); err != nil {
				return err
			}
		}
		return nil
	}
	if len(groups) == 0 {
		_, err := fmt.Fprintln(c.out, "There are no dead letters.")
		return err
	}
	for _, g := range groups {
		_, _ = fmt.Fprintf(c.out, "%d items of %d batches, from %s to %s\n  %s: %s\n  remedy: %s\n", g.Count, g.Batches,
			moment(g.First), moment(g.Last), g.Code, printable(g.Message), g.Remedy)
		for _, r := range g.Samples {
			_, _ = fmt.Fprintf(c.out, "  %s  %s -> %s\n", r.ID(), printable(r.Tombstone), printable(r.Output))
		}
	}
	return nil
}

func (c *cli) dlqShowCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "show BATCH:INDEX",
		Short:   "Show one dead letter: request, attempts, last error",
		Example: `  exhume dlq show nightly-1f2e:4711 -o json`,
		Args:    exactArgs("BATCH:INDEX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			batch, text, _ := strings.Cut(args[0], ":")
			index, err := strconv.ParseInt(text, 10, 64)
			if err == nil {
				err = oneOf("output", output, "table", "json")
			}
			if err != nil || batch == "" || index < 0 {
				return usage(cmd, fmt.Errorf("%q: want BATCH:INDEX, as 'exhume dlq list --each' shows it", args[0]))
			}
			return c.ask(cmd, func(to app.Questions, _ bool) error {
				q := schemas.LettersQuery{Batch: batch, All: true}
				for r, err := range letters(cmd, to, q, 0) {
					if err != nil {
						return err
					}
					if r.Index == index {
						return c.letter(r, output)
					}
				}
				return &codeError{exitNotFound, fmt.Errorf("batch %s has no item %d that has failed; 'exhume dlq list --batch %s --each' lists those that have", batch, index, batch)}
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) letter(r schemas.Result, output string) error {
	if output == "json" {
		return c.json(r)
	}
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format+"\n", args...) }
	p("Item       %s", r.ID())
	p("Tombstone  %s", printable(r.Tombstone))
	p("Output     %s", printable(r.Output))
	p("By         %s", printable(r.Actor))
	for k, v := range r.Labels {
		p("Label      %s=%s", printable(k), printable(v))
	}
	for i, a := range r.History {
		p("Attempt %d  %s on %s: %s: %s", r.Attempts-len(r.History)+i, moment(a.At), a.Worker, a.Code, printable(a.Detail))
	}
	p("Attempt %d  %s on %s: %s: %s", r.Attempts, moment(r.FinishedAt), r.Worker, r.Code, printable(r.Detail))
	p("Remedy     %s", r.Code.Info().Remedy)
	return nil
}

func (c *cli) dlqRetryCommand() *cobra.Command {
	var f dlqFlags
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Make new batches of dead letters, one for each batch they are of",
		Example: `  exhume dlq retry --code archive_busy
  exhume dlq retry --batch latest --yes
  exhume dlq retry --since 2026-01-31 --dry-run`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err == nil {
				err = f.terms.check()
			}
			if err != nil {
				return usage(cmd, err)
			}
			return c.steer(cmd, func(to *app.Controls) error { return c.dlqRetry(cmd, to, q, &f) })
		},
	}
	f.addTo(cmd)
	f.addNew(cmd)
	return cmd
}

func (c *cli) dlqRetry(cmd *cobra.Command, to *app.Controls, q schemas.LettersQuery, f *dlqFlags) error {
	var order []string
	all, chosen := map[string]int64{}, map[string]int64{} // by batch
	total := int64(0)
	for r, err := range letters(cmd, to, q, 0) {
		if err != nil {
			return err
		}
		all[r.Batch]++
		if f.limit > 0 && total == f.limit {
			continue
		}
		if chosen[r.Batch]++; chosen[r.Batch] == 1 {
			order = append(order, r.Batch)
		}
		total++
	}
	if total == 0 || f.dryRun {
		c.say("%d dead letters of %d batches match.", total, len(order))
		return nil
	}
	if err := c.confirm(cmd, &f.commandFlags, fmt.Sprintf("%d items of %d batches will be restored as %d new batches.", total, len(order), len(order))); err != nil {
		return err
	}
	f.yes = true
	q.Outcomes = []schemas.Outcome{schemas.OutcomeFailed}
	made := 0
	for _, batch := range order {
		copied := schemas.BatchCopy{
			BatchRef: schemas.BatchRef{Ref: batch}, Command: f.command(), ResultFilter: q.ResultFilter, Hold: f.terms.hold,
		}
		err := c.copiesJust(cmd, to, copied, all[batch])
		if err == nil {
			copied.Limit = chosen[batch] % all[batch] // 0 for all
			err = c.copyItems(cmd, to, copied, &f.copyFlags, "retry")
		}
		if fault.Is(err, schemas.CodeBatchState) {
			c.say("left out: %v", err)
			continue
		}
		if err != nil {
			return err
		}
		made++
	}
	if made == 0 {
		return &codeError{exitRefused, errors.New("nothing was done")}
	}
	return nil
}

// copiesJust refuses a copy that would have other items than so many dead letters:
// its filter cannot tell those apart that another copy tries again.
func (c *cli) copiesJust(cmd *cobra.Command, to *app.Controls, q schemas.BatchCopy, letters int64) error {
	q.DryRun, q.As = true, "count"
	n, err := to.Copy(cmd.Context(), q)
	if err == nil && n.Items != letters {
		err = fault.New(schemas.CodeBatchState, "of %d failed items of batch %s that match, %d are tried again already: choose the others with --code or --message, or take them all with --all",
			n.Items, q.Ref, n.Items-letters)
	}
	return err
}

func (c *cli) dlqExportCommand() *cobra.Command {
	var f dlqFlags
	var output string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print dead letters, also as a manifest to be submitted again",
		Example: `  exhume dlq export -o csv > failed.csv
  exhume dlq export --code destination_exists -o jsonl | jq .detail`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err == nil {
				err = oneOf("output", output, "csv", "jsonl", "json")
			}
			if err != nil {
				return usage(cmd, err)
			}
			return c.ask(cmd, func(to app.Questions, _ bool) error {
				all := letters(cmd, to, q, f.limit)
				if output == "csv" {
					return c.lettersCSV(all)
				}
				return c.letters(all, output)
			})
		},
	}
	f.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "csv", "`csv|jsonl|json`")
	return cmd
}

func (c *cli) lettersCSV(all iter.Seq2[schemas.Result, error]) error {
	w := csv.NewWriter(c.out)
	err := w.Write([]string{"tombstone", "output", "actor", "batch", "index", "code", "attempts", "finished_at", "detail"})
	if err != nil {
		return err
	}
	for r, err := range all {
		if err != nil {
			return err
		}
		err := w.Write([]string{
			r.Tombstone, r.Output, r.Actor, r.Batch, strconv.FormatInt(r.Index, 10), string(r.Code), strconv.Itoa(r.Attempts),
			r.FinishedAt.UTC().Format("2006-01-02T15:04:05.000Z"), r.Detail,
		})
		if err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}
