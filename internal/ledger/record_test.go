package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// notebook stands for the evidence log: it takes what is fresh.
type notebook struct {
	taken []schemas.Result
	calls int
	err   error
}

func (n *notebook) note(fresh []schemas.Result, _ []schemas.Failure) (schemas.EvidencePosition, error) {
	n.calls++
	if n.err != nil {
		return schemas.EvidencePosition{}, n.err
	}
	n.taken = append(n.taken, fresh...)
	return n.position(), nil
}

func (n *notebook) position() schemas.EvidencePosition {
	return schemas.EvidencePosition{Offset: int64(100 * len(n.taken)), Seq: int64(len(n.taken)), Prev: "ab"}
}

func mustRecord(t testing.TB, l *Ledger, n *notebook, results []schemas.Result) Recorded {
	t.Helper()
	rec, err := l.Record(context.Background(), results, nil, n.note)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// concat also copies.
func concat(groups ...[]schemas.Result) []schemas.Result { return slices.Concat(groups...) }

func TestOnlyNewResultsCount(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		b := func(from, n int64) []schemas.Result { return sampleResults("b1", from, n) }
		for name, groups := range map[string][][]schemas.Result{
			"one at a time":            {b(0, 1), b(1, 1), b(2, 1)},
			"a group twice":            {b(0, 130), b(0, 130)},
			"a small group twice":      {b(0, 7), b(0, 7)},
			"overlapping":              {b(0, 130), b(100, 130), b(60, 200)},
			"overlapping backwards":    {b(100, 130), b(0, 170)},
			"one old among new ones":   {b(70, 1), b(0, 200)},
			"one new among old ones":   {concat(b(0, 70), b(71, 60)), b(0, 131)},
			"repeated inside a chunk":  {concat(b(0, 10), b(5, 10), b(0, 80))},
			"repeated across chunks":   {concat(b(0, 120), b(0, 120))},
			"old ones and repeated":    {b(0, 5), concat(b(3, 4), b(3, 4), b(0, 60))},
			"each twice side by side":  {concat(b(0, 1), b(0, 1), b(1, 1), b(1, 1), b(2, 1), b(2, 1), b(3, 60))},
			"nothing":                  {b(0, 0), b(0, 3), b(0, 0)},
			"exactly one statement":    {b(0, insertRows), b(insertRows, insertRows)},
			"two batches side by side": {concat(b(0, 60), sampleResults("b2", 0, 60)), concat(sampleResults("b2", 30, 60), b(30, 60))},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := k.open(t)
				mustCreate(t, l, "b1", "b2")
				var n notebook
				seen := map[string]bool{}
				var want []schemas.Result
				for _, group := range groups {
					fresh := 0
					for _, r := range group {
						if !seen[r.ID()] {
							seen[r.ID()] = true
							want = append(want, r)
							fresh++
						}
					}
					if rec := mustRecord(t, l, &n, group); rec.Fresh != fresh || rec.Strays != nil {
						t.Errorf("%d fresh and strays %v, want %d and none", rec.Fresh, rec.Strays, fresh)
					}
				}
				if diff := cmp.Diff(want, n.taken); diff != "" {
					t.Errorf("noted: %s", diff)
				}
				if got := mustAudit(t, l.Reader, "b1").Restored + mustAudit(t, l.Reader, "b2").Restored; got != int64(len(want)) {
					t.Errorf("%d results, want %d", got, len(want))
				}
				if pos, ok, err := l.Position(t.Context()); err != nil || !ok || pos != n.position() {
					t.Errorf("position %+v %v %v, want %+v", pos, ok, err, n.position())
				}
			})
		}
	})
}

func TestTheFirstOfRepeatedResultsCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		first := sampleResults("b1", 0, 80)
		later := sampleResults("b1", 0, 80)
		for i := range later {
			later[i].Outcome, later[i].Worker = schemas.OutcomeFailed, "worker-2"
		}
		var n notebook
		mustRecord(t, l, &n, concat(first[:30], later[10:20]))
		mustRecord(t, l, &n, concat(later[:10], first[30:], later))
		if got := mustAudit(t, l.Reader, "b1"); got.Restored != 80 || got.Failed != 0 {
			t.Errorf("counts %+v, want 80 restored", got)
		}
		for _, found := range [][]schemas.Result{n.taken, collect(t, l.Reader, "b1", Filter{})} {
			if diff := cmp.Diff(first, found); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func TestRecordSaysWhatItDid(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "b2", "b3")
		if _, err := l.Seal(t.Context(), "b2", 3, "", at(2)); err != nil {
			t.Fatal(err)
		}
		failed := sampleResult("b1", 1)
		failed.Outcome, failed.Code, failed.Size = schemas.OutcomeFailed, schemas.CodeDecodeFailed, 77
		unknown, beyond, negative := sampleResult("nowhere", 0), sampleResult("b2", 3), sampleResult("b1", -1)
		var n notebook
		results := []schemas.Result{sampleResult("b2", 2), unknown, failed, beyond, sampleResult("b1", 0), negative}
		rec := mustRecord(t, l, &n, results)

		one, err := l.Batch(t.Context(), "b1")
		if err != nil {
			t.Fatal(err)
		}
		two, err := l.Batch(t.Context(), "b2")
		if err != nil {
			t.Fatal(err)
		}
		want := Recorded{Batches: []schemas.Summary{two, one}, Fresh: 3, Strays: []schemas.Result{unknown, beyond, negative}}
		if diff := cmp.Diff(want, rec); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(schemas.Counts{Restored: 1, Failed: 1, Bytes: 8000}, one.Counts); diff != "" {
			t.Error(diff)
		}
		want.Fresh = 0
		if diff := cmp.Diff(want, mustRecord(t, l, &n, results)); diff != "" {
			t.Errorf("again: %s", diff)
		}
		if n.calls != 1 {
			t.Errorf("noted %d times, want once", n.calls)
		}
	})
}

func TestARecordingThatFailsLeavesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		n := notebook{}
		mustRecord(t, l, &n, sampleResults("b1", 0, 60))
		before := n.position()

		n.err = errors.New("disk full")
		if rec, err := l.Record(t.Context(), sampleResults("b1", 30, 100), nil, n.note); !errors.Is(err, n.err) || rec.Batches != nil {
			t.Errorf("got %+v and %v, want only the error of note", rec, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Record(ctx, sampleResults("b1", 30, 100), nil, n.note); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		if got := mustAudit(t, l.Reader, "b1").Done(); got != 60 {
			t.Errorf("%d results, want 60", got)
		}
		if pos, _, err := l.Position(t.Context()); err != nil || pos != before {
			t.Errorf("position %+v (%v), want %+v", pos, err, before)
		}
		n.err = nil
		if rec := mustRecord(t, l, &n, sampleResults("b1", 30, 100)); rec.Fresh != 70 {
			t.Errorf("%d fresh, want 70", rec.Fresh)
		}
		mustAudit(t, l.Reader, "b1")
	})
}

func TestEndedBatchesStillTakeNewResults(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		mustSeal(t, l, 3, "b1")
		if _, _, err := end(t.Context(), l, "b1", at(5), nil); err != nil {
			t.Fatal(err)
		}
		var n notebook
		mustRecord(t, l, &n, sampleResults("b1", 0, 3))
		rec := mustRecord(t, l, &n, sampleResults("b1", 0, 3))
		if rec.Fresh != 0 || rec.Batches[0].Counts.Restored != 3 || rec.Batches[0].State != schemas.StateSucceeded {
			t.Errorf("got %+v", rec)
		}
		wantEvents(t, l.Reader, "b1", "open open", "seal sealed", "complete succeeded")
	})
}

func TestEveryOutcomeIsCountedOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		outcomes := []schemas.Outcome{schemas.OutcomeRestored, schemas.OutcomeUnchanged, schemas.OutcomeFailed, schemas.OutcomeSkipped,
			schemas.OutcomeCancelled, "from a newer exhume"}
		results := sampleResults("b1", 0, 600)
		var want schemas.Counts
		for i := range results {
			results[i].Outcome = outcomes[i%len(outcomes)]
			want.Add(results[i].Outcome, results[i].Size)
		}
		var n notebook
		rec := mustRecord(t, l, &n, results)
		if diff := cmp.Diff(want, rec.Batches[0].Counts); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want, mustAudit(t, l.Reader, "b1")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAuditNoticesWrongCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		for _, damage := range []string{`UPDATE batch SET failed = failed + 1`, `DELETE FROM result WHERE idx = 2`, `UPDATE result SET size = 1 WHERE idx = 2`} {
			l := k.open(t)
			mustCreate(t, l, "b1")
			mustRecord(t, l, &notebook{}, sampleResults("b1", 0, 5))
			mustAudit(t, l.Reader, "b1")
			err := l.inTx(t.Context(), func(tx tx) error {
				_, err := tx.exec(t.Context(), damage)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if kept, counted, err := l.Audit(t.Context(), "b1"); err != nil || kept == counted {
				t.Errorf("%s: the audit found nothing", damage)
			}
		}
	})
}

func TestReadersAndWritersAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		const writers, groups, size = 4, 10, 60
		where := k.where(t)
		l := openLedger(t, where)
		mustCreate(t, l, "b1")
		r, err := OpenReader(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var reading, writing sync.WaitGroup
		for _, r := range []*Reader{r, l.Reader} {
			reading.Go(func() {
				for ctx.Err() == nil {
					mustAudit(t, r, "b1")
					last := int64(-1)
					for res, err := range r.Results(t.Context(), "b1", Filter{}) {
						if err != nil || res.Index <= last {
							t.Errorf("result %d after %d: %v", res.Index, last, err)
							return
						}
						last = res.Index
					}
				}
			})
		}
		for w := range writers {
			writing.Go(func() {
				for g := range groups {
					// Every result comes from two writers.
					from := int64((w/2*groups + g) * size)
					if _, err := l.Record(t.Context(), sampleResults("b1", from, size), nil, nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		stop()
		reading.Wait()
		if got := mustAudit(t, l.Reader, "b1").Restored; got != writers/2*groups*size {
			t.Errorf("%d results, want %d", got, writers/2*groups*size)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	for _, k := range kinds {
		for _, size := range []int64{1000, 4000} {
			for name, repeat := range map[string]int{"new": 1, "twice": 2} {
				b.Run(fmt.Sprintf("%s/%d/%s", k.name, size, name), func(b *testing.B) { benchmarkRecord(b, k, size, repeat) })
			}
		}
	}
}

func benchmarkRecord(b *testing.B, k kind, size int64, repeat int) {
	l := k.open(b)
	mustCreate(b, l, "b1")
	note := func([]schemas.Result, []schemas.Failure) (schemas.EvidencePosition, error) {
		return schemas.EvidencePosition{Offset: 1}, nil
	}
	var index int64
	for b.Loop() {
		b.StopTimer()
		group := sampleResults("b1", index, size)
		index += size
		b.StartTimer()
		for range repeat {
			if _, err := l.Record(context.Background(), group, nil, note); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(index)*float64(repeat)/b.Elapsed().Seconds(), "results/s")
}

// A batch that was cancelled while it was submitted ends with the items that had a
// result then, whatever their indexes. What comes late does not count.
func TestResultsAfterACancel(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1")
		mustRecord(t, l, &notebook{}, concat(sampleResults("b1", 9, 1), sampleResults("b1", 19, 1), sampleResults("b1", 29, 1)))
		mustChange(t, l, "b1", "c1", schemas.ChangeCancel)
		_, _, err := l.Change(t.Context(), "b1", "c2", func(s *schemas.Summary) (*schemas.BatchEvent, error) {
			s.Total, s.SealedAt = s.Counts.Done(), at(11)
			return decide(schemas.ChangeSeal, "eve")(s)
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, ended, err := end(t.Context(), l, "b1", at(12), nil)
		if err != nil || !ended || s.State != schemas.StateCancelled {
			t.Fatalf("%s, %v, %v", s.State, ended, err)
		}
		if rec := mustRecord(t, l, &notebook{}, sampleResults("b1", 0, 3)); rec.Fresh != 0 || len(rec.Strays) != 0 {
			t.Errorf("%+v", rec)
		}
		if got := mustAudit(t, l.Reader, "b1"); got.Done() != 3 {
			t.Errorf("%+v", got)
		}
	})
}
