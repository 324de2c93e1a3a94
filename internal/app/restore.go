package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// RestoreOptions say what is restored, and where to.
type RestoreOptions struct {
	Tombstone, Output, Actor string
	// Root confines the output; empty means the output's own directory.
	Root string
}

// Restore restores one item straight from the archive, without a queue, with
// the same checks and the same evidence as in a batch. A result that failed is
// no error; the error is about everything else: the archive cannot be opened,
// or what was done cannot be recorded.
func Restore(ctx context.Context, cfg *Config, o RestoreOptions) (r schemas.Result, err error) {
	root, output, err := splitOutput(o)
	if err != nil {
		return r, err
	}
	from, err := openSource(ctx, cfg)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	log, err := evidence.Open(cfg.Exhume.EvidenceDir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	targets := newTargets(cfg)
	defer func() { err = errors.Join(err, targets.close()) }()

	restorer := restore.New(from, archive.Decode, targets.group, restoreConfig(cfg, nil))
	settings := schemas.Settings{Root: root, Overwrite: cfg.Exhume.Overwrite, Mode: cfg.Exhume.Mode.Bits()}
	request := schemas.Request{Tombstone: o.Tombstone, Output: output, Actor: o.Actor, Published: time.Now()}
	if r, err = attempt(ctx, restorer, retryPolicy(cfg), settings, request); err != nil {
		return r, err
	}
	if r.Outcome == schemas.OutcomeRestored {
		if err := noteOne(ctx, cfg, r); err != nil {
			return r, fmt.Errorf("%s is restored, but that could not be noted in the archive: %w (--archive-events off leaves the note out)", r.Target, err)
		}
	}
	if _, err := log.Append(ctx, []schemas.Record{collector.ItemRecord(evidenceOptions(cfg), &r)}); err != nil {
		return r, fmt.Errorf("%s: the outcome is %s, but evidence could not be written: %w", r.Target, r.Outcome, err)
	}
	return r, nil
}

// attempt tries to restore one item, as often as the policy says.
func attempt(ctx context.Context, r *restore.Restorer, p worker.RetryPolicy, s schemas.Settings, q schemas.Request) (schemas.Result, error) {
	for n := 1; ; n++ {
		start := time.Now()
		done, err := r.Restore(ctx, s, []schemas.Request{q})
		if err != nil {
			if ctx.Err() != nil || fault.CodeOf(err).Class() == schemas.ClassBackendDown {
				return schemas.Result{}, err
			}
			done = []schemas.Result{{Request: q, Outcome: schemas.OutcomeFailed, Code: fault.CodeOf(err), Detail: err.Error()}}
		}
		result := done[0]
		result.Attempts, result.Worker, result.FinishedAt = n, hostWorkerName(), time.Now().UTC()
		result.Durations.Total = float64(time.Since(start).Microseconds()) / 1000
		v := worker.Decide(p, result.Code, n)
		if v.Action != worker.TryAgain {
			return result, nil
		}
		select {
		case <-ctx.Done():
			return result, ctx.Err()
		case <-time.After(v.Delay):
		}
	}
}

// noteOne notes a restoration in the archive.
func noteOne(ctx context.Context, cfg *Config, r schemas.Result) error {
	if !cfg.Exhume.ArchiveEvents {
		return nil
	}
	w, err := archive.OpenWriter(ctx, cfg.Backend.URL)
	if err != nil {
		return err
	}
	err = w.Restored(ctx, []archive.RestoreEvent{{
		ID: uuid.NewString(), Item: r.Item, Actor: r.Actor, At: r.FinishedAt, Context: `{"tool":"exhume"}`,
	}})
	return errors.Join(err, w.Close())
}

// splitOutput gives the root and the output below it.
func splitOutput(o RestoreOptions) (root, output string, err error) {
	if strings.HasSuffix(o.Output, "/") || o.Output == "" {
		return "", "", fault.New(schemas.CodePathRefused, "output %q: want a file's name", o.Output)
	}
	path, err := filepath.Abs(o.Output)
	if err != nil {
		return "", "", err
	}
	if o.Root == "" {
		return filepath.Dir(path), filepath.Base(path), nil
	}
	if root, err = filepath.Abs(o.Root); err != nil {
		return "", "", err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(rel) || rel == "." {
		return "", "", fault.New(schemas.CodePathRefused, "output %q lies outside the root %s", o.Output, root)
	}
	return root, filepath.ToSlash(rel), nil
}
