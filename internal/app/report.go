package app

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/exhume/exhume/schemas"
)

const (
	// maxGroups bounds the groups of failures, and the workers, that a report
	// tells apart; othersName is what the rest goes by.
	maxGroups  = 1000
	othersName = "…"
	// groupSamples is how many items stand for a group.
	groupSamples = 3
	// slowestItems is how many of the slowest items a report names.
	slowestItems = 5
)

// Report tells all about one batch: report.json.
type Report struct {
	schemas.BatchReport
	// Counted are the counts of the results as they were read: those of the batch,
	// once it has ended.
	Counted schemas.Counts `json:"counted"`
	// SubmitSeconds are from the batch's begin to its sealing, Seconds to its end.
	SubmitSeconds float64 `json:"submit_seconds,omitempty"`
	Seconds       float64 `json:"seconds,omitempty"`
	// ItemsPerSecond and BytesPerSecond are results and restored bytes by Seconds.
	ItemsPerSecond float64              `json:"items_per_second,omitempty"`
	BytesPerSecond float64              `json:"bytes_per_second,omitempty"`
	Events         []schemas.BatchEvent `json:"events"`
	// Failures are the failed items in groups of alike ones, the largest first.
	// What is beyond the first thousand groups is in one of each code.
	Failures []schemas.LetterGroup `json:"failures"`
	// Slowest are the items that took longest from delivery to result.
	Slowest []schemas.Result `json:"slowest"`
	Workers []WorkerShare    `json:"workers"`
}

// WorkerShare is what one worker did of a batch.
type WorkerShare struct {
	Worker string `json:"worker"`
	schemas.Counts
}

// MakeReport reports on a batch, named as in BatchRef.
func MakeReport(ctx context.Context, from Batches, ref string) (Report, error) {
	b, events, err := askBatch(ctx, from, ref)
	if err != nil {
		return Report{}, err
	}
	return newReport(ctx, b, events, from.Results(ctx, b.ID, schemas.ResultFilter{}), func(*schemas.Result) error { return nil })
}

// askBatch asks for what a report says besides the results.
func askBatch(ctx context.Context, from Batches, ref string) (b schemas.BatchReport, events []schemas.BatchEvent, err error) {
	if b, err = from.Batch(ctx, ref); err != nil {
		return b, nil, err
	}
	e, err := from.Events(ctx, b.ID)
	return b, e.Events, err
}

// newReport makes a report from one reading of a batch's results, few of which it
// keeps, and shows each of them to someone else, too.
func newReport(
	ctx context.Context, b schemas.BatchReport, events []schemas.BatchEvent, results iter.Seq2[schemas.Result, error],
	each func(*schemas.Result) error,
) (Report, error) {
	t := tally{failures: map[alike]*schemas.LetterGroup{}, workers: map[string]*schemas.Counts{}}
	for r, err := range results {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = each(&r)
		}
		if err != nil {
			return Report{}, err
		}
		t.add(&r)
	}
	return t.report(b, events), nil
}

// tally is what a report keeps of the results.
type tally struct {
	counts   schemas.Counts
	failures map[alike]*schemas.LetterGroup
	slowest  []schemas.Result // the slowest first
	workers  map[string]*schemas.Counts
}

// alike is what failures of one group have in common.
type alike struct {
	code    schemas.Code
	message string
}

func (t *tally) add(r *schemas.Result) {
	t.counts.Add(r.Outcome, r.Size)
	t.addWorker(r)
	if r.Outcome == schemas.OutcomeFailed {
		t.addFailure(r)
	}
	if n := len(t.slowest); n < slowestItems || r.Durations.Total > t.slowest[n-1].Durations.Total {
		i, _ := slices.BinarySearchFunc(t.slowest, r.Durations.Total, func(s schemas.Result, total float64) int {
			if s.Durations.Total < total {
				return 1
			}
			return -1 // of equally slow ones the first stays in front
		})
		t.slowest = slices.Insert(t.slowest, i, *r)
		t.slowest = t.slowest[:min(len(t.slowest), slowestItems)]
	}
}

func (t *tally) addWorker(r *schemas.Result) {
	if r.Worker == "" {
		return // nobody had it in hand
	}
	c := t.workers[r.Worker]
	if c == nil {
		name := r.Worker
		if len(t.workers) >= maxGroups {
			name = othersName
		}
		if c = t.workers[name]; c == nil {
			c = &schemas.Counts{}
			t.workers[name] = c
		}
	}
	c.Add(r.Outcome, r.Size)
}

func (t *tally) addFailure(r *schemas.Result) {
	key := alike{r.Code, schemas.Normalise(r.Detail)}
	g := t.failures[key]
	if g == nil && len(t.failures) >= maxGroups {
		key.message = othersName
		g = t.failures[key]
	}
	if g == nil {
		g = &schemas.LetterGroup{
			Code: key.code, Message: key.message, Batches: 1, First: r.FinishedAt, Last: r.FinishedAt, Remedy: key.code.Info().Remedy,
		}
		t.failures[key] = g
	}
	g.Count++
	if r.FinishedAt.Before(g.First) {
		g.First = r.FinishedAt
	}
	if r.FinishedAt.After(g.Last) {
		g.Last = r.FinishedAt
	}
	if len(g.Samples) < groupSamples {
		g.Samples = append(g.Samples, *r)
	}
}

func (t *tally) report(b schemas.BatchReport, events []schemas.BatchEvent) Report {
	r := Report{
		BatchReport: b, Counted: t.counts, Events: events, Failures: []schemas.LetterGroup{}, Slowest: t.slowest, Workers: []WorkerShare{},
	}
	if r.Events == nil {
		r.Events = []schemas.BatchEvent{}
	}
	if r.Slowest == nil {
		r.Slowest = []schemas.Result{}
	}
	if !b.SealedAt.IsZero() {
		r.SubmitSeconds = b.SealedAt.Sub(b.CreatedAt).Seconds()
	}
	if r.Seconds = b.EndedAt.Sub(b.CreatedAt).Seconds(); b.EndedAt.IsZero() {
		r.Seconds = 0
	}
	if r.Seconds > 0 {
		r.ItemsPerSecond = float64(t.counts.Done()) / r.Seconds
		r.BytesPerSecond = float64(t.counts.Bytes) / r.Seconds
	}
	for _, g := range t.failures {
		r.Failures = append(r.Failures, *g)
	}
	slices.SortFunc(r.Failures, func(a, b schemas.LetterGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	for _, name := range slices.Sorted(maps.Keys(t.workers)) {
		r.Workers = append(r.Workers, WorkerShare{name, *t.workers[name]})
	}
	return r
}
