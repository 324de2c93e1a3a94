package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// chunk is a kept chunk whose body says which it is.
func chunk(first, last int64) schemas.Kept {
	return schemas.Kept{Batch: "b", First: first, Last: last, Body: fmt.Appendf([]byte{0, 0xff}, "%d-%d", first, last)}
}

func mustKeep(t testing.TB, l *Ledger, chunks ...schemas.Kept) {
	t.Helper()
	for _, k := range chunks {
		if err := l.Keep(context.Background(), k); err != nil {
			t.Fatal(err)
		}
	}
}

func keptTo(t testing.TB, l *Ledger) int64 {
	t.Helper()
	next, err := l.KeptTo(context.Background(), "b")
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// openKept is what OpenKept visits, by the bodies.
func openKept(t testing.TB, l *Ledger) map[string][]int64 {
	t.Helper()
	all := map[string][]int64{}
	err := l.OpenKept(context.Background(), "b", func(k schemas.Kept, open []int64) error {
		if want := chunk(k.First, k.Last); !cmp.Equal(k, want) {
			t.Errorf("visited %+v, want %+v", k, want)
		}
		all[string(k.Body[2:])] = open
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestKeep(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b", "other")
		if next := keptTo(t, l); next != 0 {
			t.Errorf("kept to %d of a new batch", next)
		}
		mustKeep(t, l, chunk(0, 3), chunk(10, 19))
		if next := keptTo(t, l); next != 4 {
			t.Errorf("kept to %d before the gap, want 4", next)
		}
		// A chunk that is kept again stays as it is, unless it is longer now; another
		// producer may have made others of the same items.
		mustKeep(t, l, chunk(0, 3), chunk(0, 2), chunk(4, 5), chunk(4, 7), chunk(6, 12))
		if next := keptTo(t, l); next != 20 {
			t.Errorf("kept to %d, want 20", next)
		}
		mustSeal(t, l, 18, "b")
		for _, part := range [][2]int64{{0, 4}, {6, 1}, {9, 2}, {15, 1}} {
			record(t, l, sampleResults("b", part[0], part[1]))
		}
		want := map[string][]int64{"4-7": {4, 5, 7}, "6-12": {8, 11, 12}, "10-19": {13, 14, 16, 17}}
		if diff := cmp.Diff(want, openKept(t, l)); diff != "" {
			t.Error(diff)
		}
		broken := errors.New("broken")
		if err := l.OpenKept(t.Context(), "b", func(schemas.Kept, []int64) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("the visitor's error: %v", err)
		}
		if err := l.Keep(t.Context(), schemas.Kept{Batch: "none"}); !errors.Is(err, ErrNotFound) {
			t.Errorf("keep of an unknown batch: %v", err)
		}
	})
}

// What is kept goes with the end of the batch, and does not come back.
func TestKeptUntilTheBatchEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b", "other")
		other := schemas.Kept{Batch: "other", First: 0, Last: 1, Body: []byte("x")}
		mustKeep(t, l, chunk(0, 0), other)
		mustSeal(t, l, 1, "b")
		record(t, l, sampleResults("b", 0, 1))
		if _, ended, err := end(t.Context(), l, "b", at(9), nil); err != nil || !ended {
			t.Fatalf("%v, %v", ended, err)
		}
		mustKeep(t, l, chunk(0, 0))
		if next := keptTo(t, l); next != 0 {
			t.Errorf("kept to %d of a batch that has ended", next)
		}
		// An older program ends batches without looking here.
		err := l.inTx(t.Context(), func(t tx) error {
			_, err := t.exec(context.Background(), `INSERT INTO kept (batch_no, first, last, body) SELECT no, 5, 6, $1 FROM batch WHERE id = 'b'`, []byte("x"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.DropKept(t.Context()); err != nil {
			t.Fatal(err)
		}
		var left int64
		if err := l.db.queryRow(t.Context(), `SELECT count(*) FROM kept`).Scan(&left); err != nil || left != 1 {
			t.Errorf("%d rows are left, want that of the other batch: %v", left, err)
		}
	})
}

// More than one page of chunks.
func TestManyKept(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b")
		const n = keptPage + 10
		err := l.inTx(t.Context(), func(t tx) error {
			for i := range int64(n) {
				c := chunk(2*i, 2*i+1)
				if _, err := t.exec(context.Background(), `INSERT INTO kept (batch_no, first, last, body) SELECT no, $1, $2, $3 FROM batch`, c.First, c.Last, c.Body); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if next := keptTo(t, l); next != 2*n {
			t.Errorf("kept to %d, want %d", next, 2*n)
		}
		mustSeal(t, l, 2*n, "b")
		record(t, l, sampleResults("b", 1, 2*n-2))
		want := map[string][]int64{"0-1": {0}, fmt.Sprintf("%d-%d", 2*n-2, 2*n-1): {2*n - 1}}
		if diff := cmp.Diff(want, openKept(t, l)); diff != "" {
			t.Error(diff)
		}
	})
}

func record(t testing.TB, l *Ledger, results []schemas.Result) {
	t.Helper()
	if _, err := l.Record(context.Background(), results, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkKeep keeps chunks of a usual size: 4,096 requests that compress to 40
// bytes each.
func BenchmarkKeep(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			l := k.open(b)
			mustCreate(b, l, "b")
			body := make([]byte, schemas.MaxKept*40)
			r := rand.NewChaCha8([32]byte{})
			_, _ = r.Read(body)
			first := int64(0)
			for b.Loop() {
				mustKeep(b, l, schemas.Kept{Batch: "b", First: first, Last: first + schemas.MaxKept - 1, Body: body})
				first += schemas.MaxKept
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(first), "ns/item")
		})
	}
}

func TestFailuresBetween(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b")
		var failures []schemas.Failure
		for index := range int64(5) {
			for number := range 2 {
				failures = append(failures, schemas.Failure{Batch: "b", Index: index, Number: number + 1, Attempt: schemas.Attempt{Code: schemas.CodeArchiveBusy}})
			}
		}
		if _, err := l.Record(t.Context(), nil, failures, nil); err != nil {
			t.Fatal(err)
		}
		found, err := l.FailuresBetween(t.Context(), "b", 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(failures[2:8], found); diff != "" {
			t.Error(diff)
		}
	})
}
