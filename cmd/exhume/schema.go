package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/schemas"
)

// asyncAPI is the name of the document that is no JSON Schema.
const asyncAPI = "asyncapi"

func (c *cli) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "schema [NAME]",
		GroupID: groupAsk,
		Short:   "Print the JSON Schema of a message, or list the names",
		Long: `Print the JSON Schema of a message, or list the names. 'asyncapi' is the
AsyncAPI 3 document of all messages on NATS, which refers to the schemas.`,
		Example: `  exhume schema
  exhume schema evidence
  exhume schema asyncapi`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, name := range append(schemas.JSONSchemas(), asyncAPI) {
					if _, err := fmt.Fprintln(c.out, name); err != nil {
						return err
					}
				}
				return nil
			}
			if args[0] == asyncAPI {
				_, err := c.out.Write(schemas.AsyncAPI())
				return err
			}
			text, err := schemas.JSONSchema(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				return &codeError{exitNotFound, fmt.Errorf("no schema %q; 'exhume schema' lists them", args[0])}
			}
			if err != nil {
				return err
			}
			_, err = c.out.Write(text)
			return err
		},
	}
}
