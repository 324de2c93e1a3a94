package main

import (
	"context"
	"errors"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/exhume/exhume/internal/app"
)

// natsFlags are the flags of commands that can talk to a fleet.
func natsFlags(f *pflag.FlagSet) {
	f.String("nats", "", "the fleet's NATS `URL`, several with commas between")
	f.String("context", "", "take the connection from this `context` of the nats command line tool")
	f.String("nats-creds", "", "NATS credentials `file`")
	f.String("nats-nkey", "", "NKey seed `file`")
	f.String("nats-user", "", "NATS `user`; the password comes from EXHUME_NATS_PASSWORD")
	f.String("nats-tls-ca", "", "PEM `file` with the authorities that the server's certificate is checked against")
	f.String("nats-tls-cert", "", "PEM `file` with the client's certificate")
	f.String("nats-tls-key", "", "PEM `file` with the client's key")
	f.String("start-timeout", "", "wait this `long` for NATS and databases when starting (default 1m)")
}

// roleFlags are the flags of all roles.
func roleFlags(f *pflag.FlagSet) {
	natsFlags(f)
	f.String("http-listen", "", "answer /livez, /readyz and /metrics on this `host:port`; off for nowhere (default 127.0.0.1 with port 7700 for up, 7701 for a collector, 7702 for a worker)")
	f.String("drain-timeout", "", "finish what is in hand for this `long` when stopped (default 30s)")
}

func workerFlags(f *pflag.FlagSet) {
	f.String("worker-name", "", "the worker's `name` in results and evidence (default host and process)")
	f.String("group-size", "", "restore about this `many` items together (default 512)")
	f.String("memory", "", "hold at most this `size` of artifacts in memory (default 256MiB)")
	f.String("item-timeout", "", "give an item up after this `long` and try it again (default 10m)")
}

func collectorFlags(f *pflag.FlagSet, accept *bool) {
	f.String("ledger", "", "the ledger's PostgreSQL `URL` (default a SQLite file in the state directory)")
	f.String("single-root", "", "restore requests that are published one at a time below this `directory` (default: they are refused)")
	f.String("nats-replicas", "", "keep streams on this `number` of the cluster's servers (default 1)")
	f.String("queue-bytes", "", "keep at most this `size` of requests at the broker (default 8GiB)")
	f.String("results-bytes", "", "keep at most this `size` of results at the broker (default 6GiB)")
	f.String("results-age", "", "keep recorded results for this `long` at most (default 720h)")
	f.String("retries-bytes", "", "keep at most this `size` of records of failed attempts at the broker (default 1GiB)")
	f.BoolVar(accept, "accept-evidence", false, "go on although the evidence log was moved away, replaced or cut")
}

func (c *cli) workerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "worker",
		GroupID: groupFleet,
		Short:   "Restore items for a fleet, until stopped",
		Long: `Take restore requests from the fleet's NATS, restore them and say what became of
them, until stopped. Start as many as are wanted, on as many machines: they need
NATS, the archive for reading, and the destination, and nothing else.

Ctrl-C or SIGTERM stops it in order: what is in hand is finished. A second one
stops it at once; what it held is done by others.`,
		Example: `  exhume worker --nats nats://nats:4222 --archive postgresql://reader@db/archive
  exhume worker --context production --worker-name rack7-1 --memory 1GiB`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.role(cmd, app.RunWorker, false) },
	}
	roleFlags(cmd.Flags())
	workerFlags(cmd.Flags())
	return cmd
}

func (c *cli) collectorCommand() *cobra.Command {
	var accept bool
	cmd := &cobra.Command{
		Use:     "collector",
		GroupID: groupFleet,
		Short:   "Record results and answer questions for a fleet, until stopped",
		Long: `Set the fleet's streams up, record the workers' results in ledger and evidence,
end batches and answer the control API, until stopped. Several may run at once on
one PostgreSQL ledger, each with an evidence directory of its own; when one is
killed, the others go on.`,
		Example: `  exhume collector --nats nats://nats:4222 --ledger postgresql://exhume@db/ledger --archive postgresql://writer@db/archive
  exhume collector --context production --nats-replicas 3 --evidence-dir /var/lib/exhume/evidence`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.role(cmd, app.RunCollector, accept) },
	}
	roleFlags(cmd.Flags())
	collectorFlags(cmd.Flags(), &accept)
	return cmd
}

func (c *cli) upCommand() *cobra.Command {
	var accept bool
	cmd := &cobra.Command{
		Use:     "up",
		GroupID: groupFleet,
		Short:   "Run a whole fleet in this process, until stopped",
		Long: `Run broker, worker and collector in this process, until stopped. It listens on
loopback, with a token that only this user can read from the state directory:
'exhume submit' and 'exhume batch-restore' with the same state directory submit to
it, 'exhume worker' joins it.`,
		Example: `  exhume up --archive sqlite:///./archive.sqlite
  exhume submit manifest.json --by ops --wait`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.role(cmd, app.RunUp, accept) },
	}
	roleFlags(cmd.Flags())
	workerFlags(cmd.Flags())
	collectorFlags(cmd.Flags(), &accept)
	cmd.Flags().String("listen", "", "let other processes connect to the broker on this `host:port` (default 127.0.0.1:4222)")
	return cmd
}

// role runs a role until it is told to stop, which is no error.
func (c *cli) role(
	cmd *cobra.Command, run func(context.Context, *app.Config, app.RoleOptions, zerolog.Logger) error, accept bool,
) error {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	err = run(cmd.Context(), cfg, app.RoleOptions{
		AcceptEvidence: accept,
		Waiting:        func(owner string) { c.say("Waiting for %s, which works in %s.", owner, cfg.Exhume.StateDir) },
		Started: func(at app.Addresses) {
			if at.NATS != "" {
				c.say("Broker: %s", at.NATS)
			}
			if at.HTTP != "" {
				c.say("HTTP: http://%s/metrics", at.HTTP)
			}
			c.say("%s is ready.", cmd.CommandPath())
		},
	}, c.logger(cfg))
	if cmd.Context().Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}
