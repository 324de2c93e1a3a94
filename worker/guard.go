package worker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const (
	// slowStart is the share of a whole group that is tried first after an outage.
	slowStart = 8
	// manyBreakers is from how many destinations on those are forgotten that
	// nothing is known of.
	manyBreakers = 64
	// patience is how long a try that is told to end, or a probe, may take to do
	// so. Then it is left behind: what hangs in the kernel cannot be ended.
	patience = 10 * time.Second
)

// guard stands between the worker and what it works on, with a breaker for the
// archive and one for each destination. While one of them is open nobody takes
// anything for it, and what is in hand is held, which costs no attempt; where it is
// this worker that cannot write, what is in hand goes back. One goroutine for each
// open breaker looks whether it can close, and all others wait for its news.
type guard struct {
	prober Prober
	log    zerolog.Logger
	// size is what a whole group is, and all what that makes for all groups that
	// are tried at a time.
	size, all int
	// observe is told of each change of a breaker.
	observe func(schemas.BreakerStatus)
	// events are for who is told when a breaker turns, nil when nobody is. He may
	// hang, as a broker does, which holds nobody else up.
	events chan schemas.WorkerEvent
	name   string

	// life ends with the guard, and goroutines are those that it has.
	life       context.Context
	end        context.CancelFunc
	goroutines sync.WaitGroup

	mu           sync.Mutex
	news         chan struct{} // closed when a breaker has changed
	archive      *breaker
	destinations map[string]*breaker // by root
}

func newGuard(cfg Config, log zerolog.Logger) *guard {
	g := &guard{
		prober: cfg.Prober, log: log, size: cfg.GroupSize, all: cfg.GroupSize * cfg.Groups,
		observe: cfg.Observer.Breaker, name: cfg.Name, news: make(chan struct{}),
		archive:      newBreaker(schemas.BreakerArchive, schemas.CodeArchiveDown, probeTimeout, cfg.Prober.Archive),
		destinations: map[string]*breaker{},
	}
	g.life, g.end = context.WithCancel(context.Background())
	if cfg.Tell != nil {
		g.events = make(chan schemas.WorkerEvent, mostEvents)
	}
	return g
}

// start begins to tell of events; who does that closes the guard, too.
func (g *guard) start(tell func(schemas.WorkerEvent)) {
	if tell != nil {
		g.goroutines.Go(func() { g.report(tell) })
	}
}

// report tells of events, one after the other, as long as the guard lives.
func (g *guard) report(tell func(schemas.WorkerEvent)) {
	for {
		select {
		case e := <-g.events:
			tell(e)
		case <-g.life.Done():
			return
		}
	}
}

// close ends the guard's goroutines, and leaves one behind that does not end.
func (g *guard) close() {
	g.end()
	ended := make(chan struct{})
	go func() { g.goroutines.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		g.log.Warn().Msg("a probe, or telling the broker of a breaker, does not end; leaving it behind")
	}
}

// destination gives the breaker of a root. The caller holds the lock.
func (g *guard) destination(root string) *breaker {
	b := g.destinations[root]
	if b == nil {
		if len(g.destinations) >= manyBreakers {
			maps.DeleteFunc(g.destinations, func(_ string, b *breaker) bool { return b.idle() })
		}
		b = newBreaker(root, schemas.CodeDestinationDown, besideTimeout, func(ctx context.Context) error { return g.prober.Destination(ctx, root) })
		g.destinations[root] = b
	}
	return b
}

// needs are the breakers that must be closed to work below a root. The caller holds
// the lock.
func (g *guard) needs(root string) [2]*breaker { return [2]*breaker{g.archive, g.destination(root)} }

// tell wakes all who wait for a breaker to change. The caller holds the lock.
func (g *guard) tell() {
	close(g.news)
	g.news = make(chan struct{})
}

