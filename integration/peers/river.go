package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"golang.org/x/sync/errgroup"
)

// River's settings, the fastest of those that were tried: 500 to 10,000 workers,
// one client and two, 1 to 4 goroutines with 2,000 to 10,000 jobs a COPY.
const (
	riverInserters   = 2
	riverInsertBatch = 5000
	riverWorkers     = 500
	riverCooldown    = time.Millisecond
	riverConnections = 10
)

// riverPeer measures River on PostgreSQL, with a new database for each
// measurement.
type riverPeer struct {
	server  *postgres
	version string
	runs    int
}

func newRiverPeer(ctx context.Context, parent string, found programs) (*riverPeer, error) {
	server, err := newPostgres(parent, found)
	if err != nil {
		return nil, err
	}
	version := fmt.Sprintf("River %s on PostgreSQL %s",
		moduleVersion("github.com/riverqueue/river"), versionOf(ctx, found.postgres, "--version"))
	return &riverPeer{server: server, version: version}, nil
}

func (p *riverPeer) contender() contender {
	return contender{
		about: about{
			Name: "river", Version: p.version,
			Durable: true, Durability: "PostgreSQL's defaults: fsync, synchronous_commit and full_page_writes are on",
			Settings: fmt.Sprintf("InsertManyFast (COPY) of %d jobs in %d goroutines, %d workers, FetchCooldown %s, LISTEN/NOTIFY, %d connections; %s",
				riverInsertBatch, riverInserters, riverWorkers, riverCooldown, riverConnections, strings.Join(postgresSettings, ", ")),
		},
		ways:    []way{insertThenWork, workMeanwhile},
		measure: p.measure,
	}
}

func (p *riverPeer) measure(ctx context.Context, w way, jobs []job) (f figures, err error) {
	if err := p.server.start(ctx); err != nil {
		return f, err
	}
	defer p.server.stop()
	p.runs++
	database := fmt.Sprintf("run%d", p.runs)
	q, err := newRiverQueue(ctx, p.server, database)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, q.close()) }()
	if f, err = measure(ctx, q, w, jobs); err != nil {
		return f, err
	}
	// Autovacuum would do this later, while something else is measured.
	return f, p.server.exec(ctx, database, "VACUUM ANALYZE")
}

// riverQueue is a River client with a database of its own.
type riverQueue struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
	worker *riverWorker
}

// riverWorker does nothing and says so.
type riverWorker struct {
	river.WorkerDefaults[job]
	done func(index int)
}

// Work is called by River.
func (w *riverWorker) Work(_ context.Context, j *river.Job[job]) error {
	w.done(j.Args.Index)
	return nil
}

// newRiverQueue makes a database with River's tables. What that wrote is
// checkpointed, so that the measurement does not pay for it.
func newRiverQueue(ctx context.Context, server *postgres, database string) (*riverQueue, error) {
	if err := server.exec(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(server.url(database))
	if err != nil {
		return nil, err
	}
	config.MaxConns = riverConnections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	q := &riverQueue{pool: pool, worker: &riverWorker{}}
	if err := q.open(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return q, nil
}

// open makes River's tables and the client.
func (q *riverQueue) open(ctx context.Context) error {
	driver := riverpgxv5.New(q.pool)
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: logger})
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, q.worker)
	q.client, err = river.NewClient(driver, &river.Config{
		FetchCooldown: riverCooldown,
		JobTimeout:    -1, // or each job would have a timer
		Logger:        logger,
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
		Workers:       workers,
	})
	if err != nil {
		return err
	}
	_, err = q.pool.Exec(ctx, "CHECKPOINT")
	return err
}

func (q *riverQueue) insert(ctx context.Context, jobs []job) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(riverInserters)
	for first := 0; first < len(jobs); first += riverInsertBatch {
		part := jobs[first:min(first+riverInsertBatch, len(jobs))]
		g.Go(func() error {
			params := make([]river.InsertManyParams, len(part))
			for i := range part {
				params[i].Args = part[i]
			}
			_, err := q.client.InsertManyFast(ctx, params)
			return err
		})
	}
	return g.Wait()
}

func (q *riverQueue) work(ctx context.Context, done func(index int)) error {
	q.worker.done = done
	return q.client.Start(ctx)
}

// settle stops the client, which makes it write the last completions at once;
// they would wait for its next tick otherwise.
func (q *riverQueue) settle(ctx context.Context) error { return q.client.Stop(ctx) }

func (q *riverQueue) completed(ctx context.Context) (n int, err error) {
	err = q.pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&n)
	return n, err
}

// close ends what settle did not.
func (q *riverQueue) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := q.client.StopAndCancel(ctx)
	q.pool.Close()
	return err
}
