package app

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// fleet is all roles in one process, with everything that they share open.
type fleet struct {
	*process
	*restoring
	*recording
	lock *stateLock
	// address is where the broker listens, a URL.
	address string
}

// fleetOptions say how a fleet is opened.
type fleetOptions struct {
	// waiting is called when another process has to end first.
	waiting func(owner string)
	// acceptEvidence continues with an evidence log that is not the one that
	// the ledger knows.
	acceptEvidence bool
	// listen, if not empty, is where other processes may connect to the broker,
	// host:port.
	listen string
	// patience bounds how long it waits for another process in the state directory; 0 does not.
	patience time.Duration
	// drain bounds how long the worker finishes what it has in hand; 0 does not.
	drain time.Duration
	// temporary says that the fleet ends by itself: nobody is to submit to it, and
	// somebody waits for it who must hear when it cannot write.
	temporary bool
	trial     Trial
}

// openFleet opens an embedded fleet on the configured archive.
func openFleet(ctx context.Context, cfg *Config, o fleetOptions, log zerolog.Logger) (_ *fleet, err error) {
	f := &fleet{process: newProcess(cfg, log)}
	if o.trial.Metrics != nil {
		f.metrics = o.trial.Metrics
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.lock, err = lockStateFor(ctx, o.patience, cfg.Exhume.StateDir, o.waiting); err != nil {
		return nil, err
	}
	// One that was killed has left its address behind.
	if err := forgetLocalFleet(cfg); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	// The archive first: without it there is nothing to do.
	from, err := openSource(ctx, cfg)
	if err != nil {
		return nil, err
	}
	notes, err := f.openNotes(ctx)
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	listen, token := listenOptions(o.listen)
	if err := f.embed(ctx, listen); err != nil {
		return nil, errors.Join(err, from.Close())
	}
	f.restoring, err = f.openRestoring(from, o.trial.Restorer, func(c *worker.Config) {
		c.DrainTimeout, c.EndWhenSick = o.drain, o.temporary
	})
	if err != nil {
		return nil, err
	}
	l, err := ledger.OpenWith(ctx, LedgerURL(cfg), ledger.Options{Migrate: true})
	if err != nil {
		return nil, err
	}
	if f.recording, err = f.openRecording(ctx, l, notes, o.acceptEvidence); err != nil {
		return nil, err
	}
	f.address, err = f.publishFleet(token, o.temporary)
	return f, err
}

// embed runs a broker of its own in the state directory.
func (p *process) embed(ctx context.Context, opts []broker.EmbedOption) (err error) {
	opts = append(opts, broker.Within(bounds(p.cfg)))
	if p.broker, err = broker.Embed(filepath.Join(p.cfg.Exhume.StateDir, "broker"), opts...); err != nil {
		return err
	}
	p.others = append(p.others, p.broker.Close)
	if err := p.broker.Setup(ctx); err != nil {
		return err
	}
	return p.broker.Reclaim(ctx)
}

// close closes everything and gives the state directory free.
func (f *fleet) close() error {
	err := f.process.close()
	if f.lock != nil {
		err = errors.Join(err, forgetLocalFleet(f.cfg), f.lock.unlock())
	}
	return err
}

func evidenceOptions(cfg *Config) collector.Options {
	return collector.Options{
		Backend: cfg.Backend.Backend, URL: archive.Redact(cfg.Backend.URL),
		Timings: cfg.Performance.Enabled && cfg.Performance.EmitToEvidence,
	}
}

// run works until stop ends. Then the worker finishes what it holds, and after
// it, so that nothing of it is left behind, the collector what is recorded.
func (f *fleet) run(stop context.Context) error {
	collecting, stopCollector := context.WithCancel(context.WithoutCancel(stop))
	defer stopCollector()
	working, stopWorker := context.WithCancel(stop)
	defer stopWorker()

	collected := make(chan error, 1)
	go func() {
		err := f.recording.run(collecting)
		stopWorker() // results could not be recorded any more
		collected <- err
	}()
	err := f.worker.Run(working)
	stopCollector()
	if cerr := <-collected; cerr != nil {
		return errors.Join(err, cerr)
	}
	return errors.Join(err, f.collector.Drain(context.WithoutCancel(stop)))
}

// EvidencePath is the evidence log's file.
func EvidencePath(cfg *Config) string {
	return filepath.Join(cfg.Exhume.EvidenceDir, evidence.FileName)
}

func ledgerPath(cfg *Config) string { return filepath.Join(cfg.Exhume.StateDir, "ledger.sqlite") }

func restoreConfig(cfg *Config, synced func(time.Duration)) restore.Config {
	c := restore.Config{
		Memory: cfg.Exhume.Memory.Bytes(), Threads: processors, ItemTimeout: time.Duration(cfg.Exhume.ItemTimeout), Synced: synced,
	}
	if cfg.Batch.Concurrent == 1 {
		c.Threads, c.Fetches = 1, 1 // the switch back to one item after the other
	}
	return c
}

func workerConfig(cfg *Config) worker.Config {
	c := worker.Config{
		Name: cfg.Exhume.WorkerName, GroupSize: cfg.Exhume.GroupSize, Groups: cfg.Batch.Concurrent, Heartbeat: broker.Heartbeat,
		Retry: retryPolicy(cfg), Backend: cfg.Backend.Backend,
	}
	if c.Name == "" {
		c.Name = hostWorkerName()
	}
	return c
}

func retryPolicy(cfg *Config) worker.RetryPolicy {
	p := worker.RetryPolicy{
		MaxAttempts: cfg.Retry.MaxAttempts,
		Initial:     seconds(cfg.Retry.InitialDelay), MaxDelay: seconds(cfg.Retry.MaxDelay),
		Multiplier: cfg.Retry.Multiplier, Jitter: jitter(cfg),
	}
	if !cfg.Retry.Enabled {
		p.MaxAttempts = 1
	}
	return p
}

// jitter is the configured source of randomness of delays.
func jitter(cfg *Config) func() float64 {
	random := rand.Float64
	if cfg.Retry.Seed != nil {
		var mu sync.Mutex
		r := rand.New(rand.NewPCG(uint64(*cfg.Retry.Seed), 0)) //nolint:gosec // spreads load, guards nothing
		random = func() float64 {
			mu.Lock()
			defer mu.Unlock()
			return r.Float64()
		}
	}
	j := cfg.Retry.Jitter
	return func() float64 { return 1 - j + j*random() }
}

// seconds is a configured delay; zero means no delay, and not a default.
func seconds(s float64) time.Duration { return max(time.Duration(s*float64(time.Second)), 1) }

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// hostWorkerName names the worker after the host.
func hostWorkerName() string {
	host, err := os.Hostname()
	name := notInNames.ReplaceAllString(host, "-")
	if err != nil || schemas.CheckName(name) != nil {
		return "worker"
	}
	return name
}
