package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// job is what is asked of a peer: nothing, with arguments of the size of one of
// exhume's requests, about 200 bytes as JSON.
type job struct {
	Index     int    `json:"index"`
	Tombstone string `json:"tombstone"`
	Output    string `json:"output"`
	Actor     string `json:"actor"`
}

// Kind is River's name for such jobs, and asynq's type.
func (job) Kind() string { return "noop" }

// makeJobs makes n jobs with the indexes from 0.
func makeJobs(n int) []job {
	jobs := make([]job, n)
	for i := range jobs {
		jobs[i] = job{
			Index:     i,
			Tombstone: uuid.NewString(),
			Output:    fmt.Sprintf("restored/services/billing/internal/ledger/reconciliation/period-%03d/posting_%07d.go", i%1000, i),
			Actor:     "operations@example.org",
		}
	}
	return jobs
}

// queue is a peer's queue, empty and ready for use once.
type queue interface {
	// insert stores all jobs, as fast as the peer can, and returns when they
	// are as durable as its server makes them.
	insert(ctx context.Context, jobs []job) error
	// work starts workers that call done for each job they do.
	work(ctx context.Context, done func(index int)) error
	// settle waits, after the last job was done, until the server knows it.
	settle(ctx context.Context) error
	// completed is how many jobs the server says were done.
	completed(ctx context.Context) (int, error)
}

// figures are what one measurement gives, in jobs a second. A figure that was
// not measured is 0.
type figures struct {
	Insert   float64 `json:"insert_per_second,omitempty"`
	Work     float64 `json:"work_per_second,omitempty"`
	EndToEnd float64 `json:"end_to_end_per_second"`
}

// way is how a measurement orders inserting and working.
type way string

const (
	// insertThenWork starts the workers when all jobs are inserted.
	insertThenWork way = "insert, then work"
	// workMeanwhile starts the workers first.
	workMeanwhile way = "work while inserting"
)

// measure does jobs by an empty queue. Each must be done exactly once.
func measure(ctx context.Context, q queue, w way, jobs []job) (figures, error) {
	t := newTally(len(jobs))
	f, err := timed(ctx, q, w, jobs, t)
	if err != nil {
		return figures{}, err
	}
	if err := t.check(); err != nil {
		return figures{}, err
	}
	n, err := q.completed(ctx)
	if err == nil && n != len(jobs) {
		err = fmt.Errorf("the server knows %d of %d jobs as done", n, len(jobs))
	}
	return f, err
}

// timed is the part of measure that the clock sees.
func timed(ctx context.Context, q queue, w way, jobs []job, t *tally) (figures, error) {
	if w == workMeanwhile {
		if err := q.work(ctx, t.done); err != nil {
			return figures{}, err
		}
	}
	begun := time.Now()
	if err := q.insert(ctx, jobs); err != nil {
		return figures{}, err
	}
	inserted := time.Now()
	if w == insertThenWork {
		if err := q.work(ctx, t.done); err != nil {
			return figures{}, err
		}
	}
	select {
	case <-t.all:
	case <-ctx.Done():
		return figures{}, fmt.Errorf("%d of %d jobs are not done: %w", t.left.Load(), len(jobs), ctx.Err())
	}
	if err := q.settle(ctx); err != nil {
		return figures{}, err
	}
	ended := time.Now()
	rate := func(from, to time.Time) float64 { return float64(len(jobs)) / to.Sub(from).Seconds() }
	f := figures{EndToEnd: rate(begun, ended)}
	if w == insertThenWork { // in the other way each waits for the other
		f.Insert, f.Work = rate(begun, inserted), rate(inserted, ended)
	}
	return f, nil
}

// tally counts how often each job was done. Its methods may be called by many
// goroutines.
type tally struct {
	times []atomic.Int32
	left  atomic.Int64
	all   chan struct{} // closed when each was done
}

func newTally(n int) *tally {
	t := &tally{times: make([]atomic.Int32, n), all: make(chan struct{})}
	t.left.Store(int64(n))
	return t
}

// done counts one execution of a job.
func (t *tally) done(index int) {
	if t.times[index].Add(1) == 1 && t.left.Add(-1) == 0 {
		close(t.all)
	}
}

// check says which job was not done exactly once.
func (t *tally) check() error {
	for i := range t.times {
		if n := t.times[i].Load(); n != 1 {
			return fmt.Errorf("job %d was done %d times", i, n)
		}
	}
	return nil
}
