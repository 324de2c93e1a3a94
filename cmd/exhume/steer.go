package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

func (c *cli) batchPauseCommand() *cobra.Command {
	var f commandFlags
	var all bool
	var until string
	cmd := &cobra.Command{
		Use:   "pause BATCH|--all",
		Short: "Take no more items of a batch, or of any",
		Long: `Let workers take no more items of a batch, or, with --all, of any batch, also of
those that are submitted later. Items that are in hand are finished. It works within
two seconds and holds until 'exhume batch resume', or --until.`,
		Example: `  exhume batch pause latest --reason 'backup of the archive'
  exhume batch pause latest --until 2h
  exhume batch pause --all --until 90m --by ops`,
		Args: refOrAll(&all),
		RunE: func(cmd *cobra.Command, args []string) error {
			end, err := untilTime(until, time.Now())
			if err != nil {
				return usage(cmd, err)
			}
			if all {
				return c.pauseAll(cmd, schemas.FleetChange{Command: f.command(), Pause: new(true), Until: end})
			}
			return c.changeBatch(cmd, schemas.BatchChange{
				BatchRef: schemas.BatchRef{Ref: args[0]}, Command: f.command(), Change: schemas.ChangePause, Until: end,
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "pause everything, also what comes later")
	cmd.Flags().StringVar(&until, "until", "", "go on by itself at this `time`, or after this duration (90m)")
	return cmd
}

func (c *cli) batchResumeCommand() *cobra.Command {
	var f commandFlags
	var all bool
	cmd := &cobra.Command{
		Use:     "resume BATCH|--all",
		Aliases: []string{"start"},
		Short:   "Go on with a batch that is paused or held, or with all",
		Long: `Go on with a batch that was paused, that was submitted with --hold, whose sample
failed, or of which too many items failed: what has failed until now does not count
any more then. With --all everything goes on that 'exhume batch pause --all' has
stopped; batches that are paused by themselves stay so.`,
		Example: `  exhume batch resume latest --reason 'backup is done'
  exhume batch start latest
  exhume batch resume --all`,
		Args: refOrAll(&all),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all {
				return c.pauseAll(cmd, schemas.FleetChange{Command: f.command(), Pause: new(false)})
			}
			return c.changeBatch(cmd, schemas.BatchChange{
				BatchRef: schemas.BatchRef{Ref: args[0]}, Command: f.command(), Change: schemas.ChangeResume,
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "go on with everything")
	return cmd
}

func (c *cli) batchCancelCommand() *cobra.Command {
	var f commandFlags
	var abort bool
	cmd := &cobra.Command{
		Use:   "cancel BATCH",
		Short: "End a batch: what no worker has begun is cancelled",
		Long: `End a batch. Items that no worker has begun, and those that wait for their next
try, end as cancelled; those in hand are finished, or, with --abort, given up where
they stand: nothing half-written becomes visible. What was restored stays. The batch
ends with a report, and its cancelled items can be restored later with 'exhume batch
retry BATCH --outcome cancelled'.`,
		Example: `  exhume batch cancel latest --reason 'wrong manifest'
  exhume batch cancel nightly-1f2e --abort --yes`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			change := schemas.ChangeCancel
			if abort {
				change = schemas.ChangeAbort
			}
			return c.steer(cmd, func(to *app.Controls) error {
				r, err := to.Get(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if r.State.Final() {
					return fault.New(schemas.CodeBatchState, "batch %s has ended (%s): nothing is left to be cancelled", r.ID, r.State)
				}
				open := "an unknown number of"
				if !r.SealedAt.IsZero() {
					open = fmt.Sprint(r.OpenItems)
				}
				if err := c.confirm(cmd, &f, fmt.Sprintf("Batch %s is %s: up to %s items are open and will be cancelled.", r.ID, r.State, open)); err != nil {
					return err
				}
				return c.change(cmd, to, schemas.BatchChange{BatchRef: schemas.BatchRef{Ref: r.ID}, Command: f.command(), Change: change})
			})
		},
	}
	f.add(cmd)
	f.addYes(cmd)
	cmd.Flags().BoolVar(&abort, "abort", false, "also give up what is in hand")
	return cmd
}

func (c *cli) batchSetCommand() *cobra.Command {
	var f commandFlags
	var terms termsFlags
	cmd := &cobra.Command{
		Use:   "set BATCH",
		Short: "Change a batch's priority and bounds while it goes on",
		Example: `  exhume batch set latest --priority urgent
  exhume batch set latest --max-in-flight 500 --max-failures 2%@1000`,
		Args: exactArgs("BATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := schemas.BatchTerms{BatchRef: schemas.BatchRef{Ref: args[0]}, Command: f.command()}
			t, err := terms.terms(0)
			if err != nil {
				return usage(cmd, err)
			}
			changed := cmd.Flags().Changed
			if changed("priority") {
				q.Priority = &t.Priority
			}
			if changed("max-in-flight") {
				q.MaxInFlight = &t.MaxInFlight
			}
			if changed("max-failures") {
				q.MaxFailures = t.MaxFailures
				if q.MaxFailures == nil {
					q.MaxFailures = &schemas.Threshold{}
				}
			}
			if q.Priority == nil && q.MaxInFlight == nil && q.MaxFailures == nil {
				return usage(cmd, errors.New("nothing to set: give --priority, --max-in-flight or --max-failures"))
			}
			return c.steer(cmd, func(to *app.Controls) error {
				s, err := to.SetTerms(cmd.Context(), q)
				if err != nil {
					return err
				}
				c.say("Batch %s: %s.", s.ID, termsText(s.Terms))
				return nil
			})
		},
	}
	f.add(cmd)
	terms.addChangeable(cmd.Flags())
	return cmd
}

func termsText(t schemas.Terms) string {
	parts := []string{"priority " + string(priorityOf(t))}
	if t.MaxInFlight > 0 {
		parts = append(parts, fmt.Sprintf("at most %d items in flight", t.MaxInFlight))
	}
	if t.Canary != nil {
		passed := "not passed yet"
		if t.Canary.Passed {
			passed = "passed"
		}
		parts = append(parts, fmt.Sprintf("sample of %d items, of which %d may fail, %s", t.Canary.Size, t.Canary.MaxErrors, passed))
	}
	if t.MaxFailures != nil {
		action := t.MaxFailures.Action
		if action == "" {
			action = schemas.StopPause
		}
		parts = append(parts, fmt.Sprintf("%s when more than %s items fail", action, t.MaxFailures))
	}
	return strings.Join(parts, ", ")
}

func priorityOf(t schemas.Terms) schemas.Priority {
	if t.Priority == "" {
		return schemas.PriorityNormal
	}
	return t.Priority
}

// refOrAll wants a batch, or --all and none.
func refOrAll(all *bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if *all && len(args) > 0 {
			return usage(cmd, fmt.Errorf("--all and %q: give one of them", args[0]))
		}
		if *all {
			return nil
		}
		return exactArgs("BATCH")(cmd, args)
	}
}

func (c *cli) changeBatch(cmd *cobra.Command, q schemas.BatchChange) error {
	return c.steer(cmd, func(to *app.Controls) error { return c.change(cmd, to, q) })
}

func (c *cli) change(cmd *cobra.Command, to *app.Controls, q schemas.BatchChange) error {
	s, err := to.Change(cmd.Context(), q)
	if err != nil {
		return err
	}
	c.say("Batch %s: %s.", s.ID, standingText(s.Batch))
	if f, ferr := to.Fleet(cmd.Context()); ferr == nil && f.Pause != nil && s.Workable() {
		c.say("Everything is paused by %s since %s%s. %s", f.Pause.By, moment(f.Pause.Since), endText(f.Pause.Until), printable(f.Pause.Note))
	}
	switch {
	case !to.Local() || !s.Workable():
	case s.Source != nil:
		c.say("No fleet works here: 'exhume up' restores it.")
	default:
		c.say("No fleet works here: run the same batch-restore again, or 'exhume up', to go on with it.")
	}
	return nil
}

func (c *cli) pauseAll(cmd *cobra.Command, q schemas.FleetChange) error {
	return c.steer(cmd, func(to *app.Controls) error {
		s, err := to.ChangeFleet(cmd.Context(), q)
		if err != nil {
			return err
		}
		if s.Pause == nil {
			c.say("Workers take items again, of all batches that are not paused by themselves.")
			return nil
		}
		c.say("Workers take no items any more%s.", endText(s.Pause.Until))
		return nil
	})
}

func endText(until time.Time) string {
	if until.IsZero() {
		return ", until 'exhume batch resume --all'"
	}
	return " until " + moment(until)
}
