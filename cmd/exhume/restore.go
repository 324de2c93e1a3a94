package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

func (c *cli) restoreCommand() *cobra.Command {
	var o app.RestoreOptions
	var output string
	cmd := &cobra.Command{
		Use:     "restore TOMBSTONE OUTPUT",
		GroupID: groupRestore,
		Short:   "Restore one item",
		Long: `Restore one item straight from the archive, without a queue, with the same
checks and the same evidence as in a batch. The output's path is printed.`,
		Example: `  exhume restore 9039c97b-1acb-4124-a066-1c30c7ed65f4 out/compiler.go --by ops
  exhume restore 9039c97b-1acb-4124-a066-1c30c7ed65f4 compiler.go --by ops --overwrite if-different -o json`,
		Args: exactArgs("TOMBSTONE", "OUTPUT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Tombstone, o.Output = args[0], args[1]
			return c.restore(cmd, o, output)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.Actor, "by", "", "restore on behalf of this `actor`, noted in evidence (also --actor; required)")
	fs.StringVar(&o.Root, "root", "", "refuse outputs outside this `directory`")
	fs.String("overwrite", "", "where other content stands: `never|if-different|always` (default never)")
	fs.String("mode", "", "permission `bits` of the restored file, before the umask (default 0644)")
	fs.String("memory", "", "hold at most this `size` of the artifact in memory (default 256MiB)")
	fs.String("item-timeout", "", "give an item up after this `long` and try it again (default 10m)")
	fs.StringVarP(&output, "output", "o", "name", "print to stdout: `name|json`")
	aliases(fs, map[string]string{"actor": "by"})
	return cmd
}

func (c *cli) restore(cmd *cobra.Command, o app.RestoreOptions, output string) error {
	if o.Actor == "" {
		return usage(cmd, errors.New("--by is required: on whose behalf is the item restored?"))
	}
	if err := oneOf("output", output, "name", "json"); err != nil {
		return usage(cmd, err)
	}
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	r, err := app.Restore(cmd.Context(), cfg, o)
	if err != nil {
		return err
	}
	if output == "json" {
		if err := c.json(r); err != nil {
			return err
		}
	}
	if r.Outcome == schemas.OutcomeFailed {
		return &codeError{codeOfFault(r.Code), fmt.Errorf("%s\n  %s: %s", r.Detail, r.Code, r.Code.Info().Remedy)}
	}
	if r.Outcome == schemas.OutcomeUnchanged {
		c.say("%s has this content already; left as it is.", o.Output)
	}
	if output == "name" {
		_, err = fmt.Fprintln(c.out, o.Output)
	}
	return err
}
