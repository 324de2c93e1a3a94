package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/exhume/exhume/schemas"
)

// Some item may kill every worker that tries it, by the memory it takes, say. All
// that is seen of that is that its message comes again and again, and so do those
// of all items that were in the same hands. Workers that are killed from outside
// leave the same trace, and so do messages that are given back. So an item whose
// message has come too often is only a suspect. It is tried alone, with nothing
// beside it in its worker, and with a mark at its record that is removed when the
// worker has survived. That shuts out that it pays for another item, and leaves
// that the worker is killed from outside in the moment of the try. Twice in a row
// that does not happen, because whatever is marked is not tried by a worker that
// has not been left alone for a while.
const (
	// maxDeliveries is how often a message may come before its items are suspects;
	// deliveries that an item's failed attempts explain do not count.
	maxDeliveries = 2
	// maxDeaths is how many workers may die of an item.
	maxDeaths = 2
	// calm is how long a worker must have lived to try what is marked.
	calm = 10 * time.Second
	// everything is the whole of Worker.turns.
	everything = 1 << 30
)

// suspect says whether workers may have died of the item.
func (h *held) suspect() bool {
	n := h.of.Deliveries()
	if h.past != nil && h.of.items == 1 {
		n -= h.past.Attempts
	}
	return n > maxDeliveries
}

// deaths is how many workers died while they tried the item alone.
func (h *held) deaths() int {
	if h.past == nil {
		return 0
	}
	return deaths(*h.past)
}

// deaths is how many an item's record tells of. Records of earlier versions have
// CodeWorkerKiller among the causes instead, once for each.
func deaths(r schemas.Retry) int {
	n := r.Deaths
	for _, c := range r.Causes {
		if c == schemas.CodeWorkerKiller {
			n++
		}
	}
	return n
}

// marked is an item's record with one death more.
func marked(r schemas.Retry) schemas.Retry {
	n := deaths(r) + 1
	r = cleared(r)
	r.Deaths = n
	return r
}

// cleared is an item's record without deaths.
func cleared(r schemas.Retry) schemas.Retry {
	r.Deaths = 0
	r.Causes = slices.DeleteFunc(slices.Clone(r.Causes), func(c schemas.Code) bool { return c == schemas.CodeWorkerKiller })
	return r
}

// together tries items beside those of other groups.
type together struct{ *Worker }

func (t together) Restore(ctx context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	if err := t.turns.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer t.turns.Release(1)
	return t.restorer.Restore(ctx, s, items)
}

// alone tries items one by one, with nothing beside them.
type alone struct {
	*Worker
	stop context.Context

	mu   sync.Mutex              // a try that was left behind may still go on
	past map[int64]schemas.Retry // by index
}

func newAlone(stop context.Context, w *Worker, items []held) *alone {
	a := &alone{Worker: w, stop: stop, past: make(map[int64]schemas.Retry, len(items))}
	for i := range items {
		if r := items[i].past; r != nil {
			a.past[items[i].request.Index] = *r
		}
	}
	return a
}

func (a *alone) Restore(ctx context.Context, s schemas.Settings, items []schemas.Request) (done []schemas.Result, err error) {
	if err := a.turns.Acquire(ctx, everything); err != nil {
		return nil, err
	}
	defer a.turns.Release(everything)
	for i := range items {
		one, err := a.one(ctx, s, items[i:i+1])
		if err != nil {
			return nil, err
		}
		done = append(done, one...)
	}
	return done, nil
}

// one tries an item. The error is errBack when its mark could not be set or removed
// before the worker was told to stop.
func (a *alone) one(ctx context.Context, s schemas.Settings, item []schemas.Request) ([]schemas.Result, error) {
	batch, index := item[0].Batch, item[0].Index
	a.mu.Lock()
	past := a.past[index]
	a.past[index] = cleared(past)
	a.mu.Unlock()
	note := func(ctx context.Context, what string, r schemas.Retry) error {
		if a.insist(ctx, a.stop, what, func() error { return a.retries.SetRetry(ctx, batch, index, r) }) != nil {
			return errBack
		}
		return nil
	}
	if err := note(ctx, "mark a suspect", marked(past)); err != nil {
		return nil, err
	}
	done, err := a.restorer.Restore(ctx, s, item)
	// The worker has survived, however it ended.
	if err := note(context.WithoutCancel(ctx), "remove the mark of a suspect", cleared(past)); err != nil {
		return nil, err
	}
	return done, err
}
