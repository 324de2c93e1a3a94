package worker

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/exhume/exhume/schemas"
)

// mostInHand is how many messages in hand a status names.
const mostInHand = 10_000

// hand holds messages of one batch that are worked on together.
type hand struct {
	batch string
	since time.Time
	slot  *slot
	// work and stop are the worker's, but end when the batch is aborted, too.
	work, stop context.Context
	giveUp     func()

	msgs []Message // changed and, by others than who holds them, read under hands.mu
	// attempts are the numbers of the attempts that are not the first.
	attempts map[Message]int
}

// hands are all messages in hand.
type hands struct {
	mu  sync.Mutex
	all map[*hand]bool
}

// open makes a hand, which is empty yet.
func (hs *hands) open(work, stop context.Context, batch string) *hand {
	h := &hand{batch: batch}
	work, cancelWork := context.WithCancel(work)
	stop, cancelStop := context.WithCancel(stop)
	h.work, h.stop, h.giveUp = work, stop, func() { cancelWork(); cancelStop() }
	return h
}

// add puts messages into a hand.
func (hs *hands) add(h *hand, msgs []Message) {
	if len(msgs) == 0 {
		return
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if len(h.msgs) == 0 {
		h.since = time.Now()
		hs.all[h] = true
	}
	h.msgs = append(h.msgs, msgs...)
}

// tried notes the number of the attempt at a message's item.
func (hs *hands) tried(h *hand, m Message, attempt int) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if h.attempts == nil {
		h.attempts = map[Message]int{}
	}
	h.attempts[m] = attempt
}

func (hs *hands) close(h *hand) {
	hs.mu.Lock()
	delete(hs.all, h)
	hs.mu.Unlock()
	h.giveUp() // frees its contexts
}

// abort gives up what is in hand of a batch.
func (hs *hands) abort(batch string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for h := range hs.all {
		if h.batch == batch {
			h.giveUp()
		}
	}
}

// list counts the items in hand, and lists the messages with those of a batch, or
// of all, oldest first.
func (hs *hands) list(batch string) (items int64, list []schemas.InHand) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for h := range hs.all {
		items += int64(itemsIn(h.msgs))
		if batch != "" && batch != h.batch {
			continue
		}
		for _, m := range h.msgs {
			first, last, ok := m.Indexes()
			if h.batch == schemas.Single {
				_, first = m.Single()
				last, ok = first, true
			}
			if ok {
				list = append(list, schemas.InHand{
					Batch: h.batch, First: first, Last: last, Since: h.since.UTC(), Attempt: cmp.Or(h.attempts[m], 1),
				})
			}
		}
	}
	slices.SortFunc(list, func(a, b schemas.InHand) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Batch, b.Batch), cmp.Compare(a.First, b.First))
	})
	return items, list[:min(len(list), mostInHand)]
}
