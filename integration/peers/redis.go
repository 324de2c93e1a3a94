package main

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"

	"github.com/hibiken/asynq"
)

// redis is a Redis server with an empty directory of its own.
type redis struct {
	dir     string
	running *server
}

// startRedis starts a server below parent that listens on a socket. With always
// it has an append-only file that is synced before anything is answered, and
// otherwise it keeps everything in memory only.
func startRedis(ctx context.Context, parent, name string, found programs, always bool) (*redis, error) {
	dir, err := serverDir(parent, name)
	if err != nil {
		return nil, err
	}
	r := &redis{dir: dir}
	args := []string{found.redis, "--port", "0", "--unixsocket", r.socket(), "--dir", dir, "--save", "", "--daemonize", "no"}
	if always {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	} else {
		args = append(args, "--appendonly", "no")
	}
	r.running, err = startServer(ctx, dir, r.ready, args...)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *redis) socket() string { return filepath.Join(r.dir, "s") }

// options is how asynq reaches the server with up to connections connections.
func (r *redis) options(connections int) asynq.RedisClientOpt {
	return asynq.RedisClientOpt{Network: "unix", Addr: r.socket(), PoolSize: connections}
}

func (r *redis) ready(context.Context) error {
	c := asynq.NewClient(r.options(1))
	return errors.Join(c.Ping(), c.Close())
}

// stop stops the server.
func (r *redis) stop() { r.running.stop(syscall.SIGTERM) }
