package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/schemas"
)

const (
	// maxPendingReports bounds the reports that wait to be written. Beyond it the
	// ledger is asked later which batches have none.
	maxPendingReports = 1000
	// reportsSince is how long ago a batch that has no report may have ended for
	// one to be written, and reportsLooked how many of the newest batches are
	// looked at.
	reportsSince, reportsLooked = 24 * time.Hour, 10_000
	// leftoverAge is the age of unfinished reports that nobody will finish.
	leftoverAge = 10 * time.Minute
)

// reports writes the reports on batches that end, beside the collector and never
// in its way. A nil one writes none. Its methods are safe for concurrent use.
type reports struct {
	dir  string
	from Batches
	log  zerolog.Logger
	done chan struct{}

	mu      sync.Mutex
	changed *sync.Cond
	pending []string // ids of batches that have ended, each once
	missed  bool     // some may have ended that are not pending
	closed  bool
}

// newReports begins to write reports below dir, first on the batches that have
// ended since yesterday and have none. From answers until Close has returned.
func newReports(ctx context.Context, dir string, from Batches, log zerolog.Logger) *reports {
	r := &reports{dir: dir, from: from, log: log, done: make(chan struct{}), missed: true}
	r.changed = sync.NewCond(&r.mu)
	go r.run(context.WithoutCancel(ctx))
	return r
}

// Changed is told of each batch that changes. It returns at once.
func (r *reports) Changed(s schemas.Summary) {
	if r == nil || !s.State.Final() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.pending {
		if id == s.ID {
			return
		}
	}
	if len(r.pending) < maxPendingReports {
		r.pending = append(r.pending, s.ID)
	} else {
		r.missed = true
	}
	r.changed.Signal()
}

// Close returns when the reports on all batches that have ended are written.
func (r *reports) Close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.closed = true
	r.changed.Signal()
	r.mu.Unlock()
	<-r.done
}

// run writes reports until there are none to write any more.
func (r *reports) run(ctx context.Context) {
	defer close(r.done)
	r.sweep()
	for {
		pending, missed := r.next()
		for _, id := range pending {
			r.write(ctx, id)
		}
		if missed {
			r.catchUp(ctx)
		}
		if len(pending) == 0 && !missed {
			return
		}
	}
}

// next waits for something to do; nothing is the end.
func (r *reports) next() (pending []string, missed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.pending) == 0 && !r.missed && !r.closed {
		r.changed.Wait()
	}
	pending, missed = r.pending, r.missed
	r.pending, r.missed = nil, false
	return pending, missed
}

// catchUp writes the reports on batches that have ended lately and have none.
func (r *reports) catchUp(ctx context.Context) {
	list, err := r.from.Batches(ctx, reportsLooked)
	if err != nil {
		r.log.Error().Err(err).Msg("cannot look for batches without a report; the next start does")
		return
	}
	for _, s := range list {
		if s.State.Final() && time.Since(s.EndedAt) < reportsSince && !r.has(s) {
			r.write(ctx, s.ID)
		}
	}
}

// has says whether the report on a batch is there, and not that of an earlier
// batch of the same name.
func (r *reports) has(s schemas.Summary) bool {
	info, err := os.Stat(filepath.Join(r.dir, s.ID, reportFile))
	return err == nil && !info.ModTime().Before(s.EndedAt)
}

func (r *reports) write(ctx context.Context, id string) {
	path, b, err := SaveReport(ctx, r.from, id, r.dir)
	if err != nil {
		r.log.Error().Err(err).Str("batch", id).Msg("cannot write the report on a batch; the next start tries again")
		return
	}
	r.log.Debug().Str("batch", b.ID).Str("state", string(b.State)).Str("report", path).Msg("report written")
}

// sweep removes what processes that died have left behind.
func (r *reports) sweep() {
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn().Err(err).Msg("cannot read the directory of reports")
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), reportTemp) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > leftoverAge {
			_ = os.RemoveAll(filepath.Join(r.dir, e.Name())) // the next start tries again
		}
	}
}
