package main

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// json prints v, indented by two.
func (c *cli) json(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// jsonLine prints v on a line.
func (c *cli) jsonLine(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows in aligned columns under a header.
func (c *cli) table(header string, rows func(row func(cells ...any))) error {
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, strings.ReplaceAll(header, " ", "\t"))
	n := 0
	rows(func(cells ...any) {
		if n++; n%1000 == 0 {
			_ = w.Flush() // a table of millions must not be kept to be aligned
		}
		text := make([]string, len(cells))
		for i, cell := range cells {
			text[i] = printable(fmt.Sprint(cell))
		}
		_, _ = fmt.Fprintln(w, strings.Join(text, "\t"))
	})
	return w.Flush()
}

// printable keeps what archives and manifests contain from steering the
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '�'
		}
		return r
	}, s)
}

// onlyCommands refuses what is no command.
func onlyCommands(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, fmt.Errorf("unknown command %q", args[0]))
	}
	return nil
}

// exactArgs checks the number of arguments and names the missing one.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage(cmd, fmt.Errorf("missing argument %s", names[len(args)]))
		case len(args) > len(names):
			return usage(cmd, fmt.Errorf("unexpected argument %q", args[len(names)]))
		}
		return nil
	}
}

// jsonList prints a sequence as a JSON list without holding it in memory.
func jsonList[T any](c *cli, items iter.Seq2[T, error]) error {
	sep := "[\n  "
	for item, err := range items {
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(item, "  ", "  ")
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c.out, "%s%s", sep, b); err != nil {
			return err
		}
		sep = ",\n  "
	}
	end := "\n]\n"
	if sep == "[\n  " {
		end = "[]\n"
	}
	_, err := fmt.Fprint(c.out, end)
	return err
}
