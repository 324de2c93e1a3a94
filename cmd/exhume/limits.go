package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

func (c *cli) limitsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "limits",
		GroupID: groupFleet,
		Short:   "Bound what all workers together do in a second",
		Long: `Bound how many items, and how many bytes, all workers together restore in a second:
in all, from archives of one kind, or of one batch. A limit works on all workers within
five seconds, also on those that join later; the workers share it by themselves.`,
		Example: `  exhume limits show
  exhume limits set --items 500 --bytes 50MiB --reason 'office hours'
  exhume limits set --backend postgres --items 0`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	natsFlags(cmd.PersistentFlags())
	cmd.AddCommand(c.limitsShowCommand(), c.limitsSetCommand())
	return cmd
}

func (c *cli) limitsShowCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show the limits",
		Example: `  exhume limits show -o json`,
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			return c.ask(cmd, func(to app.Questions, _ bool) error {
				f, err := to.Fleet(cmd.Context())
				if err != nil {
					return err
				}
				return c.showLimits(f.Steering, output)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) showLimits(s schemas.Steering, output string) error {
	if output == "json" {
		if s.Limits == nil {
			s.Limits = []schemas.Limit{}
		}
		return c.json(s.Limits)
	}
	if len(s.Limits) == 0 {
		_, err := fmt.Fprintln(c.out, "There are no limits.")
		return err
	}
	return c.table("LIMIT-ON AT-MOST BY SINCE REASON", func(row func(...any)) {
		for _, l := range s.Limits {
			row(scopeText(l.Scope), rateText(l), l.By, moment(l.Since), l.Note)
		}
	})
}

func (c *cli) limitsSetCommand() *cobra.Command {
	var f commandFlags
	var backend, batch, bytes string
	var items float64
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Set a limit; 0 removes it",
		Example: `  exhume limits set --items 500
  exhume limits set --batch latest --bytes 10MiB --by ops
  exhume limits set --items 0 --bytes 0`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("items") && !cmd.Flags().Changed("bytes") {
				return usage(cmd, errors.New("nothing to set: give --items or --bytes"))
			}
			if backend != "" && batch != "" {
				return usage(cmd, errors.New("--backend and --batch: give one of them"))
			}
			if err := oneOf("backend", backend, "", "sqlite", "postgres", "mariadb"); err != nil {
				return usage(cmd, err)
			}
			var size app.ByteSize
			if err := size.UnmarshalText([]byte(bytes)); err != nil {
				return usage(cmd, fmt.Errorf("--bytes: %w", err))
			}
			return c.steer(cmd, func(to *app.Controls) error {
				l := schemas.Limit{Scope: schemas.ScopeFleet, Items: items, Bytes: size.Bytes()}
				switch {
				case backend != "":
					l.Scope = schemas.ScopeBackend(backend)
				case batch != "":
					r, err := to.Get(cmd.Context(), batch)
					if err != nil {
						return err
					}
					l.Scope = schemas.ScopeBatch(r.ID)
				}
				s, err := to.ChangeFleet(cmd.Context(), schemas.FleetChange{Command: f.command(), Limits: []schemas.Limit{l}})
				if err != nil {
					return err
				}
				return c.showLimits(s, "table")
			})
		},
	}
	f.add(cmd)
	cmd.Flags().Float64Var(&items, "items", 0, "at most this `many` items a second, 0 for no limit")
	cmd.Flags().StringVar(&bytes, "bytes", "0", "at most this `size` a second (50MiB), 0 for no limit")
	cmd.Flags().StringVar(&backend, "backend", "", "only what is read from archives of this `kind`: sqlite, postgres, mariadb")
	cmd.Flags().StringVar(&batch, "batch", "", "only this `batch`")
	return cmd
}

func rateText(l schemas.Limit) string {
	var parts []string
	if l.Items > 0 {
		parts = append(parts, fmt.Sprintf("%g items/s", l.Items))
	}
	if l.Bytes > 0 {
		parts = append(parts, bytesText(l.Bytes)+"/s")
	}
	return strings.Join(parts, ", ")
}

// scopeText names for people what a limit is on.
func scopeText(scope string) string {
	if id, ok := strings.CutPrefix(scope, schemas.ScopeBatch("")); ok {
		return "batch " + id
	}
	if kind, ok := strings.CutPrefix(scope, schemas.ScopeBackend("")); ok {
		return kind + " archives"
	}
	return "the fleet"
}

func (c *cli) workersCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "workers",
		GroupID: groupFleet,
		Short:   "List the workers that answer, with what they have in hand",
		Example: `  exhume workers
  exhume workers -o json`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json", "name"); err != nil {
				return usage(cmd, err)
			}
			return c.ask(cmd, func(to app.Questions, _ bool) error {
				f, err := to.Fleet(cmd.Context())
				if err != nil {
					return err
				}
				return c.workers(f, output)
			})
		},
	}
	natsFlags(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json|name`")
	return cmd
}

func (c *cli) workers(f schemas.Fleet, output string) error {
	switch output {
	case "json":
		if f.Workers == nil {
			f.Workers = []schemas.WorkerStatus{}
		}
		return c.json(f)
	case "name":
		for _, w := range f.Workers {
			if _, err := fmt.Fprintln(c.out, w.Worker); err != nil {
				return err
			}
		}
		return nil
	}
	if p := f.Pause; p != nil {
		c.say("Everything is paused by %s since %s%s. %s", p.By, moment(p.Since), endText(p.Until), p.Note)
	}
	return c.table("WORKER VERSION BACKEND SINCE ITEMS-IN-HAND BREAKERS WAITING-FOR", func(row func(...any)) {
		for _, w := range f.Workers {
			waiting := ""
			switch {
			case w.Draining:
				waiting = "its end"
			case w.LimitedBy != "":
				waiting = "limit on " + scopeText(w.LimitedBy) + " until " + w.LimitedUntil.UTC().Format(time.TimeOnly)
			default:
				if i := slices.IndexFunc(w.Breakers, unusual); i >= 0 {
					waiting = w.Breakers[i].Reason
				}
			}
			row(w.Worker, w.Version, w.Backend, moment(w.StartedAt), w.Items, breakersText(w.Breakers), waiting)
		}
	})
}
