package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/console"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// process is what the roles of one process have open.
type process struct {
	cfg     *Config
	log     zerolog.Logger
	metrics *console.Metrics
	broker  *broker.Broker
	// first are closed before the others, one after the other: what reads the
	// archive. SQLite's side files are tidied up by the last one out, which must
	// be able to write.
	first, others []func() error
}

// processMemory is what the process needs besides artifacts: broker, ledger,
// manifest, messages.
const processMemory = 128 << 20

func newProcess(cfg *Config, log zerolog.Logger) *process {
	lendProcessors()
	debug.SetMemoryLimit(cfg.Exhume.Memory.Bytes() + processMemory)
	return &process{cfg: cfg, log: log, metrics: console.NewMetrics()}
}

// close closes everything: what may, at the same time, because each waits for
// the disk.
func (p *process) close() error {
	var errs []error
	for _, c := range p.first {
		errs = append(errs, c())
	}
	others := make([]error, len(p.others))
	var wg sync.WaitGroup
	for i, c := range p.others {
		wg.Go(func() { others[i] = c() })
	}
	wg.Wait()
	p.first, p.others = nil, nil
	return errors.Join(append(errs, others...)...)
}

// restoring is the worker's role, opened.
type restoring struct {
	worker  *worker.Worker
	source  *source
	targets *targets
}

// openRestoring opens the worker's role on an archive that is open, which it
// closes in the end. A substitute, unless it is nil, stands in for archive and
// destination. Change may change the worker's configuration.
func (p *process) openRestoring(from *source, substitute worker.Restorer, change func(*worker.Config)) (*restoring, error) {
	r := &restoring{source: from, targets: newTargets(p.cfg)}
	p.first = append(p.first, r.targets.close, from.Close)
	var restorer worker.Restorer = restore.New(from, archive.Decode, r.targets.group, restoreConfig(p.cfg, p.metrics.Synced))
	if substitute != nil {
		restorer = substitute
	}
	c := workerConfig(p.cfg)
	c.Observer, c.Limiter, c.Version = p.metrics, p.broker, p.cfg.Version
	c.Prober, c.Tell = prober{from, r.targets}, p.broker.TellOfWorker
	change(&c)
	var err error
	r.worker, err = worker.New(c, workerQueue{p.broker}, p.broker, restorer, p.log)
	return r, err
}

// openNotes opens the archive for taking notes of restorations, unless that is
// turned off.
func (p *process) openNotes(ctx context.Context) (collector.Archive, error) {
	if !p.cfg.Exhume.ArchiveEvents {
		return nil, nil
	}
	w, err := archive.OpenWriter(ctx, p.cfg.Backend.URL)
	if err != nil {
		return nil, fmt.Errorf("%w (restorations are noted in the archive; --archive-events off leaves that out)", err)
	}
	p.others = append(p.others, w.Close)
	return noteRestorations(w), nil
}

// patiently opens something that may not be there yet, until it is or the start
// timeout has passed.
func patiently[T any](ctx context.Context, p *process, what string, open func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.cfg.Exhume.StartTimeout))
	defer cancel()
	for said := false; ; {
		v, err := open(ctx)
		if err == nil || fault.CodeOf(err).Class() != schemas.ClassBackendDown {
			return v, err
		}
		if !said {
			p.log.Warn().Err(err).Str("until", fmt.Sprint(p.cfg.Exhume.StartTimeout)).Msg(what + " is not there yet; waiting")
			said = true
		}
		select {
		case <-ctx.Done():
			return v, fmt.Errorf("%w (waited %s; --start-timeout bounds it)", err, p.cfg.Exhume.StartTimeout)
		case <-time.After(time.Second):
		}
	}
}

// processWorkerName names a worker of a fleet, of which a host may run several.
func processWorkerName() string { return fmt.Sprintf("%s-%d", hostWorkerName(), os.Getpid()) }
