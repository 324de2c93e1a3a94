package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// RebuildOptions say how ledger and evidence are rebuilt.
type RebuildOptions struct {
	// Actor and Reason are who wants it, and why.
	Actor, Reason string
	// DryRun only finds out what would be added.
	DryRun bool
	// Beside are the evidence directories of other collectors of the same ledger, and
	// logs that were moved away: lines that stand there are not missing.
	Beside []string
}

// Rebuilt is what was rebuilt, or would be.
type Rebuilt struct {
	DryRun   bool   `json:"dry_run"`
	Ledger   string `json:"ledger"`
	Evidence string `json:"evidence"`
	collector.Rebuilt
}

// InUseError says that somebody works on what is to be rebuilt.
type InUseError struct{ What, By string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is in use by %s: stop it first", e.What, e.By)
}

// RebuildLedger brings back what was lost of ledger and evidence, from what is left
// of them and from the results that the broker has kept: that of the fleet which is
// configured, or the one in the state directory. Where a collector works, or somebody
// else rebuilds, the error is an *InUseError, where evidence does not verify an
// *evidence.BrokenError. One that was broken off has to be repeated.
func RebuildLedger(ctx context.Context, cfg *Config, o RebuildOptions, log zerolog.Logger) (out Rebuilt, err error) {
	r := &rebuild{process: newProcess(cfg, log), o: o, path: EvidencePath(cfg)}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.claim(ctx); err != nil {
		return out, err
	}
	l, err := r.openLedger(ctx)
	switch {
	case errors.Is(err, ledger.ErrInUse):
		return out, &InUseError{"the fleet's ledger", "a collector, or somebody else who rebuilds it"}
	case ledger.Damaged(err):
		return out, fmt.Errorf("%w (move the file away, and run this again)", err)
	case err != nil:
		return out, err
	}
	r.others = append(r.others, l.Close)
	if err := r.verify(ctx, l); err != nil {
		return out, err
	}
	job := collector.Rebuild{
		Ledger: rebuildLedger{l}, Options: evidenceOptions(cfg), Results: func(func(collector.Stored, error) bool) {},
		Logs: []iter.Seq2[schemas.Record, error]{evidence.Records(ctx, r.path)}, Actor: o.Actor, Reason: o.Reason,
	}
	for _, beside := range o.Beside {
		job.Logs = append(job.Logs, evidence.Records(ctx, logAt(beside)))
	}
	if err := r.askBroker(ctx, &job); err != nil {
		return out, err
	}
	if !o.DryRun {
		lines, err := evidence.Open(cfg.Exhume.EvidenceDir)
		if err != nil {
			return out, err
		}
		r.others = append(r.others, lines.Close)
		job.Evidence = lines
	}
	unnamed, err := r.unnamed(ctx, l)
	if err != nil {
		return out, err
	}
	done, err := job.Run(ctx)
	if err == nil && !o.DryRun {
		err = l.ForgetWriters(ctx, r.beside())
	}
	if unnamed != "" && done.Lines > 0 {
		done.Problems = append(done.Problems, unnamed)
	}
	return Rebuilt{DryRun: o.DryRun, Ledger: l.Path(), Evidence: r.path, Rebuilt: done}, err
}

// rebuild is what is open for one rebuilding.
type rebuild struct {
	*process
	o RebuildOptions
	// path is the evidence log's file, writer what the ledger knows it by.
	path, writer string
	// free gives the place free.
	free func() error
}

func (r *rebuild) close() error {
	err := r.process.close()
	if r.free != nil {
		err = errors.Join(err, r.free())
	}
	return err
}

// claim takes the place of the collector whose ledger and evidence it is: the locks
// are those that the roles take.
func (r *rebuild) claim(ctx context.Context) error {
	if remote(r.cfg) {
		return r.claimFleet(ctx)
	}
	dir := r.cfg.Exhume.StateDir
	if r.leaveAlone(dir) {
		return nil
	}
	waiting, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	lock, err := lockState(waiting, dir, func(owner string) { giveUp(&InUseError{"state directory " + dir, owner}) })
	if err != nil {
		if used, ok := errors.AsType[*InUseError](context.Cause(waiting)); ok {
			return used
		}
		return err
	}
	r.free = lock.unlock
	return forgetLocalFleet(r.cfg)
}

func (r *rebuild) claimFleet(ctx context.Context) error {
	if err := r.connect(ctx, "rebuild"); err != nil {
		return err
	}
	_, err := r.broker.API().List(ctx, 1)
	switch {
	case err == nil:
		return &InUseError{"the fleet's ledger", "a collector, which answers"}
	case !fault.Is(err, schemas.CodeNoCollector):
		return fmt.Errorf("whether a collector works is not known: %w", err)
	}
	dir := r.cfg.Exhume.EvidenceDir
	if r.leaveAlone(dir) {
		return nil
	}
	writer, err := claimEvidence(dir)
	if errors.Is(err, errClaimed) {
		return &InUseError{"evidence directory " + dir, "a collector"}
	}
	if err != nil {
		return err
	}
	r.writer = writer.name
	r.free = writer.release
	return nil
}

