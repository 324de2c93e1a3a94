package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// postgresSettings is what anybody would set who wants speed and wants to lose
// nothing: fsync, synchronous_commit and full_page_writes stay on, as they are
// by default.
var postgresSettings = []string{
	"shared_buffers=256MB",
	"max_wal_size=4GB",
	"min_wal_size=1GB",
	"wal_buffers=64MB",
	"checkpoint_timeout=30min",
	"wal_compression=on",
	"jit=off",
}

// postgres is a PostgreSQL cluster that listens on a socket of its own. It is
// started for each measurement and stopped after it, so that it does not disturb
// the others.
type postgres struct {
	programs programs
	dir      string
	running  *server
}

// newPostgres makes a cluster below parent.
func newPostgres(parent string, found programs) (*postgres, error) {
	dir, err := serverDir(parent, "postgres")
	if err != nil {
		return nil, err
	}
	p := &postgres{programs: found, dir: dir}
	cmd, err := command(dir, found.initdb, "-D", p.data(), "-U", "exhume", "-A", "trust", "-E", "UTF8", "--no-locale")
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // or the program could die with the thread
	defer runtime.UnlockOSThread()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return p, nil
}

func (p *postgres) data() string { return filepath.Join(p.dir, "data") }

// url is how a database of the cluster is reached.
func (p *postgres) url(database string) string {
	return fmt.Sprintf("host=%s port=5432 user=exhume dbname=%s", p.dir, database)
}

// start starts the cluster.
func (p *postgres) start(ctx context.Context) error {
	args := []string{p.programs.postgres, "-D", p.data(), "-k", p.dir, "-c", "listen_addresses=", "-c", "log_min_messages=fatal"}
	for _, s := range postgresSettings {
		args = append(args, "-c", s)
	}
	ready := func(ctx context.Context) error { return p.exec(ctx, "postgres", "SELECT 1") }
	var err error
	p.running, err = startServer(ctx, p.dir, ready, args...)
	return err
}

// stop stops the cluster; everything is written before it is gone.
func (p *postgres) stop() { p.running.stop(syscall.SIGINT) }

// exec runs statements in a database, each in a transaction of its own.
func (p *postgres) exec(ctx context.Context, database string, statements ...string) error {
	c, err := pgx.Connect(ctx, p.url(database))
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left to lose
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}
