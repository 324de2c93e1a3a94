package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const (
	// openFor is about how long an open breaker waits for its next probe: jittered,
	// so that a fleet does not ask at the same time.
	openFor = 2 * time.Second
	// sickFor is the same where this worker cannot write: a disk is emptied by
	// people.
	sickFor = 10 * time.Second
	// probeTimeout bounds a probe. What has not answered by then is away.
	probeTimeout = 5 * time.Second
	// besideTimeout is the same for a destination while items are tried there: the
	// probe waits for its disk behind all that they write, which may itself be what
	// is slow. The archive answers on a connection of its own.
	besideTimeout = time.Minute
	// mostEvents is how many events wait for somebody to be told. More are dropped.
	mostEvents = 64
)

// Prober looks whether what a worker works on is there. Its methods return soon
// when the context ends. An error says that work would be in vain when its class
// is backend-down or worker-sick, or when the context's deadline caused it; with
// any other error whoever was asked has answered, and it is for the items to fail.
type Prober interface {
	// Archive probes the archive.
	Archive(ctx context.Context) error
	// Destination probes the destination with this root.
	Destination(ctx context.Context, root string) error
}

// unprobed is a Prober that does not look: work is tried instead.
type unprobed struct{}

func (unprobed) Archive(context.Context) error             { return nil }
func (unprobed) Destination(context.Context, string) error { return nil }

// breaker stands before one thing that is worked on. The guard's lock guards what
// changes.
type breaker struct {
	of string
	// down is the code of an error that there is no answer.
	down schemas.Code
	// machine knows whether work may go on. It half-opens only when it is asked, so
	// whoever probes asks it, and until then it counts as open.
	machine *gobreaker.TwoStepCircuitBreaker[struct{}]
	probe   probe
	// beside bounds a probe while items are tried.
	beside time.Duration

	term    int           // how often it has opened
	since   time.Time     // when it was closed, or ceased to be
	cause   error         // why it is not closed
	next    time.Time     // when it is probed next; zero while it is
	opened  chan struct{} // closed by its opening
	most    int           // how many items may be tried at a time; 0 for any number
	trying  int           // how many are that began in this term; older ones may go on for hours
	holding int           // how many groups wait for it without their room
}

// errCutOff is what a try ends with that says nothing about what it was at.
var errCutOff = errors.New("cut off")

func newBreaker(of string, down schemas.Code, beside time.Duration, ask func(context.Context) error) *breaker {
	return &breaker{
		of: of, down: down, beside: beside, since: time.Now(), opened: make(chan struct{}), probe: probe{ask: ask},
		machine: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			// No Interval: with one, what a try that has lasted longer comes to does
			// not count.
			MaxRequests: 1,
			Timeout:     openFor / 2, // the next probe comes later in any case
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 1 },
			IsExcluded:  func(err error) bool { return errors.Is(err, errCutOff) },
		}),
	}
}

func (b *breaker) closed() bool { return b.machine.State() == gobreaker.StateClosed }

// aside says that it is open because this worker alone cannot go on.
func (b *breaker) aside() bool { return !b.closed() && isSick(b.cause) }

// idle says that nothing would be lost with it.
func (b *breaker) idle() bool {
	return b.closed() && b.most == 0 && b.trying == 0 && b.holding == 0
}

// status tells how it stands.
func (b *breaker) status() schemas.BreakerStatus {
	s := schemas.BreakerStatus{Of: b.of, State: schemas.BreakerClosed, Since: b.since.UTC(), Most: b.most}
	if b.closed() {
		return s
	}
	s.State, s.Sick = schemas.BreakerOpen, b.aside()
	s.Code, s.Reason = fault.CodeOf(b.cause), oneLine(b.cause.Error())
	if b.next.IsZero() {
		s.State = schemas.BreakerHalfOpen
	} else {
		s.NextProbe = b.next.UTC()
	}
	return s
}

// judge is what an answer to a probe says: why work would be in vain, or nil.
func (b *breaker) judge(err error, within time.Duration) error {
	switch {
	case err == nil:
		return nil
	case isDown(err), isSick(err):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return b.silent(within)
	default:
		return nil
	}
}

func (b *breaker) silent(within time.Duration) error {
	return fault.New(b.down, "%s: no answer to a probe within %s", b.of, within)
}

// probe asks one thing whether it is there, never twice at a time.
type probe struct {
	ask func(context.Context) error

	mu    sync.Mutex
	asked *answer // nil when nobody waits for one
}

type answer struct {
	within time.Duration
	there  chan struct{}
	err    error
}

// begin gives the question that is under way, or asks a new one in a goroutine of
// its own, within ctx and that time.
func (p *probe) begin(ctx context.Context, within time.Duration, goroutines *sync.WaitGroup) *answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != nil {
		return p.asked
	}
	a := &answer{within: within, there: make(chan struct{})}
	p.asked = a
	goroutines.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		a.err = p.ask(ctx)
		p.mu.Lock()
		p.asked = nil
		p.mu.Unlock()
		close(a.there)
	})
	return a
}

// jittered is about as long as d: from three to five quarters.
func jittered(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) } //nolint:gosec // spreads load, guards nothing

func isDown(err error) bool { return isOf(err, schemas.ClassBackendDown) }

func isSick(err error) bool { return isOf(err, schemas.ClassWorkerSick) }

func isOf(err error, c schemas.Class) bool { return err != nil && fault.CodeOf(err).Class() == c }
