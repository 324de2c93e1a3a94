package worker

import (
	"context"
	"sync"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// watchAfter is how long a try may last before it is looked whether those are there
// that it works with, and how long until that is done again.
const watchAfter = 15 * time.Second

// try restores items once. However long that takes, it goes on as long as archive
// and destination answer. One that is silent counts as away: the try is ended, and
// the error is the probe's.
func (g *guard) try(ctx context.Context, r Restorer, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	trying, cancel := context.WithCancelCause(ctx)
	var looking sync.WaitGroup
	defer looking.Wait() // so that it begins no probe after the guard's end
	defer cancel(nil)
	type outcome struct {
		done []schemas.Result
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		done, err := r.Restore(trying, s, items)
		ended <- outcome{done, err}
	}()
	watch := time.NewTimer(watchAfter)
	defer watch.Stop()
	looked := make(chan error, 1)
	told, late := ctx.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case o := <-ended:
			switch cause := context.Cause(trying); {
			case ctx.Err() == nil && cause != nil:
				return nil, cause // whatever it came to; what was restored is found the next time
			case o.err == nil && len(o.done) != len(items):
				return nil, fault.New(schemas.CodeInternal, "%d results for %d items", len(o.done), len(items))
			default:
				return o.done, o.err
			}
		case <-watch.C:
			looking.Go(func() { looked <- g.look(trying, s.Root) })
		case err := <-looked:
			if err == nil {
				watch.Reset(watchAfter)
				continue
			}
			cancel(err)
			told, late = nil, time.After(patience)
		case <-told:
			told, late = nil, time.After(patience)
		case <-late:
			g.log.Warn().Str("root", s.Root).Int("items", len(items)).Msg("a try does not end though it was told to; leaving it behind")
			return nil, context.Cause(trying)
		}
	}
}

// look says which of those is away that a try below the root works with, nil when
// all answer. That this worker cannot write shows in the try itself.
func (g *guard) look(ctx context.Context, root string) error {
	g.mu.Lock()
	needs := g.needs(root)
	g.mu.Unlock()
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan error, len(needs))
	for _, b := range needs {
		asking.Go(func() { found <- g.ask(ctx, b, b.beside) })
	}
	for range needs {
		if err := <-found; isDown(err) {
			return err
		}
	}
	return nil
}
