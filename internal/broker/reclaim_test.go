package broker

import (
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

// A request that every process dies of comes with one delivery more at each start;
// what others do meanwhile, and a request that is done, begin anew.
func TestReclaimCountsStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := withBatch(t, dir, 20)
	for start := range 5 {
		got := take(t, b, 10, time.Minute)
		want := start + 1
		if start == 4 {
			want = 2 // of the one that was beside the first
		}
		if n := got[0].Deliveries(); n != want || indexes(t, got[:1])[0] != int64(start/4) {
			t.Errorf("start %d: item %d comes with %d deliveries, want %d", start, indexes(t, got[:1])[0], n, want)
		}
		if n := got[len(got)-1].Deliveries(); start == 0 && n != 1 {
			t.Errorf("start %d: the last one comes with %d deliveries", start, n)
		}
		if start == 3 {
			must(t, got[0].Ack())
		}
		if start > 0 && start < 3 {
			must(t, got[4].Ack()) // behind it
		}
		waitInHand(t, b, map[int]int{0: 10, 1: 9, 2: 9, 3: 9, 4: 10}[start])
		must(t, b.Close()) // with all that is in hand
		b = embed(t, dir)
		must(t, b.Reclaim(t.Context()))
	}
	info, err := b.js.Consumer(t.Context(), schemas.StreamRestore, "b")
	must(t, err)
	if info.CachedInfo().Config.Metadata[reclaimedKey] == "" {
		t.Error("nothing is written down")
	}
}
