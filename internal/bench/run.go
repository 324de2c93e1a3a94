package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/console"
	"github.com/exhume/exhume/schemas"
)

// measure does what the mode is about, once.
func (w *world) measure(ctx context.Context) (Measured, error) {
	switch {
	case w.Mode == Idle:
		return w.idle(ctx)
	case w.Mode == Submit:
		return w.submit(ctx)
	case w.Mode == ManyBatches:
		return w.queued(ctx)
	case w.Workers > 0:
		return w.fleet(ctx)
	}
	return w.embedded(ctx)
}

// embedded restores the manifest in this process, as batch-restore does.
func (w *world) embedded(ctx context.Context) (m Measured, err error) {
	dir, cfg, err := w.place(ctx)
	if err != nil {
		return m, err
	}
	metrics := console.NewMetrics()
	o := w.batch(dir, "bench")
	o.Trial.Metrics = metrics
	if w.Mode == Noop {
		o.Trial.Restorer = noop{}
	}
	u := beginUsage()
	b, err := app.BatchRestore(ctx, cfg, o, zerolog.Nop())
	took, cpu := u.since()
	if err != nil {
		return m, err
	}
	if err := complete(b.Summary); err != nil {
		return m, err
	}
	m.Rate = newRate(b.Total, b.Counts.Bytes, took)
	m.CPU = float64(cpu.Microseconds()) / float64(b.Total)
	m.Processes = []Process{{"all in one", peakMemory("self")}}
	families, err := metrics.Gather()
	if err != nil {
		return m, err
	}
	items, err := itemStages(ctx, cfg, []string{b.ID})
	m.Stages = slices.Concat(items, groupStages(families))
	return m, err
}

// batch is the batch with this name, to be restored in a run's directory.
func (w *world) batch(dir, name string) app.BatchOptions {
	return app.BatchOptions{
		Manifest: w.corpus.manifest, Actor: "bench", Name: name, Root: filepath.Join(dir, "out"), Progress: quiet{},
	}
}

// complete refuses a batch of which not everything was restored.
func complete(s schemas.Summary) error {
	if s.Counts.Restored == s.Total {
		return nil
	}
	return fmt.Errorf("only %d of %d items were restored: %+v", s.Counts.Restored, s.Total, s.Counts)
}

// quiet hears of progress and says nothing.
type quiet struct{}

func (quiet) Waiting(string)            {}
func (quiet) Checking(int64)            {}
func (quiet) Submitting(_, _ int64)     {}
func (quiet) Full(error)                {}
func (quiet) Restoring(schemas.Summary) {}
func (quiet) Where(schemas.Whereabouts) {}

// noop says that it has restored what it was asked for.
type noop struct{}

func (noop) Restore(_ context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	done := make([]schemas.Result, len(items))
	for i, r := range items {
		done[i] = schemas.Result{
			Request: r, Outcome: schemas.OutcomeRestored, Repo: "bench", Path: r.Output, Size: 1,
			SHA256: "0000000000000000000000000000000000000000000000000000000000000000", Target: s.Root + "/" + r.Output,
		}
	}
	return done, nil
}

// fleet restores the manifest with processes of their own: a collector and the
// workers. This process is broker and producer.
func (w *world) fleet(ctx context.Context) (m Measured, err error) {
	f, err := w.startFleet(ctx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.stop(nil)) }()
	if err := f.startWorkers(ctx); err != nil {
		return m, err
	}
	u := beginUsage()
	b, err := app.Submit(ctx, f.cfg, w.batch(f.dir, "bench"), true, zerolog.Nop())
	if err == nil {
		err = complete(b.Summary)
	}
	if err != nil {
		return m, err
	}
	return f.measured(ctx, u, []string{b.ID}, b.Counts.Bytes)
}

// queued restores batches that are all submitted before the first worker starts.
func (w *world) queued(ctx context.Context) (m Measured, err error) {
	f, err := w.startFleet(ctx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.stop(nil)) }()
	batches, err := f.submitAll(ctx)
	if err != nil {
		return m, err
	}
	u := beginUsage()
	if err := f.startWorkers(ctx); err != nil {
		return m, err
	}
	if err := f.await(ctx, len(batches)); err != nil {
		return m, err
	}
	return f.measured(ctx, u, batches, w.corpus.bytes)
}

