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
	"github.com/exhume/exhume/internal/control"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// fleet is all roles in one process, with everything that they share open.
type fleet struct {
	broker    *broker.Broker
	ledger    *ledger.Ledger
	control   *control.Control
	collector *collector.Collector
	worker    *worker.Worker
	targets   *trees
	lock      *stateLock
	closers   []func() error
}

// fleetOptions say how a fleet is opened.
type fleetOptions struct {
	// waiting is called when another process has to end first.
	waiting func(owner string)
	// acceptEvidence continues with an evidence log that is not the one that
	// the ledger knows.
	acceptEvidence bool
}

// openFleet opens an embedded fleet on the configured archive.
func openFleet(ctx context.Context, cfg *Config, o fleetOptions, log zerolog.Logger) (_ *fleet, err error) {
	lendProcessors()
	f := &fleet{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.lock, err = lockState(ctx, cfg.Exhume.StateDir, o.waiting); err != nil {
		return nil, err
	}
	// The archive first: without it there is nothing to do.
	source, note, err := f.openArchive(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := f.openState(ctx, cfg); err != nil {
		return nil, err
	}
	book, err := f.openBook(ctx, cfg, o, log)
	if err != nil {
		return nil, err
	}
	f.collector = collector.New(book, collectorQueue{f.broker}, note, log)
	if f.control, err = control.New(ctx, book, f.broker, f.collector.FinishIfDone); err != nil {
		return nil, err
	}
	f.targets = &trees{}
	f.onClose(f.targets.close)
	restorer := restore.New(source, archive.Decode, f.targets.group, restoreConfig(cfg))
	f.worker, err = worker.New(workerConfig(cfg, source.Ping), workerQueue{f.broker}, f.broker, restorer, log)
	return f, err
}

// openArchive opens the archive for reading and, unless that is turned off, for
// taking notes of restorations.
func (f *fleet) openArchive(ctx context.Context, cfg *Config) (*archive.Reader, collector.Archive, error) {
	source, err := archive.OpenReader(ctx, cfg.Backend.URL)
	if err != nil {
		return nil, nil, err
	}
	if !cfg.Exhume.ArchiveEvents {
		f.onClose(source.Close)
		return source, nil, nil
	}
	notes, err := archive.OpenWriter(ctx, cfg.Backend.URL)
	if err != nil {
		err = fmt.Errorf("%w (restorations are noted in the archive; --archive-events off leaves that out)", err)
		return nil, nil, errors.Join(err, source.Close())
	}
	// The writer is closed last, because the last one out tidies SQLite's side
	// files up and a reader may not.
	f.onClose(func() error { return errors.Join(source.Close(), notes.Close()) })
	return source, noteRestorations(notes), nil
}

// openState opens the broker and the ledger in the state directory.
func (f *fleet) openState(ctx context.Context, cfg *Config) (err error) {
	if f.broker, err = broker.Embed(filepath.Join(cfg.Exhume.StateDir, "broker")); err != nil {
		return err
	}
	f.onClose(f.broker.Close)
	if err := f.broker.Setup(ctx); err != nil {
		return err
	}
	if err := f.broker.Reclaim(ctx); err != nil {
		return err
	}
	if f.ledger, err = ledger.Open(ctx, ledgerPath(cfg)); err != nil {
		return err
	}
	f.onClose(f.ledger.Close)
	return nil
}

func (f *fleet) openBook(ctx context.Context, cfg *Config, o fleetOptions, log zerolog.Logger) (*collector.Book, error) {
	lines, err := evidence.Open(cfg.Exhume.EvidenceDir)
	if err != nil {
		return nil, err
	}
	f.onClose(lines.Close)
	opts := evidenceOptions(cfg)
	opts.AcceptEvidence = o.acceptEvidence
	return collector.OpenBook(ctx, bookLedger{f.ledger, log}, lines, opts)
}

func evidenceOptions(cfg *Config) collector.Options {
	return collector.Options{
		Backend: cfg.Backend.Backend, URL: archive.Redact(cfg.Backend.URL),
		Timings: cfg.Performance.Enabled && cfg.Performance.EmitToEvidence,
	}
}

func (f *fleet) onClose(c func() error) { f.closers = append(f.closers, c) }

// close closes everything, at the same time because each waits for the disk,
// and gives the state directory free.
func (f *fleet) close() error {
	errs := make([]error, len(f.closers))
	var wg sync.WaitGroup
	for i, c := range f.closers {
		wg.Go(func() { errs[i] = c() })
	}
	wg.Wait()
	f.closers = nil
	if f.lock != nil {
		errs = append(errs, f.lock.unlock())
	}
	return errors.Join(errs...)
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
		err := f.collector.Run(collecting)
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

func restoreConfig(cfg *Config) restore.Config {
	c := restore.Config{Memory: cfg.Exhume.Memory.Bytes(), Threads: processors}
	if cfg.Batch.Concurrent == 1 {
		c.Threads = 1 // the switch back to one item after the other
	}
	return c
}

func workerConfig(cfg *Config, ping func(context.Context) error) worker.Config {
	c := worker.Config{
		Name: cfg.Exhume.WorkerName, Groups: cfg.Batch.Concurrent, Heartbeat: broker.Heartbeat, Ping: ping,
		Retry: retryPolicy(cfg),
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
