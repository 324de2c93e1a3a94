package ledger

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

func sampleFailure(batch string, index int64, number int) schemas.Failure {
	return schemas.Failure{
		Batch: batch, Index: index, Tombstone: fmt.Sprint("t", index), Output: "a\x00b", Actor: "ops", Number: number, NextTry: at(2),
		Attempt: schemas.Attempt{At: at(1), Worker: "w", Code: schemas.CodeArchiveBusy, Detail: "locked"},
	}
}

func sampleFailures(batch string, index int64, numbers ...int) (all []schemas.Failure) {
	for _, n := range numbers {
		all = append(all, sampleFailure(batch, index, n))
	}
	return all
}

// failed gives all failures of a batch.
func failed(t *testing.T, r *Reader, batch string) (all []schemas.Failure) {
	t.Helper()
	for f, err := range r.Failures(t.Context(), batch) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

func TestFailuresAreRecordedOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "b2", "cancelled")
		mustSeal(t, l, 5, "b2", "cancelled")
		mustRecord(t, l, &notebook{}, sampleResults("cancelled", 0, 1))
		if _, err := l.Conclude(t.Context(), "cancelled", schemas.StateCancelled, 5, "", at(3)); err != nil {
			t.Fatal(err)
		}
		var noted []schemas.Failure
		record := func(failures []schemas.Failure, results ...schemas.Result) Recorded {
			t.Helper()
			rec, err := l.Record(t.Context(), results, failures, func(_ []schemas.Result, fresh []schemas.Failure) (schemas.EvidencePosition, error) {
				noted = append(noted, fresh...)
				return schemas.EvidencePosition{Seq: int64(len(noted))}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return rec
		}
		var many []schemas.Failure
		for i := range int64(attemptRows + 30) {
			many = append(many, sampleFailure("b1", i, 1))
		}
		if rec := record(many[:70]); rec.FreshFailures != 70 || len(rec.Batches) != 1 || rec.Batches[0].State != schemas.StateOpen {
			t.Errorf("%+v", rec)
		}
		if rec := record(slices.Concat(many[60:80], many, many)); rec.FreshFailures != len(many)-70 {
			t.Errorf("%d fresh, want %d", rec.FreshFailures, len(many)-70)
		}
		more := slices.Concat(sampleFailures("b1", 7, 3, 2, 2), sampleFailures("b2", 4, 1))
		strays := slices.Concat(sampleFailures("b2", 5, 1), sampleFailures("b1", -1, 1), sampleFailures("none", 0, 1))
		rec := record(slices.Concat(more, strays, sampleFailures("cancelled", 1, 1)), sampleResult("b2", 0))
		if rec.FreshFailures != 3 || rec.Fresh != 1 || len(rec.Batches) != 3 {
			t.Errorf("%+v", rec)
		}
		if diff := cmp.Diff(strays, rec.StrayFailures); diff != "" {
			t.Error(diff)
		}
		if rec := record(more); rec.FreshFailures != 0 {
			t.Errorf("again: %+v", rec)
		}
		if diff := cmp.Diff(slices.Concat(many, more[:2], more[3:]), noted); diff != "" {
			t.Errorf("noted: %s", diff)
		}
		if pos, _, err := l.Position(t.Context()); err != nil || pos.Seq != int64(len(noted)) {
			t.Errorf("position %+v, %v", pos, err)
		}
		want := slices.Concat(many[:8], []schemas.Failure{more[1], more[0]}, many[8:])
		if diff := cmp.Diff(want, failed(t, l.Reader, "b1")); diff != "" {
			t.Error(diff)
		}
		if got := failed(t, l.Reader, "cancelled"); got != nil {
			t.Errorf("of a cancelled batch: %+v", got)
		}
		got, err := l.Attempts(t.Context(), "b1", 7)
		if diff := cmp.Diff(want[7:10], got); diff != "" || err != nil {
			t.Error(diff, err)
		}
	})
}

// Pages of failures begin where the one before ended, also inside an item.
func TestFailuresInPages(t *testing.T) {
	t.Parallel()
	l := kinds[0].open(t)
	mustCreate(t, l, "b1")
	var want []schemas.Failure
	for i := range int64(3) {
		for n := range pageSize {
			want = append(want, sampleFailure("b1", i*7, n+1))
		}
	}
	if _, err := l.Record(t.Context(), nil, want, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, failed(t, l.Reader, "b1")); diff != "" {
		t.Error(diff)
	}
}
