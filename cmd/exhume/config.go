package main

import (
	"github.com/spf13/cobra"
)

func (c *cli) configShowCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "config-show",
		GroupID: groupAsk,
		Short:   "Print every setting and where it comes from",
		Long: `Print every setting and where it comes from: a flag, a variable of the
environment, a file or the default. Secrets are hidden unless --debug is given.`,
		Example: `  exhume config-show
  exhume config-show -o table
  exhume config-show --config-file archive.toml`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "table", "json"); err != nil {
				return usage(cmd, err)
			}
			cfg, err := c.config(cmd)
			if err != nil {
				return err
			}
			return cfg.Show(c.out, output, c.debug)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "json", "`json|table`")
	return cmd
}