// status tells how the breakers stand, the archive's first.
func (g *guard) status() []schemas.BreakerStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := []schemas.BreakerStatus{g.archive.status()}
	for _, root := range slices.Sorted(maps.Keys(g.destinations)) {
		all = append(all, g.destinations[root].status())
	}
	return all
}

// closed says whether work below a root may go on, and which channel is closed when
// it may not any more.
func (g *guard) closed(root string) (ok bool, opened [2]chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ok = true
	for i, b := range g.needs(root) {
		ok, opened[i] = ok && b.closed(), b.opened
	}
	return ok, opened
}

// await returns nil when items of a root may be taken, or the context's error: when
// the breakers are closed, and all that was held before them goes on.
func (g *guard) await(ctx context.Context, root string) error {
	return g.until(ctx, func() bool {
		for _, b := range g.needs(root) {
			if !b.closed() {
				return false
			}
		}
		return g.destination(root).holding == 0
	})
}

// until waits until something is so, which is asked with the lock held, or for the
// end of the context.
func (g *guard) until(ctx context.Context, so func() bool) error {
	for {
		g.mu.Lock()
		yes, news := so(), g.news
		g.mu.Unlock()
		if yes {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		}
	}
}

// restore has a group restored below the root of s. While what it needs is away it
// is held, but only until the hand's stop ends; when this worker cannot write there
// the items fail with that, whether they were tried or not. An error that is not
// about the group as a whole is narrowed down to the items that cause it, by halving.
// Where that is a timeout patience has an end: as many as it takes to find one item
// are waited for, then all that was tried and is left fails with it. The error is that of one of
// the hand's contexts, or errBack.
func (g *guard) restore(h *hand, r Restorer, s schemas.Settings, items []schemas.Request) (done []schemas.Result, err error) {
	ends := []int{len(items)} // of the parts to be tried, that of the next one last
	timeouts, tried := 0, 0
	for len(done) < len(items) {
		from, to := len(done), ends[len(ends)-1]
		if from == to {
			ends = ends[:len(ends)-1]
			continue
		}
		p, err := g.enter(h, s.Root, to-from)
		if isSick(err) {
			return append(done, failures(items[from:], err)...), nil
		}
		if err != nil {
			return nil, err
		}
		part := items[from : from+p.items]
		tried = max(tried, from+len(part))
		got, err := g.try(h.work, r, s, part)
		if err == nil || fault.Is(err, schemas.CodeItemTimeout) {
			err = cmp.Or(g.failing(h.work, p, got, err), err)
		}
		g.leave(h.work, p, got, err)
		if fault.Is(err, schemas.CodeItemTimeout) {
			timeouts++
		}
		switch {
		case err == nil:
		case h.work.Err() != nil:
			return nil, h.work.Err()
		case errors.Is(err, errBack):
			return nil, err
		case isDown(err):
			continue
		case timeouts > bits.Len(uint(len(items))):
			got, ends = failures(items[from:tried], err), ends[:1]
		case len(part) == 1 || isSick(err):
			got = failures(part, err)
		default:
			ends = append(ends, from+len(part), from+len(part)/2)
			continue
		}
		if done == nil {
			done = got // mostly all of them
		} else {
			done = append(done, got...)
		}
	}
	return done, nil
}

// failing asks what items were tried at, when some of them failed with what may pass,
// or took too long, whether it fails for everybody: then it is as good as away, which is
// no item's fault. The error says that it is.
func (g *guard) failing(ctx context.Context, p *pass, results []schemas.Result, of error) error {
	failed := func(code schemas.Code) bool {
		return fault.Is(of, code) || slices.ContainsFunc(results, func(r schemas.Result) bool { return r.Code == code })
	}
	late := failed(schemas.CodeItemTimeout)
	for i, code := range [2]schemas.Code{schemas.CodeArchiveError, schemas.CodeDestinationBusy} {
		if !late && !failed(code) {
			continue
		}
		if err := g.ask(ctx, p.needs[i], p.needs[i].beside); isDown(err) {
			return err
		}
	}
	return nil
}

