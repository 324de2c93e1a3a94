package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/sony/gobreaker/v2"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const (
	// openFor is how long the breaker stays open before one probe may pass.
	openFor = 2 * time.Second
	// probeTimeout bounds a probe.
	probeTimeout = 5 * time.Second
)

// guard stands between the worker and what it works on: the archive, and
// destinations on servers. When one of them is away it holds the group until it is
// back, which costs no attempt. Only the archive can be probed; a destination is
// tried.
type guard struct {
	ping    func(context.Context) error
	timeout time.Duration
	breaker *gobreaker.CircuitBreaker[[]schemas.Result]

	mu     sync.Mutex
	since  time.Time // when it was closed, or ceased to be
	opened time.Time
	reason string // why it is not closed
}

func newGuard(cfg Config, log zerolog.Logger) *guard {
	g := &guard{ping: cfg.Ping, timeout: cfg.Timeout, since: time.Now()}
	g.breaker = gobreaker.NewCircuitBreaker[[]schemas.Result](gobreaker.Settings{
		MaxRequests:  1,
		BucketPeriod: time.Second,
		Interval:     10 * time.Second,
		Timeout:      openFor,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 1 },
		IsSuccessful: func(err error) bool { return !isDown(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			log.Warn().Stringer("from", from).Stringer("to", to).Msg("breaker in front of archive and destinations")
			g.changed(from, to)
			cfg.Observer.Breaker(to.String())
		},
	})
	return g
}

func (g *guard) changed(from, to gobreaker.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if from == gobreaker.StateClosed || to == gobreaker.StateClosed {
		g.since = now
	}
	if to == gobreaker.StateOpen {
		g.opened = now
	}
}

// execute does something that the breaker allows, and remembers why it opens.
func (g *guard) execute(do func() ([]schemas.Result, error)) ([]schemas.Result, error) {
	return g.breaker.Execute(func() ([]schemas.Result, error) {
		done, err := do()
		if isDown(err) {
			g.mu.Lock()
			g.reason = oneLine(err.Error())
			g.mu.Unlock()
		}
		return done, err
	})
}

// status tells how the breaker stands: half-open counts as open for the time
// since when it does.
func (g *guard) status() schemas.BreakerStatus {
	state := g.breaker.State() // it may change by that
	g.mu.Lock()
	defer g.mu.Unlock()
	s := schemas.BreakerStatus{State: state.String(), Since: g.since.UTC()}
	if state != gobreaker.StateClosed {
		s.Reason = g.reason
	}
	if state == gobreaker.StateOpen {
		s.NextProbe = g.opened.Add(openFor).UTC()
	}
	return s
}

// restore has a group restored within ctx. While what it needs is away it waits, but
// only until stop ends. An error of the archive that is not about the group as a
// whole is narrowed down to the items that cause it, and so is a group that does
// not end in time. The error is that of one of the contexts.
func (g *guard) restore(ctx, stop context.Context, r Restorer, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	if len(items) == 0 {
		return nil, nil
	}
	for {
		if g.breaker.State() != gobreaker.StateClosed {
			if err := g.await(stop); err != nil {
				return nil, err
			}
		}
		done, err := g.try(ctx, r, s, items)
		switch {
		case err == nil:
			return done, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case isDown(err) || isHeld(err):
			continue
		case errors.Is(err, errTimeout):
			// The group, or an archive that says nothing at all.
			if err := g.await(stop); err != nil {
				return nil, err
			}
		}
		if len(items) == 1 {
			return []schemas.Result{failure(items[0], err)}, nil
		}
		head, err := g.restore(ctx, stop, r, s, items[:len(items)/2])
		if err != nil {
			return nil, err
		}
		tail, err := g.restore(ctx, stop, r, s, items[len(items)/2:])
		return append(head, tail...), err
	}
}

// errTimeout says that a try took longer than it may.
var errTimeout = fault.New(schemas.CodeArchiveError, "not done in the time that one try may take")

// try restores a group once, in a bounded time.
func (g *guard) try(ctx context.Context, r Restorer, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	return g.execute(func() ([]schemas.Result, error) {
		ctx, cancel := context.WithTimeout(ctx, g.timeout)
		defer cancel()
		done, err := r.Restore(ctx, s, items)
		switch {
		case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil, errTimeout
		case err == nil && len(done) != len(items):
			return nil, fault.New(schemas.CodeInternal, "%d results for %d items", len(done), len(items))
		}
		return done, err
	})
}

// await returns nil when the archive answers, or the context's error.
func (g *guard) await(ctx context.Context) error {
	for {
		_, err := g.execute(func() ([]schemas.Result, error) {
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			if err := g.ping(ctx); err != nil {
				return nil, fault.New(schemas.CodeArchiveDown, "probe: %w", err)
			}
			return nil, nil
		})
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		pause(ctx, openFor/4)
	}
}

// failure is the result of an item that err has ended.
func failure(r schemas.Request, err error) schemas.Result {
	return schemas.Result{Request: r, Outcome: schemas.OutcomeFailed, Code: fault.CodeOf(err), Detail: err.Error()}
}

func isDown(err error) bool {
	return err != nil && fault.CodeOf(err).Class() == schemas.ClassBackendDown
}

func isHeld(err error) bool {
	return errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests)
}
