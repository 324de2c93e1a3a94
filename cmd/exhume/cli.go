package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/exhume/exhume/internal/app"
)

// cli is one invocation: its streams and what its global flags said.
type cli struct {
	in       io.Reader
	out, err io.Writer
	// codex says that the program was called by the predecessor's name.
	codex bool
	debug bool
	flags *pflag.FlagSet
}

// run runs one command line and returns its exit code.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	c := &cli{in: in, out: out, err: errOut}
	name := filepath.Base(args[0])
	rest := args[1:]
	if name == "codex" {
		// The predecessor's commands are codex archive VERB.
		c.codex = true
		if len(rest) > 0 && rest[0] == "archive" {
			rest = rest[1:]
		}
		name = "codex archive"
	}
	ctx, stop := interruptible(context.Background(), errOut)
	defer stop()
	root := c.root(name)
	root.SetArgs(rest)
	return c.exitCode(root.ExecuteContext(ctx))
}

func (c *cli) root(name string) *cobra.Command {
	root := &cobra.Command{
		Use:   "exhume",
		Short: "Bring archived artifacts back, reliably, fast and with proof",
		Long: `exhume restores items of a tombstone archive: one, or a manifest of millions,
each verified by SHA-256 before it becomes visible, with an append-only evidence
log that tells what was done.

Settings come from flags, then the environment (EXHUME_*, CODEX_ARCHIVE_*), then
a file (exhume.toml or .codex/archive.toml), then defaults; 'exhume config-show'
prints each with its origin.

Exit codes: 0 all restored, 1 other error, 2 usage or invalid manifest,
3 partial, 4 failed or aborted, 5 temporary (archive, broker or ledger away,
destination full), 6 not found, 7 refused, 8 cancelled, 130 interrupted.`,
		Example: `  exhume demo
  exhume batch-restore manifest.json --by ops --archive sqlite:///./archive.sqlite
  exhume restore 9039c97b-1acb-4124-a066-1c30c7ed65f4 out/file.go --by ops
  exhume batch list`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          onlyCommands,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(wrongFlag)
	if c.codex {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: name}
	}
	c.globalFlags(root.PersistentFlags())
	root.AddGroup(&cobra.Group{ID: groupRestore, Title: "Restoring:"},
		&cobra.Group{ID: groupFleet, Title: "A fleet:"},
		&cobra.Group{ID: groupArchive, Title: "The archive:"},
		&cobra.Group{ID: groupAsk, Title: "Asking and checking:"})
	root.AddCommand(
		c.demoCommand(), c.batchRestoreCommand(), c.planCommand(), c.restoreCommand(),
		c.storeCommand(), c.listCommand(), c.manifestCommand(), c.showCommand(),
		c.upCommand(), c.submitCommand(), c.workerCommand(), c.collectorCommand(), c.doctorCommand(), c.migrateCommand(), c.ledgerCommand(), c.probeCommand(), c.benchCommand(),
		c.workersCommand(), c.limitsCommand(), c.itemCommand(),
		c.batchCommand(), c.dlqCommand(), c.evidenceCommand(), c.healthCheckCommand(), c.configShowCommand(), c.errorsCommand(), c.schemaCommand(), c.versionCommand(),
	)
	root.InitDefaultCompletionCmd()
	if c.codex {
		byName(root, name)
	}
	return root
}

// byName makes the examples of a command and those below it say the name that
// the program was called by.
func byName(cmd *cobra.Command, name string) {
	cmd.Example = strings.ReplaceAll(cmd.Example, "  exhume ", "  "+name+" ")
	for _, sub := range cmd.Commands() {
		byName(sub, name)
	}
}

// The groups of commands in the help.
const (
	groupRestore = "restore"
	groupFleet   = "fleet"
	groupArchive = "archive"
	groupAsk     = "ask"
)

func (c *cli) globalFlags(f *pflag.FlagSet) {
	c.flags = f
	f.String("config-file", "", "read settings from this TOML `file`")
	f.String("archive", "", "the archive's `URL`, for instance sqlite:///./archive.sqlite (default sqlite:///./.codex/archive.sqlite)")
	f.String("state-dir", "", "keep queue and ledger in this `directory` (default .exhume)")
	f.String("evidence-dir", "", "append evidence to archive_ops.jsonl in this `directory` (default .codex/evidence)")
	f.String("archive-events", "", "note restorations in the archive itself: `on|off` (default on)")
	f.String("log-level", "", "`level` of log lines on stderr: debug, info, warn, error (default info)")
	f.String("log-format", "", "`format` of log lines on stderr: text or json (default text)")
	f.BoolVar(&c.debug, "debug", false, "log everything and show secrets")
}

// config loads the settings for a command.
func (c *cli) config(cmd *cobra.Command) (*app.Config, error) {
	o := app.LoadOptions{Flags: map[string]string{}}
	keys := app.FlagKeys()
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Name == "config-file" {
			o.File = f.Value.String()
		} else if key := keys[f.Name]; key != "" {
			o.Flags[key] = f.Value.String()
		}
	})
	cfg, err := app.LoadConfig(o)
	if err != nil {
		return nil, usage(cmd, err)
	}
	cfg.Version = version
	for _, w := range cfg.Warnings {
		c.say("warning: %s", w)
	}
	return cfg, nil
}

// say prints a line for people.
func (c *cli) say(format string, args ...any) { _, _ = fmt.Fprintf(c.err, format+"\n", args...) }

// logger logs to stderr as configured.
func (c *cli) logger(cfg *app.Config) zerolog.Logger {
	w := c.err
	if cfg.Logging.Format != "json" {
		w = zerolog.ConsoleWriter{Out: c.err, NoColor: !colours(c.err), TimeFormat: "15:04:05"}
	}
	level, err := zerolog.ParseLevel(cfg.Logging.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	if c.debug {
		level = zerolog.DebugLevel
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// aliases make a flag reachable by other names, which the predecessor's
// documents or its code use.
func aliases(f *pflag.FlagSet, names map[string]string) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if to, ok := names[name]; ok {
			name = to
		}
		return pflag.NormalizedName(name)
	})
}

// oneOf checks a flag's value.
func oneOf(flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	named := slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return s == "" })
	return fmt.Errorf("--%s %q: want one of %s", flag, value, strings.Join(named, ", "))
}
