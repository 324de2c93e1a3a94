package worker

import (
	"context"
	"sync"

	"github.com/exhume/exhume/schemas"
)

// pullers runs one goroutine for each active batch.
type pullers struct {
	run    func(context.Context, schemas.Batch)
	wg     sync.WaitGroup
	active map[string]puller
}

type puller struct {
	settings schemas.Settings
	stop     context.CancelFunc
}

// show starts a batch's goroutine, or starts it anew when its settings changed.
func (p *pullers) show(ctx context.Context, b schemas.Batch) {
	if old, ok := p.active[b.ID]; ok {
		if old.settings == b.Settings {
			return
		}
		old.stop()
	}
	ctx, stop := context.WithCancel(ctx)
	p.active[b.ID] = puller{b.Settings, stop}
	p.wg.Go(func() { p.run(ctx, b) })
}

// hide stops a batch's goroutine.
func (p *pullers) hide(id string) {
	if old, ok := p.active[id]; ok {
		old.stop()
		delete(p.active, id)
	}
}

// wait stops all and waits for them.
func (p *pullers) wait() {
	for id := range p.active {
		p.hide(id)
	}
	p.wg.Wait()
}
