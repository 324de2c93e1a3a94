package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"
)

// asynq's settings, the fastest of those that were tried: 1 to 64 servers with
// 10 to 200 workers each, 8 to 512 goroutines that enqueue. A server takes its
// tasks one by one in one goroutine, so that several of them, here in one
// process, are much faster than one with as many workers.
const (
	asynqInserters   = 128
	asynqServers     = 16
	asynqServersSync = 32 // while Redis syncs for one, others can write
	asynqWorkers     = 50
	asynqIdle        = 5 * time.Millisecond
	asynqQueueName   = "default"
	asynqConnections = 50 // of each server
)

// asynqPeer measures asynq on Redis, with a new server for each measurement.
type asynqPeer struct {
	name    string
	parent  string
	found   programs
	always  bool // the log is synced before anything is answered
	servers int
	version string
	runs    int
}

func newAsynqPeer(ctx context.Context, parent string, found programs, always bool) *asynqPeer {
	name, servers := "asynq", asynqServers
	if always {
		name, servers = "asynq-always", asynqServersSync
	}
	version := fmt.Sprintf("asynq %s on Redis %s",
		moduleVersion("github.com/hibiken/asynq"), versionOf(ctx, found.redis, "--version"))
	return &asynqPeer{name: name, parent: parent, found: found, always: always, servers: servers, version: version}
}

func (p *asynqPeer) contender() contender {
	durability := "none: appendonly no and no snapshots, so that all is lost when Redis ends"
	if p.always {
		durability = "appendonly yes, appendfsync always"
	}
	return contender{
		about: about{
			Name: p.name, Version: p.version, Durable: p.always, Durability: durability,
			Settings: fmt.Sprintf("%d goroutines enqueue one task a call (asynq offers no batches and no pipelining), %d servers of %d workers in one process, "+
				"TaskCheckInterval %s, retention 0, log level error", asynqInserters, p.servers, asynqWorkers, asynqIdle),
		},
		ways:    []way{insertThenWork, workMeanwhile},
		measure: p.measure,
	}
}

func (p *asynqPeer) measure(ctx context.Context, w way, jobs []job) (f figures, err error) {
	p.runs++
	server, err := startRedis(ctx, p.parent, fmt.Sprintf("%s-%d", p.name, p.runs), p.found, p.always)
	if err != nil {
		return f, err
	}
	defer server.stop()
	q := newAsynqQueue(server, p.servers)
	defer func() { err = errors.Join(err, q.close()) }()
	return measure(ctx, q, w, jobs)
}

// asynqQueue is asynq's client and servers on one Redis server.
type asynqQueue struct {
	client    *asynq.Client
	inspector *asynq.Inspector
	servers   []*asynq.Server
}

func newAsynqQueue(r *redis, servers int) *asynqQueue {
	q := &asynqQueue{
		client:    asynq.NewClient(r.options(asynqInserters)),
		inspector: asynq.NewInspector(r.options(1)),
		servers:   make([]*asynq.Server, servers),
	}
	for i := range q.servers {
		q.servers[i] = asynq.NewServer(r.options(asynqConnections), asynq.Config{
			Concurrency:       asynqWorkers,
			Queues:            map[string]int{asynqQueueName: 1},
			TaskCheckInterval: asynqIdle,
			LogLevel:          asynq.ErrorLevel,
		})
	}
	return q
}

func (q *asynqQueue) insert(ctx context.Context, jobs []job) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range asynqInserters {
		g.Go(func() error {
			for ; i < len(jobs); i += asynqInserters {
				if err := q.enqueue(ctx, jobs[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (q *asynqQueue) enqueue(ctx context.Context, j job) error {
	args, err := json.Marshal(j)
	if err != nil {
		return err
	}
	_, err = q.client.EnqueueContext(ctx, asynq.NewTask(j.Kind(), args), asynq.Queue(asynqQueueName))
	return err
}

func (q *asynqQueue) work(_ context.Context, done func(index int)) error {
	handler := asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		var j job
		if err := json.Unmarshal(t.Payload(), &j); err != nil {
			return err
		}
		done(j.Index)
		return nil
	})
	for _, s := range q.servers {
		if err := s.Start(handler); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until no task is left; a task without retention goes when it is
// done.
func (q *asynqQueue) settle(ctx context.Context) error {
	for {
		info, err := q.inspector.GetQueueInfo(asynqQueueName)
		if err != nil || info.Size == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d tasks are left: %w", info.Size, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func (q *asynqQueue) completed(context.Context) (int, error) {
	info, err := q.inspector.GetQueueInfo(asynqQueueName)
	if err != nil {
		return 0, err
	}
	return info.ProcessedTotal - info.FailedTotal, nil
}

func (q *asynqQueue) close() error {
	for _, s := range q.servers {
		s.Shutdown()
	}
	return errors.Join(q.client.Close(), q.inspector.Close())
}
