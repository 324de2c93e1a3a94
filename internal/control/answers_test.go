package control

import (
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// library is a ledger and a broker in memory.
type library struct {
	batches []schemas.Summary // newest first
	results []schemas.Result
	broken  error

	steering schemas.Steering
	workers  []schemas.WorkerStatus
	left     int64
	// counted are the results that are found when they are counted anew.
	counted func(schemas.Counts) schemas.Counts
	kept    int64
}

func (l *library) KeptTo(context.Context, string) (int64, error) { return l.kept, l.broken }

func (l *library) Batch(_ context.Context, ref string) (schemas.Summary, error) {
	for _, s := range l.batches {
		if s.ID == ref || ref == "latest" {
			return s, nil
		}
	}
	return schemas.Summary{}, fault.New(schemas.CodeBatchNotFound, "no batch %q", ref)
}

func (l *library) Batches(_ context.Context, limit int) ([]schemas.Summary, error) {
	if limit > 0 && limit < len(l.batches) {
		return l.batches[:limit], l.broken
	}
	return l.batches, l.broken
}

func (l *library) Codes(context.Context, string) (map[schemas.Code]int64, error) {
	return map[schemas.Code]int64{schemas.CodeTooLarge: 3}, l.broken
}

func (l *library) Results(_ context.Context, q schemas.ResultsQuery) iter.Seq2[schemas.Result, error] {
	return func(yield func(schemas.Result, error) bool) {
		for _, r := range l.results {
			if r.Batch == q.Batch && r.Index >= q.From && (len(q.Outcomes) == 0 || slices.Contains(q.Outcomes, r.Outcome)) && !yield(r, nil) {
				return
			}
		}
		if l.broken != nil {
			yield(schemas.Result{}, l.broken)
		}
	}
}

func (l *library) Whereabouts(_ context.Context, id string) (schemas.Whereabouts, error) {
	return schemas.Whereabouts{Waiting: 5, Published: int64(len(id))}, l.broken
}

func (l *library) Active(context.Context) (active []schemas.Summary, err error) {
	for _, s := range l.batches {
		if !s.State.Final() {
			active = append(active, s)
		}
	}
	return active, nil
}

func (l *library) Count(ctx context.Context, id string, f schemas.ResultFilter) (n int64, err error) {
	for _, err := range l.Results(ctx, schemas.ResultsQuery{Batch: id, ResultFilter: f}) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (l *library) Missing(_ context.Context, _ string, limit int) ([]int64, error) {
	return []int64{0, 1, 2, 3, 9}[:min(limit, 5)], l.broken
}

func (l *library) Events(context.Context, string, int) ([]schemas.BatchEvent, error) {
	return []schemas.BatchEvent{{No: 1}}, l.broken
}

func (l *library) Letters(_ context.Context, q schemas.LettersQuery) (schemas.LettersPage, error) {
	return schemas.LettersPage{Next: q.Batch}, l.broken
}

func (l *library) LetterGroups(_ context.Context, q schemas.LettersQuery) ([]schemas.LetterGroup, error) {
	return []schemas.LetterGroup{{Message: q.Batch}}, l.broken
}

func (l *library) Audit(_ context.Context, id string) (kept, counted schemas.Counts, err error) {
	s, err := l.Batch(context.Background(), id)
	return s.Counts, l.counted(s.Counts), err
}

func (l *library) Steering(context.Context) (schemas.Steering, error) { return l.steering, nil }

func (l *library) RetriesOf(context.Context, string, []int64) (map[int64]schemas.Retry, error) {
	return map[int64]schemas.Retry{
		1: {Attempts: 2, NextTry: time.Now().Add(time.Hour), LastError: "locked"}, 2: {Attempts: 1, NextTry: time.Now().Add(-time.Hour), LastError: "busy"},
	}, l.broken
}

func (l *library) Workers(context.Context, schemas.WorkerQuestion, time.Duration) ([]schemas.WorkerStatus, error) {
	return l.workers, l.broken
}

func (l *library) Left(context.Context, string) (int64, error) { return l.left, nil }

func newLibrary(results int64) *library {
	l := &library{counted: func(c schemas.Counts) schemas.Counts { return c }, batches: []schemas.Summary{
		summary("c", schemas.StateRunning, 10, 4), summary("b", schemas.StatePartial, 5, 4), summary("a", schemas.StateOpen, 0, 0),
	}}
	for i := range results {
		r := schemas.Result{Request: schemas.Request{Batch: "c", Index: 2 * i}, Outcome: schemas.OutcomeRestored}
		if i%2 == 1 {
			r.Outcome = schemas.OutcomeFailed
		}
		l.results = append(l.results, r)
	}
	return l
}

func TestGet(t *testing.T) {
	t.Parallel()
	l := newLibrary(0)
	got, err := NewAnswers(l, l, nil).Get(t.Context(), "latest")
	want := schemas.BatchReport{Summary: l.batches[0], OpenItems: 6, FailedByCode: map[schemas.Code]int64{schemas.CodeTooLarge: 3}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	l := newLibrary(0)
	for _, c := range []struct {
		q    schemas.BatchList
		want []string
	}{
		{schemas.BatchList{}, []string{"c", "b", "a"}},
		{schemas.BatchList{Limit: 2}, []string{"c", "b"}},
		{schemas.BatchList{Limit: 1, Skip: 1}, []string{"b"}},
		{schemas.BatchList{Skip: 2}, []string{"a"}},
		{schemas.BatchList{Limit: 5, Skip: 9}, []string{}},
	} {
		got, err := NewAnswers(l, l, nil).List(t.Context(), c.q)
		ids := []string{}
		for _, s := range got.Batches {
			ids = append(ids, s.ID)
		}
		if diff := cmp.Diff(c.want, ids); diff != "" || err != nil {
			t.Errorf("%+v: %v\n%s", c.q, err, diff)
		}
	}
}

func TestResultsInPages(t *testing.T) {
	t.Parallel()
	l := newLibrary(5)
	for _, c := range []struct {
		name string
		q    schemas.ResultsQuery
		want []int64
		next int64
	}{
		{"all", schemas.ResultsQuery{}, []int64{0, 2, 4, 6, 8}, 0},
		{"first page", schemas.ResultsQuery{Limit: 2}, []int64{0, 2}, 4},
		{"next page", schemas.ResultsQuery{Limit: 2, From: 4}, []int64{4, 6}, 8},
		{"last page", schemas.ResultsQuery{Limit: 2, From: 8}, []int64{8}, 0},
		{"just all", schemas.ResultsQuery{Limit: 5}, []int64{0, 2, 4, 6, 8}, 0},
		{"between two", schemas.ResultsQuery{From: 5}, []int64{6, 8}, 0},
		{"some", schemas.ResultsQuery{Limit: 1, ResultFilter: schemas.ResultFilter{Outcomes: []schemas.Outcome{schemas.OutcomeFailed}}}, []int64{2}, 6},
		{"none", schemas.ResultsQuery{From: 9}, []int64{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.q.Batch = "latest"
			p, err := NewAnswers(l, l, nil).Results(t.Context(), c.q)
			got := []int64{}
			for _, r := range p.Results {
				got = append(got, r.Index)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil || p.Next != c.next || p.Batch != "c" {
				t.Errorf("batch %s, next %d, want %d, %v\n%s", p.Batch, p.Next, c.next, err, diff)
			}
		})
	}
}

func TestResultsHaveALimit(t *testing.T) {
	t.Parallel()
	l := newLibrary(schemas.MaxResultsPage + 1)
	p, err := NewAnswers(l, l, nil).Results(t.Context(), schemas.ResultsQuery{Batch: "c"})
	if err != nil || len(p.Results) != schemas.MaxResultsPage || p.Next != 2*schemas.MaxResultsPage {
		t.Errorf("%d results, next %d, %v", len(p.Results), p.Next, err)
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	l := newLibrary(0)
	for _, want := range []schemas.Whereabouts{
		{Batch: "c", State: schemas.StateRunning, Total: 10, Open: 6, Waiting: 5, Published: 10, Active: map[schemas.Priority]int64{schemas.PriorityNormal: 1}},
		{Batch: "b", State: schemas.StatePartial, Total: 5, Open: 1}, // ended: the broker knows nothing any more
		{Batch: "a", State: schemas.StateOpen, Waiting: 5, Published: 1, Active: map[schemas.Priority]int64{schemas.PriorityNormal: 1}},
	} {
		got, err := NewAnswers(l, l, nil).Why(t.Context(), schemas.WhyQuery{BatchRef: schemas.BatchRef{Ref: want.Batch}})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	}
}

func TestAnswersThatAreErrors(t *testing.T) {
	t.Parallel()
	l := newLibrary(1)
	a := NewAnswers(l, l, nil)
	l.broken = errStep
	for name, c := range map[string]struct {
		ask  func(ctx context.Context) error
		want schemas.Code
	}{
		"get": {func(ctx context.Context) error { _, err := a.Get(ctx, "x"); return err }, schemas.CodeBatchNotFound},
		"results": {func(ctx context.Context) error {
			_, err := a.Results(ctx, schemas.ResultsQuery{Batch: "x"})
			return err
		}, schemas.CodeBatchNotFound},
		"why": {func(ctx context.Context) error {
			_, err := a.Why(ctx, schemas.WhyQuery{BatchRef: schemas.BatchRef{Ref: "x"}})
			return err
		}, schemas.CodeBatchNotFound},
		"limit": {func(ctx context.Context) error {
			_, err := a.Results(ctx, schemas.ResultsQuery{Batch: "c", Limit: schemas.MaxResultsPage + 1})
			return err
		}, schemas.CodeBadRequest},
		"from": {func(ctx context.Context) error {
			_, err := a.Results(ctx, schemas.ResultsQuery{Batch: "c", From: -1})
			return err
		}, schemas.CodeBadRequest},
		"skip":         {func(ctx context.Context) error { _, err := a.List(ctx, schemas.BatchList{Skip: -1}); return err }, schemas.CodeBadRequest},
		"broken codes": {func(ctx context.Context) error { _, err := a.Get(ctx, "c"); return err }, ""},
		"broken list":  {func(ctx context.Context) error { _, err := a.List(ctx, schemas.BatchList{}); return err }, ""},
		"broken results": {func(ctx context.Context) error {
			_, err := a.Results(ctx, schemas.ResultsQuery{Batch: "c"})
			return err
		}, ""},
		"broken broker": {func(ctx context.Context) error {
			_, err := a.Why(ctx, schemas.WhyQuery{BatchRef: schemas.BatchRef{Ref: "c"}})
			return err
		}, ""},
	} {
		err := c.ask(t.Context())
		if c.want == "" && !errors.Is(err, errStep) || c.want != "" && !fault.Is(err, c.want) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func TestOpenRefusesNamesThatAreNone(t *testing.T) {
	t.Parallel()
	w := newWorld()
	c := mustControl(t, w)
	for _, id := range []string{"", "a.b", "latest", "single"} {
		if _, err := c.Open(t.Context(), schemas.Batch{ID: id}); !fault.Is(err, schemas.CodeBadRequest) || len(w.did) > 0 {
			t.Errorf("%q: %v, %v", id, err, w.did)
		}
	}
}

// The world answers what Control asks the ledger.
func (w *world) Batch(_ context.Context, ref string) (schemas.Summary, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.batches[ref]
	if !ok {
		return s, fault.New(schemas.CodeBatchNotFound, "no batch %q", ref)
	}
	return s, nil
}

func (w *world) library() *library {
	return &library{results: w.results, counted: func(c schemas.Counts) schemas.Counts { return c }}
}

func (w *world) Batches(context.Context, int) ([]schemas.Summary, error) { return nil, nil }

func (w *world) Codes(context.Context, string) (map[schemas.Code]int64, error) { return nil, nil }

func (w *world) Results(ctx context.Context, q schemas.ResultsQuery) iter.Seq2[schemas.Result, error] {
	return w.library().Results(ctx, q)
}

func (w *world) Count(ctx context.Context, id string, f schemas.ResultFilter) (int64, error) {
	return w.library().Count(ctx, id, f)
}

func (w *world) Missing(context.Context, string, int) ([]int64, error) { return nil, nil }

func (w *world) Events(context.Context, string, int) ([]schemas.BatchEvent, error) {
	return w.events, nil
}

func (w *world) Letters(context.Context, schemas.LettersQuery) (schemas.LettersPage, error) {
	return schemas.LettersPage{}, nil
}

func (w *world) LetterGroups(context.Context, schemas.LettersQuery) ([]schemas.LetterGroup, error) {
	return nil, nil
}

func (w *world) Audit(context.Context, string) (kept, counted schemas.Counts, err error) {
	return kept, counted, nil
}
