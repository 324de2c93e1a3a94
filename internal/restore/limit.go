package restore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// DefaultItemTimeout bounds what is done for one item unless told otherwise.
const DefaultItemTimeout = 10 * time.Minute

// patience is how long a call is waited for after its context has ended. One that
// can end has ended by then; others are held by the kernel, as everything is that
// touches a dead network file system.
const patience = time.Second

// limited calls f and gives up on it after the limit: the error then has
// CodeItemTimeout and says what f was doing. f must obey its context. Should the
// kernel hold it all the same, f is left behind: it keeps a thread, and what it was
// lent (see loan), until the kernel lets go, and keeps nobody waiting.
//
// What f returns is all that it may change, for it may go on when limited has
// returned.
func limited[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error), doing func() string) (T, error) {
	type answer struct {
		value T
		err   error
	}
	inTime, cancel := context.WithTimeout(ctx, limit)
	answers := make(chan answer, 1)
	go func() {
		defer cancel()
		value, err := f(inTime)
		answers <- answer{value, err}
	}()
	var a answer
	select {
	case a = <-answers:
	case <-inTime.Done():
		select {
		case a = <-answers:
		case <-time.After(patience):
			a.err = inTime.Err()
		}
	}
	if isContextError(a.err) && errors.Is(inTime.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		a.err = fault.New(schemas.CodeItemTimeout, "given up after %v: %s", limit, doing())
	}
	return a.value, a.err
}

// loan is memory that several use, which is given back when the last of them does
// not need it any more.
type loan struct {
	users atomic.Int64
	back  func()
}

// lend makes a loan with one user.
func lend(back func()) *loan {
	l := &loan{back: back}
	l.users.Store(1)
	return l
}

// share adds a user.
func (l *loan) share() { l.users.Add(1) }

// release ends the use of one of the users.
func (l *loan) release() {
	if l.users.Add(-1) == 0 {
		l.back()
	}
}
