package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

func collect(t testing.TB, r *Reader, id string, f Filter) []schemas.Result {
	t.Helper()
	var found []schemas.Result
	for res, err := range r.Results(context.Background(), id, f) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, res)
	}
	return found
}

func TestAResultComesBackAsItWasRecorded(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		full := sampleResult("b1", 3)
		full.Labels = map[string]string{"ticket": "T-1", "ünï\"": "\x00日本"}
		full.Outcome, full.Code, full.Detail, full.Attempts = schemas.OutcomeFailed, schemas.CodeDecodeFailed, "it's \"bad\"\n", 5
		full.Size = math.MaxInt64
		full.History = []schemas.Attempt{{At: at(1), Worker: "w1", Code: schemas.CodeArchiveBusy, Detail: "busy \"\x00"}, {At: at(2), Worker: "w2"}}
		odd := schemas.Result{Request: schemas.Request{Batch: "b1", Index: math.MaxInt64, Tombstone: "a\xffb\x00c"}, Outcome: "odd"}
		bare := schemas.Result{Request: schemas.Request{Batch: "b1", Index: 4}, Outcome: schemas.OutcomeSkipped}
		want := []schemas.Result{full, bare, odd}
		mustRecord(t, l, &notebook{}, []schemas.Result{odd, bare, full})
		if diff := cmp.Diff(want, collect(t, l.Reader, "b1", Filter{})); diff != "" {
			t.Error(diff)
		}
	})
}

// mixed has 1,500 results of b1, every third failed by one of two codes, every
// fifth of the rest unchanged, recorded in two parts, the later indexes first.
func mixed(t testing.TB, k kind) (*Ledger, []schemas.Result) {
	t.Helper()
	l := k.open(t)
	mustCreate(t, l, "b0", "b1", "b2")
	results := sampleResults("b1", 0, 1500)
	for i := range results {
		switch {
		case i%6 == 0:
			results[i].Outcome, results[i].Code = schemas.OutcomeFailed, schemas.CodeDecodeFailed
		case i%6 == 3:
			results[i].Outcome, results[i].Code = schemas.OutcomeFailed, schemas.CodePathRefused
			results[i].Detail = fmt.Sprintf("open /data/%d: permission denied", i)
		case i == 1000:
			results[i].Outcome, results[i].Code = schemas.OutcomeSkipped, schemas.CodePathRefused
		case i%5 == 0:
			results[i].Outcome = schemas.OutcomeUnchanged
		}
	}
	var n notebook
	mustRecord(t, l, &n, sampleResults("b0", 0, 10))
	mustRecord(t, l, &n, results[700:])
	mustRecord(t, l, &n, sampleResults("b2", 0, 10))
	mustRecord(t, l, &n, results[:700])
	return l, results
}

func TestResultsAreFilteredAndInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l, results := mixed(t, k)
		every := func(f schemas.ResultFilter) Filter { return Filter{ResultFilter: f} }
		outcomes := func(o ...schemas.Outcome) schemas.ResultFilter { return schemas.ResultFilter{Outcomes: o} }
		refused := schemas.ResultFilter{Code: schemas.CodePathRefused}
		failedRefused := schemas.ResultFilter{Outcomes: only(schemas.OutcomeFailed), Code: schemas.CodePathRefused}
		for _, f := range []Filter{
			{},
			{From: 1200},
			{From: 1500},
			every(outcomes(schemas.OutcomeRestored)),
			{outcomes(schemas.OutcomeUnchanged), 7},
			every(outcomes(schemas.OutcomeFailed)),
			every(outcomes(schemas.OutcomeSkipped)),
			every(outcomes(schemas.OutcomeCancelled)),
			every(outcomes(schemas.OutcomeFailed, schemas.OutcomeSkipped)),
			every(outcomes(schemas.OutcomeFailed, schemas.OutcomeUnchanged)),
			every(refused),
			{failedRefused, 100},
			every(schemas.ResultFilter{Outcomes: only(schemas.OutcomeRestored), Code: schemas.CodePathRefused}),
			every(schemas.ResultFilter{Code: "none"}),
			every(schemas.ResultFilter{Since: at(700)}),
			{schemas.ResultFilter{Since: at(700), Code: schemas.CodeDecodeFailed}, 800},
			every(schemas.ResultFilter{Message: "open <path>: permission denied"}),
			{schemas.ResultFilter{Message: "open <path>: permission denied", Outcomes: only(schemas.OutcomeFailed), Since: at(3)}, 1},
			every(schemas.ResultFilter{Message: "open"}),
		} {
			var want []int64
			for _, r := range results {
				if (len(f.Outcomes) == 0 || slices.Contains(f.Outcomes, r.Outcome)) && (f.Code == "" || r.Code == f.Code) && r.Index >= f.From &&
					!r.FinishedAt.Before(f.Since) && (f.Message == "" || schemas.Normalise(r.Detail) == f.Message) {
					want = append(want, r.Index)
				}
			}
			if diff := cmp.Diff(want, indexes(collect(t, l.Reader, "b1", f))); diff != "" {
				t.Errorf("%+v: %s", f, diff)
			}
			if n, err := l.Count(t.Context(), "b1", f); err != nil || n != int64(len(want)) {
				t.Errorf("%+v: counted %d, %v; want %d", f, n, err, len(want))
			}
		}
	})
}

