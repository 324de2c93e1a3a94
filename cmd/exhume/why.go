package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

func (c *cli) batchWhyCommand() *cobra.Command {
	var output string
	var items int
	cmd := &cobra.Command{
		Use:   "why BATCH",
		Short: "Tell where the open items of a batch are, and what keeps them",
		Long: `Tell where the items of a batch are that have no result yet: in the queue and behind
what, in the hands of which worker and since when, waiting for their next try after
which error, held by a breaker that is open because the archive or a destination is
away, by a worker's own disk, a pause or a limit. Workers that hang do not answer and
are missing from the list.`,
		Example: `  exhume batch why latest
  exhume batch why latest --items 20
  exhume batch why latest -o json | jq .workers`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			if items < 0 || items > schemas.MaxWhyItems {
				return usage(cmd, fmt.Errorf("--items %d: want 0 to %d", items, schemas.MaxWhyItems))
			}
			return c.ask(cmd, func(to app.Questions, local bool) error {
				w, err := to.Why(cmd.Context(), schemas.WhyQuery{BatchRef: schemas.BatchRef{Ref: args[0]}, Items: items})
				if err != nil {
					return err
				}
				if output == "json" {
					return c.json(w)
				}
				return c.why(w, local)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	cmd.Flags().IntVar(&items, "items", 0, "also list this `many` open items one by one")
	return cmd
}

func (c *cli) why(w schemas.Whereabouts, local bool) error {
	for _, line := range whyLines(w, local, time.Now()) {
		_, _ = fmt.Fprintln(c.out, printable(line))
	}
	if len(w.Items) == 0 {
		return nil
	}
	return c.table("INDEX WHERE WORKER SINCE ATTEMPT NEXT-TRY LAST-ERROR", func(row func(...any)) {
		for _, i := range w.Items {
			row(i.Index, i.Place, i.Worker, optionalMoment(i.Since), i.Attempt, optionalMoment(i.NextTry), i.LastError)
		}
	})
}

func optionalMoment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return moment(t)
}

// whyLines are what keeps the items of a batch, a line for each thing.
func whyLines(w schemas.Whereabouts, local bool, now time.Time) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	say("Batch %s: %s", w.Batch, standingText(schemas.Batch{State: w.State, Standing: w.Standing}))
	if w.State.Final() {
		say("It has ended; nothing is open.")
		return lines
	}
	switch {
	case w.Total > 0:
		say("%d of %d items are open.", w.Open, w.Total)
	default:
		say("It is still being submitted: requests of %d items are published, how many there will be is not known yet.", w.Published)
	}
	if w.State == schemas.StatePaused {
		say("Workers take none of them. %s", map[bool]string{true: "'exhume batch resume --all' lets everything go on.", false: "'exhume batch resume " + w.Batch + "' lets it go on."}[w.Reason == schemas.ReasonFleetPaused])
	}
	if w.Total > 0 && w.Published < w.Total && w.Terms.Canary == nil {
		say("%d are not published yet.", w.Total-w.Published)
	}
	if w.Kept < w.Total {
		say("The requests of items from %d on are not kept: should the broker lose them, submit the same manifest again.", w.Kept)
	}
	if w.Waiting > 0 {
		say("%d messages wait in the queue%s.", w.Waiting, behind(w))
	}
	held := int64(0)
	for _, s := range w.Workers {
		if s.Items > 0 || slices.ContainsFunc(s.Breakers, unusual) || s.LimitedBy != "" || s.Draining {
			lines = append(lines, workerLines(s, now)...)
		}
		held += int64(len(s.InHand))
	}
	if rest := w.InHand - held; rest > 0 {
		say("%d messages are in the hands of workers that do not answer, were given back, or wait for their next try.", rest)
	}
	if w.Retrying > 0 {
		say("%d items wait for their next try, the first until %s, after %s.", w.Retrying, moment(w.NextTry), causesText(w.Causes))
	}
	if w.Unrecorded > 0 {
		say("%d messages of results, of all batches, are not recorded yet.", w.Unrecorded)
	}
	if nowhere(w) {
		say("The broker holds no request of them. What it has lost a collector publishes again by itself, mostly within a minute; 'exhume batch history' tells of it.")
	}
	for _, l := range w.Limits {
		say("Limit on %s: %s (by %s).", scopeText(l.Scope), rateText(l), l.By)
	}
	switch {
	case local:
		say("No fleet works here: run the same batch-restore again, or 'exhume up'.")
	case len(w.Workers) == 0:
		say("No worker answers: is one running? Start it with 'exhume worker'.")
	}
	return lines
}

// nowhere says whether items are open that are in no place.
func nowhere(w schemas.Whereabouts) bool {
	return w.Total > 0 && w.Open > 0 && w.Published >= w.Total && w.State != schemas.StatePaused &&
		w.Waiting+w.InHand+w.Retrying+w.Unrecorded == 0
}

// behind tells what shares the workers with a batch.
func behind(w schemas.Whereabouts) string {
	var parts []string
	for _, p := range []schemas.Priority{schemas.PriorityUrgent, schemas.PriorityNormal, schemas.PriorityBulk} {
		if n := w.Active[p]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("; its priority is %s, and %s batches share the workers with it", priorityOf(w.Terms), strings.Join(parts, ", "))
}

func workerLines(s schemas.WorkerStatus, now time.Time) (lines []string) {
	say := func(format string, args ...any) {
		lines = append(lines, "Worker "+s.Worker+" "+fmt.Sprintf(format, args...))
	}
	if len(s.InHand) > 0 {
		var items int64
		oldest, attempt := s.InHand[0].Since, 0
		for _, h := range s.InHand {
			items += h.Last - h.First + 1
			attempt = max(attempt, h.Attempt)
			if h.Since.Before(oldest) {
				oldest = h.Since
			}
		}
		again := ""
		if attempt > 1 {
			again = fmt.Sprintf(", up to attempt %d", attempt)
		}
		say("has %d items in hand, the oldest for %s%s.", items, now.Sub(oldest).Round(time.Second), again)
	}
	for _, b := range s.Breakers {
		if unusual(b) {
			say("%s.", breakerText(b))
		}
	}
	if s.LimitedBy != "" {
		say("waits until %s for the limit on %s.", moment(s.LimitedUntil), scopeText(s.LimitedBy))
	}
	if s.Draining {
		say("is being stopped and takes no more items.")
	}
	return lines
}

func causesText(causes map[schemas.Code]int64) string {
	var parts []string
	for code, n := range causes {
		parts = append(parts, fmt.Sprintf("%s (%d)", code, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func (c *cli) batchAuditCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "audit BATCH",
		Short: "Prove that a batch adds up: ledger, evidence and queue",
		Long: `Count the results of a batch anew, and compare them with the counts that are kept,
with the lines of evidence and with the queue: restored + unchanged + failed + skipped
+ cancelled + open is the total, everywhere. Exit code 1 when something does not agree.`,
		Example: `  exhume batch audit latest
  exhume batch audit latest -o json`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			return c.ask(cmd, func(to app.Questions, _ bool) error {
				a, err := to.Audit(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if output == "json" {
					err = c.json(a)
				} else {
					c.audit(a)
				}
				if err == nil && len(a.Problems) > 0 {
					err = &codeError{code: exitError}
				}
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) audit(a schemas.Audit) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format+"\n", args...) }
	n := a.Counted
	p("Batch     %s: %s", a.Batch, a.State)
	p("Ledger    %d restored + %d unchanged + %d failed + %d skipped + %d cancelled + %d open = %d", n.Restored, n.Unchanged, n.Failed, n.Skipped, n.Cancelled, a.Open, n.Done()+a.Open)
	p("Total     %d", a.Total)
	if a.Evidence >= 0 {
		p("Evidence  %d lines about items", a.Evidence)
	}
	p("Queue     %d messages", a.Queued)
	if !a.State.Final() {
		p("Kept      requests of %d items", a.Kept)
	}
	for _, problem := range a.Problems {
		p("WRONG     %s", problem)
	}
	if len(a.Problems) == 0 {
		p("All agree.")
	}
}

func (c *cli) batchHistoryCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "history BATCH",
		Short: "Tell what has happened to a batch, by whom and why",
		Example: `  exhume batch history latest
  exhume batch history latest -o jsonl`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "table", "json", "jsonl"); err != nil {
				return usage(cmd, err)
			}
			return c.ask(cmd, func(to app.Questions, _ bool) error {
				h, err := to.Events(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				switch output {
				case "json":
					return c.json(h)
				case "jsonl":
					for _, e := range h.Events {
						if err := c.jsonLine(e); err != nil {
							return err
						}
					}
					return nil
				}
				return c.table("TIME CHANGE STATE REASON BY NOTE", func(row func(...any)) {
					for _, e := range h.Events {
						row(moment(e.At), e.Change, e.To, e.Reason, e.By, e.Note)
					}
				})
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json|jsonl`")
	return cmd
}
