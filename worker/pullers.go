package worker

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/exhume/exhume/schemas"
)

// assignment is an active batch, as this worker has last heard of it.
type assignment struct {
	id    string
	batch atomic.Pointer[schemas.Batch]
	share *share
	stop  context.CancelFunc // nil while nothing of it is taken
}

// pullers run one goroutine for each batch of which items are to be taken.
type pullers struct {
	run  func(context.Context, *assignment)
	mine func(*schemas.Batch) bool
	// abort gives up what is in hand of a batch.
	abort  func(batch string)
	slots  *slots
	limits *limits

	wg     sync.WaitGroup
	mu     sync.Mutex
	active map[string]*assignment
	// paused says that nothing is to be taken at all: as long as it is not known
	// what holds for the fleet, too.
	paused bool
}

// show has a batch worked on, or not, as its state wants it.
func (p *pullers) show(ctx context.Context, b schemas.Batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.active[b.ID]
	if a == nil {
		a = &assignment{id: b.ID, share: p.slots.join(b.Terms.Priority)}
		p.active[b.ID] = a
	}
	a.batch.Store(&b)
	p.slots.set(a.share, b.Terms.Priority, p.limits.on(b.ID))
	p.update(ctx, a)
	if b.Reason == schemas.ReasonAborting {
		p.abort(b.ID) // after update: of what is taken no more is to come
	}
}

// hide ends a batch.
func (p *pullers) hide(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.active[id]; a != nil && a.stop != nil {
		a.stop()
	}
	delete(p.active, id)
}

// forget ends all batches, until they are shown again. What is in hand goes on.
func (p *pullers) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.active {
		if a.stop != nil {
			a.stop()
		}
	}
	clear(p.active)
}

// steer does what holds for the whole fleet.
func (p *pullers) steer(ctx context.Context, s schemas.Steering) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = s.Pause != nil
	p.limits.set(s.Limits)
	for _, a := range p.active {
		p.slots.set(a.share, a.batch.Load().Terms.Priority, p.limits.on(a.id))
		p.update(ctx, a)
	}
}

// update starts or stops a batch's goroutine.
func (p *pullers) update(ctx context.Context, a *assignment) {
	switch wanted := !p.paused && p.mine(a.batch.Load()); {
	case wanted && a.stop == nil:
		ctx, a.stop = context.WithCancel(ctx)
		p.wg.Go(func() { p.run(ctx, a) })
	case !wanted && a.stop != nil:
		a.stop()
		a.stop = nil
	}
}

// wait waits for all to stop, which they do when the context of show has ended.
func (p *pullers) wait() {
	p.mu.Lock()
	for _, a := range p.active {
		if a.stop != nil {
			a.stop()
		}
	}
	p.mu.Unlock()
	p.wg.Wait()
}
