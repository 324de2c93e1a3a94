package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/ledger"
)

func (c *cli) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "migrate",
		GroupID: groupFleet,
		Short:   "Bring the ledger's schema up to date, or look at it",
		Long: `Bring the ledger's schema up to date, or look at it. A ledger in a file is brought
up to date by itself; one in a PostgreSQL database that a fleet shares only by
this command, which may run while collectors of the version before still work.`,
		Example: `  exhume migrate status
  exhume migrate up --dry-run
  exhume migrate up --ledger postgresql://db.example/ledger`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().String("ledger", "", "the ledger's PostgreSQL `URL` (default a SQLite file in the state directory)")
	cmd.AddCommand(c.migrateUpCommand(), c.migrateStatusCommand(), c.migrateDownCommand())
	return cmd
}

func (c *cli) migrateUpCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Apply the migrations that are pending",
		Long:  "Apply the migrations that are pending. Running it several times, or in several places at once, is harmless.",
		Example: `  exhume migrate up
  exhume migrate up --dry-run`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config(cmd)
			if err != nil {
				return err
			}
			return c.migrateUp(cmd.Context(), app.LedgerURL(cfg), dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the SQL that would run")
	return cmd
}

func (c *cli) migrateUp(ctx context.Context, where string, dryRun bool) error {
	if dryRun {
		all, err := ledger.Migrations(ctx, where)
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.Applied.IsZero() {
				c.printSQL(m, m.Up)
			}
		}
		return nil
	}
	done, err := ledger.MigrateUp(ctx, where)
	for _, m := range done {
		c.say("applied migration %d (%s)", m.Version, m.Name)
	}
	if err == nil && len(done) == 0 {
		c.say("nothing to do: the ledger is up to date")
	}
	return err
}

func (c *cli) migrateStatusCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "List the migrations, and which of them are pending",
		Example: `  exhume migrate status
  exhume migrate status -o json`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			cfg, err := c.config(cmd)
			if err != nil {
				return err
			}
			return c.migrateStatus(cmd.Context(), app.LedgerURL(cfg), output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) migrateStatus(ctx context.Context, where, output string) error {
	all, err := ledger.Migrations(ctx, where)
	if err != nil {
		return err
	}
	if output == "json" {
		type status struct {
			ledger.Migration
			Pending bool `json:"pending"`
		}
		list := make([]status, len(all))
		for i, m := range all {
			list[i] = status{m, m.Applied.IsZero()}
		}
		return c.json(list)
	}
	return c.table("VERSION NAME STATUS APPLIED", func(row func(...any)) {
		for _, m := range all {
			if m.Applied.IsZero() {
				row(m.Version, m.Name, "pending", "-")
			} else {
				row(m.Version, m.Name, "applied", moment(m.Applied))
			}
		}
	})
}

func (c *cli) migrateDownCommand() *cobra.Command {
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take the last migration back",
		Long: `Take the last migration back. Stop all collectors before. What the older schema
has no place for is lost; where there are results, that takes --yes.`,
		Example: `  exhume migrate down --dry-run
  exhume migrate down --yes`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config(cmd)
			if err != nil {
				return err
			}
			return c.migrateDown(cmd.Context(), app.LedgerURL(cfg), dryRun, yes)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the SQL that would run")
	cmd.Flags().BoolVar(&yes, "yes", false, "take it back although results may be lost")
	return cmd
}

func (c *cli) migrateDown(ctx context.Context, where string, dryRun, yes bool) error {
	if dryRun {
		all, err := ledger.Migrations(ctx, where)
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(all) {
			if !m.Applied.IsZero() {
				c.printSQL(m, m.Down)
				break
			}
		}
		return nil
	}
	m, err := ledger.MigrateDown(ctx, where, yes)
	if loss, ok := errors.AsType[*ledger.LossError](err); ok {
		return &codeError{exitRefused, fmt.Errorf("%w; say --yes if that may be lost", loss)}
	}
	switch {
	case err != nil:
		return err
	case m.Version == 0:
		c.say("nothing to do: the ledger has no migrations")
	default:
		c.say("took migration %d (%s) back", m.Version, m.Name)
	}
	return nil
}

// printSQL prints what a migration runs.
func (c *cli) printSQL(m ledger.Migration, text string) {
	_, _ = fmt.Fprintf(c.out, "-- migration %d (%s)\n\n%s\n\n", m.Version, m.Name, text)
}