// errBack says that a group cannot be tried now and is to be given back.
var errBack = errors.New("to be given back")

// pass lets so many items through the breakers of a root.
type pass struct {
	items  int
	needs  [2]*breaker
	terms  [2]int // of the breakers
	report [2]func(error)
}

// enter lets up to n items through as soon as it may. While a breaker is open the
// group has no room, so that others can go on that do not need what is away. The
// error is that of the hand's stop, or says that this worker cannot write there.
func (g *guard) enter(h *hand, root string, n int) (*pass, error) {
	for {
		p, news, err := g.admit(root, n)
		if p != nil || err != nil {
			return p, err
		}
		if ok, _ := g.closed(root); !ok {
			if err := g.hold(h, root); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-h.stop.Done():
			return nil, h.stop.Err()
		case <-news:
		}
	}
}

// admit lets items through that may be tried now; none when they must wait for
// news.
func (g *guard) admit(root string, n int) (*pass, <-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &pass{items: n, needs: g.needs(root)}
	for _, b := range p.needs {
		if b.aside() {
			return nil, nil, b.cause
		}
		if !b.closed() {
			p.items = 0
		} else if b.most > 0 {
			p.items = min(p.items, b.most-b.trying)
		}
	}
	if p.items <= 0 {
		return nil, g.news, nil
	}
	for i, b := range p.needs {
		p.report[i], _ = b.machine.Allow() // it is closed
		p.terms[i] = b.term
		b.trying += p.items
	}
	return p, nil, nil
}

// hold waits without the hand's room until the breakers of a root are closed, or
// until it is known that this worker cannot write there.
func (g *guard) hold(h *hand, root string) error {
	count := func(n int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.destination(root).holding += n
		g.tell()
	}
	count(1)
	defer count(-1)
	h.slot.lend()
	aside := false
	err := g.until(h.stop, func() bool {
		closed := true
		for _, b := range g.needs(root) {
			closed, aside = closed && b.closed(), aside || b.aside()
		}
		return closed || aside
	})
	if err != nil || aside {
		return err
	}
	return h.slot.takeBack(h.stop)
}

