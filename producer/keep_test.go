package producer

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/exhume/exhume/schemas"
)

// checkKept makes sure that all requests of a batch are kept, each once.
func (f *fakeFleet) checkKept(t *testing.T, total int) {
	t.Helper()
	if len(f.kept) != total {
		t.Fatalf("%d requests are kept, want %d", len(f.kept), total)
	}
	for i, item := range f.kept {
		if item.Output != strconv.Itoa(i) {
			t.Fatalf("item %d is kept as %+v", i, item)
		}
	}
}

// Whoever goes on keeps what is not kept yet, and no more.
func TestSubmitKeepsRequests(t *testing.T) {
	t.Parallel()
	f := &fakeFleet{failKeep: 1500}
	s := submission(10_000, 10_000)
	if _, err := Submit(t.Context(), f, f, s); err == nil || f.sealed != 0 || len(f.stored) == 0 {
		t.Fatalf("%v: %d are published, sealed %d", err, len(f.stored), f.sealed)
	}
	before := len(f.kept)
	if before == 0 || before > 1500 {
		t.Fatalf("%d are kept", before)
	}
	f.failKeep = 0
	if _, err := Submit(t.Context(), f, f, s); err != nil {
		t.Fatal(err)
	}
	f.checkKept(t, 10_000)
}

// All is kept once, whatever is published first.
func TestSubmitKeepsTheSample(t *testing.T) {
	t.Parallel()
	f := &fakeFleet{}
	s := submission(10_000, 10_000)
	s.Batch.Terms.Canary = &schemas.Canary{Size: 30}
	if _, err := Submit(t.Context(), f, f, s); err != nil {
		t.Fatal(err)
	}
	f.checkKept(t, 10_000)
}

// Of a batch that is sealed nothing is published, and what an older program has not
// kept is kept.
func TestSubmitKeepsWhatIsSealed(t *testing.T) {
	t.Parallel()
	f := &fakeFleet{old: true}
	s := submission(3000, 3000)
	if _, err := Submit(t.Context(), f, f, s); err != nil || f.sealed != 3000 || len(f.stored) != 3000 {
		t.Fatalf("%v: sealed %d, %d are published", err, f.sealed, len(f.stored))
	}
	f.old, f.stored = false, nil // the broker has lost them
	for range 2 {
		got, err := Submit(t.Context(), f, f, s)
		if err != nil || !got.Known || got.Published != 0 || len(f.stored) != 0 {
			t.Errorf("%+v, %v; %d are published", got, err, len(f.stored))
		}
		f.checkKept(t, 3000)
	}
}

// The older collector's batch is published again when its requests are lost.
func TestSubmitToAnOldCollector(t *testing.T) {
	t.Parallel()
	f := &fakeFleet{old: true}
	for range 2 {
		f.stored = nil
		if _, err := Submit(t.Context(), f, f, submission(3000, 3000)); err != nil || len(f.stored) != 3000 {
			t.Fatalf("%v: %d are published", err, len(f.stored))
		}
	}
}

// Long requests are kept in smaller pieces.
func TestKeepLongRequests(t *testing.T) {
	t.Parallel()
	f := &fakeFleet{}
	s := submission(3000, 3000)
	noise := func() string {
		var b strings.Builder
		for range 50 {
			_, _ = fmt.Fprintf(&b, "%016x", rand.Uint64())
		}
		return b.String()
	}
	long := make([]map[string]string, 3000)
	for i := range long {
		long[i] = map[string]string{"noise": noise()}
	}
	all := s.Items
	s.Items = func(yield func(schemas.Request, error) bool) {
		for r, err := range all {
			r.Labels = long[r.Index]
			if !yield(r, err) {
				return
			}
		}
	}
	if _, err := Submit(t.Context(), f, f, s); err != nil {
		t.Fatal(err)
	}
	f.checkKept(t, 3000)
	for _, k := range f.chunks {
		if len(k.Body) > maxBody {
			t.Errorf("items %d to %d are kept in %d bytes", k.First, k.Last, len(k.Body))
		}
	}
}

// discard keeps nothing, and counts what it would.
type discard struct {
	Control
	bytes int
}

func (d *discard) Kept(context.Context, string) (int64, error) { return 0, nil }

func (d *discard) Keep(_ context.Context, k schemas.Kept) error {
	d.bytes += len(k.Body)
	return nil
}

// BenchmarkKeep is what keeping costs the producer, without the ledger.
func BenchmarkKeep(b *testing.B) {
	items := slices.Collect(usualItems(100_000))
	for b.Loop() {
		d := &discard{}
		k, err := newKeeper(b.Context(), d, schemas.Batch{ID: "b"})
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range items {
			if err := k.add(b.Context(), &r); err != nil {
				b.Fatal(err)
			}
		}
		if err := k.flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(d.bytes)/100_000, "bytes/item")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/item")
}

// usualItems are requests as they are in manifests of source trees.
func usualItems(n int64) iter.Seq[schemas.Request] {
	r := rand.New(rand.NewPCG(1, 2))
	return func(yield func(schemas.Request) bool) {
		for i := range n {
			q := schemas.Request{
				Index: i, Actor: "ops@example.org",
				Tombstone: fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Int64N(1<<48)),
				Output:    fmt.Sprintf("src/module-%d/pkg/component_%d/file_%d.go", i/1000, i/20, i),
			}
			if !yield(q) {
				return
			}
		}
	}
}