// measured are the figures of a fleet that has just restored the batches; it
// stops the fleet.
func (f *fleet) measured(ctx context.Context, u usage, batches []string, bytes int64) (m Measured, err error) {
	w := f.world
	took, cpu := u.since()
	m.Rate = newRate(int64(w.Items), bytes, took)
	families, err := f.scrape(ctx)
	if err != nil {
		return m, err
	}
	own := peakMemory("self")
	if err := f.stop(func(role string, peak int64, used time.Duration) {
		m.Processes = append(m.Processes, Process{role, peak})
		cpu += used
	}); err != nil {
		return m, err
	}
	m.Processes = append(m.Processes, Process{"broker and producer", own})
	m.CPU = float64(cpu.Microseconds()) / float64(w.Items)
	items, err := itemStages(ctx, f.cfg, batches)
	m.Stages = slices.Concat(items, groupStages(families))
	return m, err
}

// submit submits the manifest with a process of its own to a fleet without
// workers.
func (w *world) submit(ctx context.Context) (m Measured, err error) {
	f, err := w.startFleet(ctx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.stop(nil)) }()
	u := beginUsage()
	p, err := f.spawn(ctx, "submit", "submit", w.corpus.manifest, "--by", "bench", "--root", filepath.Join(f.dir, "out"))
	if err != nil {
		return m, err
	}
	if err := p.wait(); err != nil {
		return m, fmt.Errorf("submit: %w\n%s", err, p.said())
	}
	took, cpu := u.since()
	m.Rate = newRate(int64(w.Items), 0, took)
	m.Processes = []Process{{"submit", p.peakMemory()}}
	m.CPU = float64((cpu + p.cpu()).Microseconds()) / float64(w.Items)
	return m, nil
}

// idleFor is how long an idle fleet is watched, from settledAfter on: programs
// that have just started are not idle.
const idleFor, settledAfter = 20 * time.Second, 5 * time.Second

// idle measures a fleet that has nothing to do.
func (w *world) idle(ctx context.Context) (m Measured, err error) {
	f, err := w.startFleet(ctx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.stop(nil)) }()
	if err := f.startWorkers(ctx); err != nil {
		return m, err
	}
	if err := pause(ctx, settledAfter); err != nil {
		return m, err
	}
	u := beginUsage()
	before, err := f.cpuNow()
	if err != nil {
		return m, err
	}
	if err := pause(ctx, idleFor); err != nil {
		return m, err
	}
	took, cpu := u.since()
	after, err := f.cpuNow()
	if err != nil {
		return m, err
	}
	m.Seconds = took.Seconds()
	m.CPUShare = 100 * (cpu + after - before).Seconds() / took.Seconds()
	own := peakMemory("self")
	err = f.stop(func(role string, peak int64, _ time.Duration) { m.Processes = append(m.Processes, Process{role, peak}) })
	m.Processes = append(m.Processes, Process{"broker", own})
	return m, err
}

// pause waits, or gives the error of the context if that ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// divide divides the manifest into those of the batches.
func (w *world) divide(dir string) ([]string, error) {
	if w.Batches == 1 {
		return []string{w.corpus.manifest}, nil
	}
	text, err := os.ReadFile(w.corpus.manifest)
	if err != nil {
		return nil, err
	}
	manifests := make([]string, w.Batches)
	rest := string(text)
	for i := range manifests {
		var part string
		part, rest = cutLines(rest, w.Items*(i+1)/w.Batches-w.Items*i/w.Batches)
		manifests[i] = filepath.Join(dir, fmt.Sprintf("manifest-%d.jsonl", i))
		if err := os.WriteFile(manifests[i], []byte(part), 0o600); err != nil {
			return nil, err
		}
	}
	return manifests, nil
}

// cutLines cuts a text after n lines.
func cutLines(text string, n int) (before, after string) {
	at := 0
	for ; n > 0 && at < len(text); at++ {
		if text[at] == '\n' {
			n--
		}
	}
	return text[:at], text[at:]
}