// leave says what became of a try, which ctx bounded. An error is charged to the
// archive or to the destination, by its code.
func (g *guard) leave(ctx context.Context, p *pass, results []schemas.Result, err error) {
	var charged [2]error
	switch {
	case ctx.Err() != nil || errors.Is(err, errBack):
		charged = [2]error{errCutOff, errCutOff}
	case fault.Is(err, schemas.CodeDestinationDown), isSick(err):
		charged[1] = err
	case isDown(err):
		charged[0] = err
	default:
		charged[1] = sickness(results)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, b := range p.needs {
		current := p.terms[i] == b.term
		if current {
			b.trying -= p.items
		}
		was := b.closed()
		p.report[i](charged[i])
		switch {
		case was && !b.closed():
			g.opened(b, charged[i])
		case current && b.most > 0 && err == nil && charged[i] == nil:
			if b.most *= 2; b.most >= g.all {
				b.most = 0
			}
			g.changed(b)
		}
	}
	g.tell()
}

// sickness is the first error of results that says that this worker cannot write.
func sickness(results []schemas.Result) error {
	for i := range results {
		if r := &results[i]; r.Code.Class() == schemas.ClassWorkerSick {
			return fault.New(r.Code, "%s", r.Detail)
		}
	}
	return nil
}

// opened is called when a breaker has opened, with the lock held.
func (g *guard) opened(b *breaker, cause error) {
	b.since, b.cause, b.most = time.Now(), cause, 0
	b.term, b.trying = b.term+1, 0
	g.schedule(b)
	close(b.opened)
	g.turn(b)
	g.goroutines.Go(func() { g.heal(b) })
}

// schedule says when an open breaker is probed next. The caller holds the lock.
func (g *guard) schedule(b *breaker) {
	wait := openFor
	if b.aside() {
		wait = sickFor
	}
	b.next = time.Now().Add(jittered(wait))
}

// heal probes what an open breaker stands before until it can close, which it does
// a moment later, so that a fleet does not begin again all at once.
func (g *guard) heal(b *breaker) {
	for within := probeTimeout; ; {
		g.mu.Lock()
		next := b.next
		g.mu.Unlock()
		if pause(g.life, time.Until(next)); g.life.Err() != nil {
			return
		}
		g.mu.Lock()
		report, _ := b.machine.Allow() // it is half-open by now, and nobody else asks
		b.next = time.Time{}
		g.changed(b)
		g.mu.Unlock()
		err := g.ask(g.life, b, within)
		within = min(2*within, b.beside) // it may be slow and not away
		if err == nil {
			pause(g.life, rand.N(openFor/2)) //nolint:gosec // spreads load, guards nothing
		}
		if g.life.Err() != nil {
			return
		}
		if g.recovered(b, report, err) {
			return
		}
	}
}

// recovered says what a probe of an open breaker has shown, and whether that has
// closed it.
func (g *guard) recovered(b *breaker, report func(error), err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.tell()
	report(err)
	if err != nil {
		turned := isSick(err) != isSick(b.cause)
		b.cause = err
		g.schedule(b)
		if turned {
			g.turn(b)
		} else {
			g.changed(b)
		}
		return false
	}
	b.since, b.cause, b.opened = time.Now(), nil, make(chan struct{})
	if b.most = max(1, g.size/slowStart); b.most >= g.all {
		b.most = 0
	}
	g.turn(b)
	return true
}

// changed has everybody told how a breaker stands now, turn that it opened or
// closed, or that it is another kind of trouble now. The caller holds the lock.
func (g *guard) changed(b *breaker) { g.observe(b.status()) }

func (g *guard) turn(b *breaker) {
	s := b.status()
	switch log := g.log.With().Str("of", s.Of).Logger(); {
	case s.State == schemas.BreakerClosed:
		log.Info().Msg("breaker closed; beginning again")
	case s.Sick:
		log.Error().Err(b.cause).Str("code", string(s.Code)).Msg("cannot write; stepping aside")
	default:
		log.Warn().Err(b.cause).Str("code", string(s.Code)).Msg("breaker open; holding what is in hand")
	}
	g.observe(s)
	select {
	case g.events <- schemas.WorkerEvent{Worker: g.name, At: time.Now().UTC(), Breaker: s}:
	default: // its status says it, too
	}
}

// ask probes what a breaker stands before, and says why work would be in vain; nil
// when it would not. What has not answered within that time is away.
func (g *guard) ask(ctx context.Context, b *breaker, within time.Duration) error {
	t := time.NewTimer(within)
	defer t.Stop()
	for {
		a := b.probe.begin(g.life, within, &g.goroutines)
		select {
		case <-a.there:
			if a.within < within && errors.Is(a.err, context.DeadlineExceeded) {
				continue // it was begun by somebody with less patience
			}
			return b.judge(a.err, within)
		case <-t.C:
			return b.silent(within)
		case <-ctx.Done():
			return nil
		}
	}
}

// failures are the results of items that err has ended.
func failures(items []schemas.Request, err error) []schemas.Result {
	results := make([]schemas.Result, len(items))
	for i := range items {
		results[i] = failure(items[i], err)
	}
	return results
}

// failure is the result of an item that err has ended.
func failure(r schemas.Request, err error) schemas.Result {
	return schemas.Result{Request: r, Outcome: schemas.OutcomeFailed, Code: fault.CodeOf(err), Detail: err.Error()}
}

// sick is why this worker has stepped aside from a destination, nil when it has
// not.
func (g *guard) sick() (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, root := range slices.Sorted(maps.Keys(g.destinations)) {
		if b := g.destinations[root]; b.aside() {
			err = cmp.Or(err, b.cause)
		}
	}
	return err
}
