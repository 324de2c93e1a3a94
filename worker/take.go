package worker

import (
	"context"
	"time"

	"github.com/exhume/exhume/schemas"
)

// idleWait is how long one request for messages waits at the broker.
const idleWait = 5 * time.Second

// pull takes groups of one batch, until ctx ends, and hands them on.
func (w *Worker) pull(ctx, work, stop context.Context, a *assignment) {
	for failures := 0; ctx.Err() == nil; {
		h, err := w.take(ctx, work, stop, a)
		if h != nil {
			w.inHand.Go(func() { w.work(work, stop, h, a.batch.Load()) })
		}
		if err == nil || ctx.Err() != nil {
			failures = 0
			continue
		}
		// Once is how a batch ends: its consumer goes, and then the news comes.
		if failures++; failures > 1 {
			w.log.Warn().Err(err).Str("batch", a.id).Msg("cannot take requests; trying again")
		}
		pause(ctx, time.Second)
	}
}

// take waits for a free slot and for messages. It is nil when there are none. What
// comes after ctx has ended is given back: the batch may be paused.
func (w *Worker) take(ctx, work, stop context.Context, a *assignment) (*hand, error) {
	h := w.hands.open(work, stop, a.id)
	err := w.gather(ctx, a, h)
	if len(h.msgs) > 0 && ctx.Err() == nil {
		h.slot.fit(itemsIn(h.msgs))
		return h, err
	}
	w.handBack(h.msgs)
	if h.slot != nil {
		h.slot.giveBack()
	}
	w.hands.close(h)
	return nil, err
}

// gather puts a slot and messages into an empty hand, or at least one of the two,
// or nothing when ctx ends.
func (w *Worker) gather(ctx context.Context, a *assignment, h *hand) error {
	root := a.batch.Load().Settings.Root
	if h.slot = w.room(ctx, a, root); h.slot == nil {
		return nil
	}
	if err := w.fill(ctx, h, root); len(h.msgs) > 0 || err != nil {
		return err
	}
	// Nothing there: wait for the first message without keeping a slot from
	// other batches.
	h.slot.giveBack()
	h.slot = nil
	first, err := w.first(ctx, h.batch, root)
	if len(first) == 0 {
		return err
	}
	w.hands.add(h, first)
	defer w.keepAlive(first)()
	if h.slot = w.slots.acquire(ctx, a.share, w.cfg.GroupSize); h.slot == nil {
		return nil
	}
	return w.fill(ctx, h, root)
}

// room waits for a slot, and until nothing keeps the worker from working below the
// root. It is nil when the context ends before.
func (w *Worker) room(ctx context.Context, a *assignment, root string) *slot {
	for {
		if w.guard.await(ctx, root) != nil {
			return nil
		}
		s := w.slots.acquire(ctx, a.share, w.cfg.GroupSize)
		if s == nil {
			return nil
		}
		if ok, _ := w.guard.closed(root); ok {
			return s
		}
		s.giveBack()
	}
}

// first waits for the first message of a batch, but not when a breaker opens.
func (w *Worker) first(ctx context.Context, batch, root string) ([]Message, error) {
	ok, opened := w.guard.closed(root)
	if !ok {
		return nil, nil
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-opened[0]:
		case <-opened[1]:
		case <-waiting.Done():
		}
		cancel()
	}()
	msgs, err := w.queue.Requests(waiting, batch, 1, idleWait)
	if waiting.Err() != nil {
		err = nil // it ended because it was told to
	}
	return msgs, err
}

// fill takes as many of the messages that are there as the slot has room for, as
// long as work below the root may go on. How many items are in a message shows only
// when it comes, so it is careful first.
func (w *Worker) fill(ctx context.Context, h *hand, root string) error {
	for items := itemsIn(h.msgs); items < h.slot.items; {
		if ok, _ := w.guard.closed(root); !ok {
			return nil
		}
		inMessage := schemas.MaxRequests
		if len(h.msgs) > 0 {
			inMessage = items / len(h.msgs)
		}
		n := max(1, (h.slot.items-items)/inMessage)
		more, err := w.queue.Requests(ctx, h.batch, n, 0)
		w.hands.add(h, more)
		if err != nil || len(more) < n {
			return err
		}
		items += itemsIn(more)
	}
	return nil
}
