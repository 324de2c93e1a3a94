package ledger

import (
	order "cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// failures are n results of a batch that failed with two kinds of causes.
func failures(batch string, from, n int64) []schemas.Result {
	results := sampleResults(batch, from, n)
	for i := range results {
		r := &results[i]
		r.Outcome, r.Code = schemas.OutcomeFailed, schemas.CodeDestinationExists
		r.Detail = fmt.Sprintf("open /data/restore/file_%d.go: it is there already", r.Index)
		if r.Index%4 == 0 {
			r.Code, r.Detail = schemas.CodeDecodeFailed, fmt.Sprintf("item %q: frame %d is damaged", r.Tombstone, r.Index)
		}
		r.History = []schemas.Attempt{{At: at(1), Worker: "w", Code: schemas.CodeArchiveBusy}}
	}
	return results
}

// someLetters gives a ledger with letters of three batches, and all of them in
// order. A fourth has only items that did not fail.
func someLetters(t testing.TB, k kind) (*Ledger, []schemas.Result) {
	t.Helper()
	l := k.open(t)
	mustCreate(t, l, "old", "fine", "large", "new")
	old, large, recent := failures("old", 3, 5), failures("large", 0, 1200), failures("new", 7, 2)
	mustRecord(t, l, &notebook{}, slices.Concat(old, large[600:], recent))
	mustRecord(t, l, &notebook{}, slices.Concat(large[:600], sampleResults("fine", 0, 9), sampleResults("large", 1200, 5)))
	skipped := sampleResult("fine", 10)
	skipped.Outcome, skipped.Code = schemas.OutcomeSkipped, schemas.CodeItemSkipped
	mustRecord(t, l, &notebook{}, []schemas.Result{skipped})
	return l, slices.Concat(recent, large, old)
}

func TestLetters(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l, all := someLetters(t, k)
		for name, q := range map[string]schemas.LettersQuery{
			"all":     {},
			"pages":   {Limit: 7},
			"ones":    {Limit: 1, ResultFilter: schemas.ResultFilter{Since: at(1195)}},
			"batch":   {Batch: "old", Limit: 5},
			"batch 2": {Batch: "large", Limit: 600},
			"none":    {Batch: "fine"},
			"code":    {Limit: 100, ResultFilter: schemas.ResultFilter{Code: schemas.CodeDecodeFailed}},
			"message": {Limit: 101, ResultFilter: schemas.ResultFilter{Message: `item "…": frame <n> is damaged`}},
			"failed":  {ResultFilter: schemas.ResultFilter{Outcomes: []schemas.Outcome{schemas.OutcomeSkipped, schemas.OutcomeFailed}}},
			"skipped": {ResultFilter: schemas.ResultFilter{Outcomes: only(schemas.OutcomeSkipped)}},
			"nothing": {ResultFilter: schemas.ResultFilter{Code: schemas.CodeArchiveDown}},
		} {
			want := slices.DeleteFunc(slices.Clone(all), func(r schemas.Result) bool { return !wanted(q, r) })
			got := []schemas.Result{}
			for {
				page, err := l.Letters(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, page.Letters...)
				limit := q.Limit
				if limit == 0 {
					limit = schemas.MaxResultsPage
				}
				if full := len(page.Letters) == limit; len(page.Letters) > limit || page.Next != "" && !full || page.Letters == nil {
					t.Errorf("%s: a page of %d, limit %d, next %q", name, len(page.Letters), limit, page.Next)
				}
				if q.After = page.Next; q.After == "" {
					break
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		for _, after := range []string{"x", "1", "1.", ".1", "1.2.3", "1.2 ", "01.2"} {
			if _, err := l.Letters(t.Context(), schemas.LettersQuery{After: after}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", after)) {
				t.Errorf("after %q: got %v", after, err)
			}
		}
	})
}

func wanted(q schemas.LettersQuery, r schemas.Result) bool {
	return (q.Batch == "" || q.Batch == r.Batch) && (q.Code == "" || q.Code == r.Code) && !r.FinishedAt.Before(q.Since) &&
		(q.Message == "" || q.Message == schemas.Normalise(r.Detail)) &&
		(len(q.Outcomes) == 0 || slices.Contains(q.Outcomes, r.Outcome))
}

func TestLetterGroups(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l, all := someLetters(t, k)
		for name, q := range map[string]schemas.LettersQuery{
			"all":     {},
			"batch":   {Batch: "new"},
			"none":    {Batch: "fine"},
			"since":   {ResultFilter: schemas.ResultFilter{Since: at(5)}},
			"code":    {ResultFilter: schemas.ResultFilter{Code: schemas.CodeDecodeFailed}},
			"message": {ResultFilter: schemas.ResultFilter{Message: `open <path>: it is there already`}},
			"skipped": {ResultFilter: schemas.ResultFilter{Outcomes: only(schemas.OutcomeSkipped)}},
		} {
			got, err := l.LetterGroups(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			var want []schemas.LetterGroup
			for _, code := range []schemas.Code{schemas.CodeDestinationExists, schemas.CodeDecodeFailed} {
				g := schemas.LetterGroup{Code: code, Remedy: code.Info().Remedy}
				batches := map[string]bool{}
				for _, id := range []string{"old", "large", "new"} { // the samples are the oldest
					for _, r := range all {
						if r.Batch != id || r.Code != code || !wanted(q, r) {
							continue
						}
						g.Message = schemas.Normalise(r.Detail)
						batches[id] = true
						if g.Count++; g.Count <= 3 {
							g.Samples = append(g.Samples, r)
						}
						if g.First.IsZero() || r.FinishedAt.Before(g.First) {
							g.First = r.FinishedAt
						}
						if r.FinishedAt.After(g.Last) {
							g.Last = r.FinishedAt
						}
					}
				}
				if g.Batches = int64(len(batches)); g.Count > 0 {
					want = append(want, g)
				}
			}
			if len(want) == 0 {
				want = []schemas.LetterGroup{}
			}
			slices.SortStableFunc(want, func(a, b schemas.LetterGroup) int {
				return order.Or(order.Compare(b.Count, a.Count), order.Compare(a.Code, b.Code))
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})
}

// No more groups are told apart than can be shown.
func TestTooManyLetterGroups(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "b2")
		word := func(i int64) string { // no number, which would be the same in all
			return strings.NewReplacer("0", "g", "1", "h", "2", "i", "3", "j", "4", "k", "5", "l", "6", "m", "7", "n", "8", "o", "9", "p").Replace(fmt.Sprint(i))
		}
		results := slices.Concat(failures("b1", 0, maxGroups), failures("b1", maxGroups, 50), failures("b2", 0, 50))
		for i := range results {
			results[i].Detail, results[i].Code = word(int64(i)), schemas.CodeInternal
			if i == maxGroups+1 {
				results[i].Detail = word(5)
			}
		}
		mustRecord(t, l, &notebook{}, results)
		groups, err := l.LetterGroups(t.Context(), schemas.LettersQuery{})
		if err != nil || len(groups) != maxGroups+1 {
			t.Fatal(len(groups), err)
		}
		if g := groups[0]; g.Message != word(5) || g.Count != 2 {
			t.Errorf("the largest is %+v", g)
		}
		rest := groups[maxGroups]
		if rest.Message != restMessage || rest.Count != 99 || rest.Batches != 2 || rest.Code != "" || len(rest.Samples) != 0 || rest.Remedy == "" {
			t.Errorf("the rest is %+v", rest)
		}
	})
}

func TestLettersAreReadAlongAnIndex(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l, _ := someLetters(t, k)
		f, _ := letterFilter(schemas.LettersQuery{ResultFilter: schemas.ResultFilter{Code: schemas.CodeDecodeFailed}})
		statement, args := groupQuery(l.db.dialect(), f)
		plan := explain(t, l, statement, append([]any{int64(1), int64(0), int64(9)}, args...)...)
		for _, bad := range []string{"Sort", "Seq Scan", "Bitmap", "TEMP", "SCAN"} {
			if strings.Contains(plan, bad) {
				t.Errorf("%s in: %s", bad, plan)
			}
		}
	})
}

func BenchmarkLetters(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			const batches, each = 10, 10_000
			l := k.open(b)
			for i := range batches {
				id := fmt.Sprint("b", i)
				mustCreate(b, l, id)
				for from := int64(0); from < each; from += 5000 {
					mustRecord(b, l, &notebook{}, failures(id, from, 5000))
				}
			}
			for name, ask := range map[string]func() error{
				"Groups": func() error { _, err := l.LetterGroups(context.Background(), schemas.LettersQuery{}); return err },
				"Page":   func() error { _, err := l.Letters(context.Background(), schemas.LettersQuery{}); return err },
				"Message": func() error {
					_, err := l.Letters(context.Background(), schemas.LettersQuery{ResultFilter: schemas.ResultFilter{Message: "none like it"}})
					return err
				},
			} {
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						if err := ask(); err != nil {
							b.Fatal(err)
						}
					}
					if name != "Page" { // that one reads a thousand
						b.ReportMetric(float64(b.N)*batches*each/b.Elapsed().Seconds(), "letters/s")
					}
				})
			}
		})
	}
}
