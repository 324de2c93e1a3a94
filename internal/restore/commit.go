package restore

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// abortPatience is how long a group is waited for that drops what it has staged.
const abortPatience = 15 * time.Second

// abort drops what a group has staged. Should the kernel hold it, it is left behind.
func abort(g Group) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Abort()
	}()
	select {
	case <-done:
	case <-time.After(abortPatience):
	}
}

// commit commits the group. It gives up when nothing was settled for as long as an
// item may take: the items that were not settled have failed then, or, if that is
// all of them, the group has.
//
// An error may also say that the destination is away, or that the context has ended
// before everything was settled.
func (r *run) commit(ctx context.Context) (away error) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		slot int
		err  error
	}
	outcomes := make(chan outcome, len(r.done)) // room for all: a commit left behind ends by itself
	go func() {
		defer close(outcomes)
		r.group.Commit(within, func(slot int, err error) { outcomes <- outcome{slot, err} })
	}()

	settled := make([]bool, len(r.done))
	timer, over, ended := time.NewTimer(r.itemTimeout), false, ctx.Done()
	defer timer.Stop()
	for open := true; open; {
		var o outcome
		select {
		case o, open = <-outcomes:
			if !open || isContextError(o.err) {
				continue
			}
			settled[o.slot] = true
			if o.err != nil {
				away = cmp.Or(away, judge(&r.done[o.slot], o.err))
			}
			if !over {
				timer.Reset(r.itemTimeout)
			}
		case <-ended:
			over, ended = true, nil
			timer.Reset(patience)
		case <-timer.C:
			open = !over
			over = true
			cancel()
			timer.Reset(patience)
		}
	}
	return cmp.Or(away, r.unsettled(ctx, settled))
}

// unsettled judges the items that the group's commit has not settled.
func (r *run) unsettled(ctx context.Context, settled []bool) error {
	var left []int
	some := false
	for i := range r.done {
		some = some || settled[i]
		if !settled[i] && r.done[i].Outcome != schemas.OutcomeFailed {
			left = append(left, i)
		}
	}
	err := fault.New(schemas.CodeItemTimeout, "given up after %v: making %d items durable", r.itemTimeout, len(left))
	switch {
	case len(left) == 0:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !some:
		return err
	}
	return r.judge(left, err)
}

// isContextError says whether err is that of a context which has ended. What has a
// code is not, though it may have a network's timeout as its cause, which looks alike.
func isContextError(err error) bool {
	if _, coded := errors.AsType[*fault.Error](err); coded {
		return false
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
