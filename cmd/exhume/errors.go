package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/schemas"
)

func (c *cli) errorsCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "errors [CODE]",
		GroupID: groupAsk,
		Short:   "Explain error codes",
		Long:    "Explain one error code, or list all: what happened, and what can be done about it.",
		Example: `  exhume errors
  exhume errors integrity_mismatch
  exhume errors -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			return c.explain(args, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`table|json`")
	return cmd
}

func (c *cli) explain(args []string, output string) error {
	var list []schemas.CodeInfo
	for _, i := range schemas.Codes() {
		if len(args) == 0 || string(i.Code) == args[0] {
			list = append(list, i)
		}
	}
	if len(list) == 0 {
		return &codeError{exitNotFound, fmt.Errorf("no error code %q; 'exhume errors' lists all", args[0])}
	}
	switch {
	case output == "json" && len(args) == 1:
		return c.json(list[0])
	case output == "json":
		return c.json(list)
	case len(args) == 1:
		i := list[0]
		_, err := fmt.Fprintf(c.out, "%s (%s)\n  what happened: %s\n  what to do:    %s\n", i.Code, i.Class, i.Cause, i.Remedy)
		return err
	}
	return c.table("CODE CLASS CAUSE", func(row func(...any)) {
		for _, i := range list {
			row(i.Code, i.Class, i.Cause)
		}
	})
}