func only(o schemas.Outcome) []schemas.Outcome { return []schemas.Outcome{o} }

func TestResultsHoldNothingOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l, _ := mixed(t, k)
		n := 0
		for res, err := range l.Results(t.Context(), "b1", Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			// The writer goes on while a consumer is in the middle of a page, and
			// what comes in ahead of it appears.
			if n++; n == 3 {
				if res.Index != 2 {
					t.Fatalf("result %d, want 2", res.Index)
				}
				mustRecord(t, l, &notebook{}, sampleResults("b1", 1500, 10))
				if db, ok := l.db.(*sqlite); ok {
					var busy, pages, done int
					if err := db.w.QueryRow(`PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &pages, &done); err != nil || busy != 0 {
						t.Errorf("the write-ahead log cannot be emptied: %d %v", busy, err)
					}
				}
			}
		}
		if n != 1510 {
			t.Errorf("%d results, want 1510", n)
		}
	})
}

func TestCodes(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l, _ := mixed(t, k)
		got, err := l.Codes(t.Context(), "b1")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[schemas.Code]int64{schemas.CodeDecodeFailed: 250, schemas.CodePathRefused: 250}, got); diff != "" {
			t.Error(diff)
		}
		if got, err := l.Codes(t.Context(), "b0"); err != nil || len(got) != 0 {
			t.Errorf("got %v, %v; want none", got, err)
		}
	})
}

func TestMissing(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		for id, tc := range map[string]struct {
			total   int64
			present []int64
			limit   int
			want    []int64
		}{
			"none-missing": {3, []int64{0, 1, 2}, 10, nil},
			"all-missing":  {3, nil, 10, []int64{0, 1, 2}},
			"gaps":         {9, []int64{1, 2, 5, 7}, 10, []int64{0, 3, 4, 6, 8}},
			"gaps-limit":   {9, []int64{1, 2, 5, 7}, 2, []int64{0, 3}},
			"huge-limit":   {1 << 60, []int64{1}, 3, []int64{0, 2, 3}},
			"limit-none":   {9, nil, 0, nil},
			"only-the-end": {3, []int64{0, 1}, 10, []int64{2}},
			"empty":        {0, nil, 10, nil},
		} {
			mustCreate(t, l, id)
			var results []schemas.Result
			for _, i := range tc.present {
				results = append(results, sampleResult(id, i))
			}
			mustRecord(t, l, &notebook{}, results)
			if got, err := l.Missing(t.Context(), id, 10); err != nil || got != nil {
				t.Errorf("%s, not sealed: got %v, %v", id, got, err)
			}
			if _, err := l.Seal(t.Context(), id, tc.total, "", at(1)); err != nil {
				t.Fatal(err)
			}
			got, err := l.Missing(t.Context(), id, tc.limit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: %s", id, diff)
			}
		}
	})
}

func TestQuestionsAboutUnknownBatches(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		_, _, audit := l.Audit(t.Context(), "nowhere")
		_, count := l.Count(t.Context(), "nowhere", Filter{})
		_, events := l.Events(t.Context(), "nowhere", 0)
		_, letters := l.Letters(t.Context(), schemas.LettersQuery{Batch: "nowhere"})
		_, groups := l.LetterGroups(t.Context(), schemas.LettersQuery{Batch: "nowhere"})
		_, _, change := l.Change(t.Context(), "nowhere", "c", nil, nil)
		_, missing := l.Missing(t.Context(), "nowhere", 1)
		_, codes := l.Codes(t.Context(), "nowhere")
		errs := []error{audit, count, events, letters, groups, change, missing, codes}
		for _, err := range l.Results(t.Context(), "nowhere", Filter{}) {
			errs = append(errs, err)
		}
		if len(errs) != 9 {
			t.Errorf("%d errors, want 9", len(errs))
		}
		for _, err := range errs {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v, want ErrNotFound", err)
			}
		}
	})
}

func BenchmarkAsk(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) { benchmarkAsk(b, k) })
	}
}

func benchmarkAsk(b *testing.B, k kind) {
	const n = 200_000
	l := k.open(b)
	mustCreate(b, l, "b1")
	for from := int64(0); from < n; from += 1000 {
		mustRecord(b, l, &notebook{}, sampleResults("b1", from, 1000))
	}
	if _, err := l.Seal(context.Background(), "b1", n+1, "", at(1)); err != nil {
		b.Fatal(err)
	}
	for name, ask := range map[string]func() error{
		"Missing": func() error { _, err := l.Missing(context.Background(), "b1", 10); return err },
		"Audit":   func() error { _, _, err := l.Audit(context.Background(), "b1"); return err },
		"Codes":   func() error { _, err := l.Codes(context.Background(), "b1"); return err },
		"Failed": func() error {
			collect(b, l.Reader, "b1", Filter{ResultFilter: schemas.ResultFilter{Outcomes: only(schemas.OutcomeFailed)}})
			return nil
		},
		"Results": func() error {
			for _, err := range l.Results(context.Background(), "b1", Filter{}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "results/s")
		})
	}
}