// leaveAlone says whether a directory is not to be made.
func (r *rebuild) leaveAlone(dir string) bool {
	_, err := os.Stat(dir)
	return r.o.DryRun && errors.Is(err, fs.ErrNotExist)
}

func (r *rebuild) openLedger(ctx context.Context) (*ledger.Ledger, error) {
	o := ledger.Options{Writer: r.writer, Migrate: true, Alone: true}
	if r.o.DryRun {
		return ledger.OpenTrial(ctx, LedgerURL(r.cfg), o)
	}
	return ledger.OpenWith(ctx, LedgerURL(r.cfg), o)
}

// verify makes sure that the evidence which is there is what was written: what is
// added would otherwise vouch for what was changed. That the end is missing is what
// rebuilding is for.
func (r *rebuild) verify(ctx context.Context, l *ledger.Ledger) error {
	var anchors []schemas.EvidencePosition
	pos, known, err := l.Position(ctx)
	if err != nil {
		return err
	}
	info, err := os.Stat(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("evidence log: %w", err)
	default:
		// One that was broken off has added lines that the ledger does not know.
		since, err := collector.Unfinished(ctx, l)
		if err != nil {
			return err
		}
		if known && since == "" && pos.Offset <= info.Size() {
			anchors = append(anchors, pos)
		}
		if _, err := evidence.Verify(r.path, anchors...); err != nil {
			return fmt.Errorf("%w; keep it, but move it away, and run this again: what the ledger knows is written anew", err)
		}
	}
	for _, beside := range r.o.Beside {
		if _, err := evidence.Verify(logAt(beside)); err != nil {
			return err
		}
	}
	return nil
}

// askBroker gives the job what the broker has, if it has anything.
func (r *rebuild) askBroker(ctx context.Context, job *collector.Rebuild) (err error) {
	if !remote(r.cfg) {
		dir := filepath.Join(r.cfg.Exhume.StateDir, "broker")
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if r.broker, err = broker.Embed(dir); err != nil {
			return err
		}
		r.others = append(r.others, r.broker.Close)
	}
	if job.Shown, job.Known, err = r.broker.Shown(ctx); err != nil {
		return err
	}
	if job.Steering, err = r.broker.Steering(ctx); err != nil {
		return err
	}
	job.Results = func(yield func(collector.Stored, error) bool) {
		for m, err := range r.broker.ReplayResults(ctx) {
			if !yield(collector.Stored{At: m.At, Data: m.Data}, err) {
				return
			}
		}
	}
	return nil
}

// unnamed says that other collectors may have logs that were not named, empty when
// there are none.
func (r *rebuild) unnamed(ctx context.Context, l *ledger.Ledger) (string, error) {
	n, err := l.Writers(ctx)
	if err != nil {
		return "", err
	}
	if n == 0 { // a new ledger
		if remote(r.cfg) && len(r.o.Beside) == 0 {
			return "whether other collectors recorded here is not known: lines that stand in their logs were missed if their directories were not named with --beside", nil
		}
		return "", nil
	}
	for _, writer := range append(r.beside(), r.writer) {
		_, known, err := l.PositionOf(ctx, writer)
		if err != nil {
			return "", err
		}
		if known {
			n--
		}
	}
	if n <= 0 {
		return "", nil
	}
	return fmt.Sprintf("the ledger knew of %d evidence logs that are lost or were not named with --beside: lines that stand in those were missed", n), nil
}

// beside are the names by which the ledger knows the logs in directories that were
// named.
func (r *rebuild) beside() (writers []string) {
	for _, dir := range r.o.Beside {
		if name := writerOf(dir); name != "" && name != r.writer && !slices.Contains(writers, name) {
			writers = append(writers, name)
		}
	}
	return writers
}

// rebuildLedger is the ledger as its rebuilding sees it.
type rebuildLedger struct{ *ledger.Ledger }

func (l rebuildLedger) Record(ctx context.Context, results []schemas.Result, failures []schemas.Failure) (collector.Added, error) {
	rec, err := l.Ledger.Record(ctx, results, failures, nil)
	return collector.Added{Results: rec.Fresh, Attempts: rec.FreshFailures, Strays: len(rec.Strays) + len(rec.StrayFailures)}, err
}

func (l rebuildLedger) Results(ctx context.Context, id string) iter.Seq2[schemas.Result, error] {
	return l.Ledger.Results(ctx, id, ledger.Filter{})
}
