package webhook

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/schemas"
)

// Source keeps the events that are to be told.
type Source interface {
	// Untold lists up to limit events that are not told yet, oldest first, those
	// of one batch by their numbers.
	Untold(ctx context.Context, limit int) ([]schemas.BatchEvent, error)
	// Told notes that events were told, or given up. It can be repeated.
	Told(ctx context.Context, ids []string, at time.Time) error
	// Summary is how a batch stands; false if it is not known.
	Summary(ctx context.Context, id string) (schemas.Summary, bool, error)
}

const (
	// together is how many batches' events are sent at a time.
	together = 4
	// lookEvery is how long new events wait at most when nobody wakes the sender.
	lookEvery = 10 * time.Second
	// ahead is how many events one look takes besides those of batches that wait,
	// maxAhead how many in all. Events after that many waiting ones wait, too.
	ahead    = 250
	maxAhead = 2000
	// noteTimeout bounds noting what was told, also after the context's end.
	noteTimeout = 5 * time.Second
)

// Run tells the events of a source until the context ends, which is no error.
// Each is told at least once, and again, with the same id, if the process ended
// before that was noted. The events of one batch are told in order: while one is
// not accepted those after it wait, those of other batches don't. A receiver
// that answers 410 hears nothing more until the next Run.
//
// Run looks for events every 10 s, and when something comes from wake, which
// should be buffered: what comes during a look counts for the next. A source that
// fails is asked again.
func (s *Sender) Run(ctx context.Context, source Source, wake <-chan struct{}) error {
	defer s.client.CloseIdleConnections()
	t := &teller{sender: s, source: source, lines: map[string]*line{}, said: map[string]bool{}}
	for ctx.Err() == nil {
		pause := t.round(ctx)
		if t.gone {
			s.config.Log.Error().Stringer("webhook", s).Msg("the webhook answered 410 Gone; it is told nothing more until the next start")
			<-ctx.Done()
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// teller is a Run.
type teller struct {
	sender *Sender
	source Source
	// lines are the batches with untold events, by id.
	lines map[string]*line
	// waiting is how many events the last look found and left.
	waiting int
	// blind is whether the last look failed.
	blind bool

	mu   sync.Mutex
	gone bool
	// quiet is until when the receiver wants to be left alone.
	quiet time.Time
	// said are the failures that were logged since all was well.
	said map[string]bool
}

// line is the events of one batch. One goroutine at a time sends them.
type line struct {
	events []schemas.BatchEvent
	// failures is how often the first event was not accepted; the next try is at next.
	failures int
	next     time.Time
	// tried is whether the first event has been sent; accepted, whether that was
	// accepted and only is not noted yet.
	tried, accepted bool
}

// round looks for events and tries to tell those whose time has come, and says
// how long to wait for the next round.
func (t *teller) round(ctx context.Context) time.Duration {
	if pause := time.Until(t.quiet); pause > 0 {
		return pause
	}
	limit := min(ahead+t.waiting, maxAhead)
	order, found, err := t.look(ctx, limit)
	if err != nil {
		if !t.blind && ctx.Err() == nil {
			t.sender.config.Log.Warn().Err(err).Msg("cannot look for events to tell the webhook; trying again")
			t.blind = true
		}
		return lookEvery
	}
	t.blind = false
	var sending errgroup.Group
	sending.SetLimit(together)
	for _, l := range order {
		if time.Until(l.next) <= 0 && t.open(ctx) {
			sending.Go(func() error {
				t.tell(ctx, l)
				return nil
			})
		}
	}
	_ = sending.Wait() // they note their failures in the lines

	left, failing, pause := 0, false, lookEvery
	for _, l := range order {
		left += len(l.events)
		if l.failures > 0 {
			failing, pause = true, min(pause, max(time.Until(l.next), minDelay))
		}
	}
	told := found - left
	if told > 0 && !failing && len(t.said) > 0 {
		clear(t.said)
		t.sender.config.Log.Info().Stringer("webhook", t.sender).Msg("the webhook accepts events again")
	}
	t.waiting = left
	if found == limit && (told > 0 || min(ahead+left, maxAhead) > limit) {
		return 0 // there may be more, behind those that wait
	}
	return pause
}

// look brings the lines up to date, and lists them by their oldest events.
func (t *teller) look(ctx context.Context, limit int) (order []*line, found int, err error) {
	events, err := t.source.Untold(ctx, limit)
	if err != nil {
		return nil, 0, err
	}
	lines := map[string]*line{}
	for _, e := range events {
		l := lines[e.Batch]
		if l == nil {
			if l = t.lines[e.Batch]; l == nil {
				l = &line{}
			}
			l.events = nil
			lines[e.Batch], order = l, append(order, l)
		}
		l.events = append(l.events, e)
	}
	t.lines = lines
	return order, len(events), nil
}

// open says whether events may be sent now.
func (t *teller) open(ctx context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return ctx.Err() == nil && !t.gone && time.Until(t.quiet) <= 0
}

// tell sends the events of a line until one is not accepted.
func (t *teller) tell(ctx context.Context, l *line) {
	for len(l.events) > 0 && t.open(ctx) {
		e := l.events[0]
		err := t.tellOne(ctx, l, e)
		switch {
		case err == nil:
			*l = line{events: l.events[1:]}
			continue
		case ctx.Err() != nil || t.obey(err):
			return
		}
		l.failures++
		l.next = time.Now().Add(delay(l.failures))
		if l.tried && !l.accepted && time.Since(e.At) > t.sender.config.MaxAge {
			t.giveUp(ctx, l, err)
		} else {
			t.complain(ctx, err, e, "cannot tell the webhook of an event; trying again")
		}
		return
	}
}

// tellOne sends one event and notes that. It does not send again what only could
// not be noted.
func (t *teller) tellOne(ctx context.Context, l *line, e schemas.BatchEvent) error {
	if !l.accepted {
		s, known, err := t.source.Summary(ctx, e.Batch)
		if err != nil {
			return err
		}
		batch := &s
		if !known {
			batch = nil
		}
		l.tried = true
		if err := t.sender.Send(ctx, schemas.NewWebhook(e, batch)); err != nil {
			return err
		}
		l.accepted = true
	}
	return t.note(ctx, e.ID)
}

// note notes an event as told, even if the context ends right now: it would be
// told twice otherwise.
func (t *teller) note(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	return t.source.Told(ctx, []string{id}, time.Now().UTC())
}

// obey does what the receiver wants besides not accepting an event, and says
// whether it wants no more.
func (t *teller) obey(err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = t.gone || errors.Is(err, ErrGone)
	if status := (*StatusError)(nil); errors.As(err, &status) && status.RetryAfter > 0 {
		t.quiet = time.Now().Add(status.RetryAfter)
	}
	return t.gone
}

// giveUp lets the first event of a line go, which was not accepted in time.
func (t *teller) giveUp(ctx context.Context, l *line, cause error) {
	e := l.events[0]
	if err := t.note(ctx, e.ID); err != nil {
		t.complain(ctx, err, e, "cannot give up an event that the webhook does not accept; trying again")
		return
	}
	l.events, l.tried = l.events[1:], false
	t.sender.config.Log.Error().Err(cause).Str("batch", e.Batch).Str("event", e.ID).Str("change", string(e.Change)).Time("at", e.At).
		Msg("the webhook has not accepted an event in time; it is given up")
}

// complain logs a failure, unless one like it was logged since all was well.
func (t *teller) complain(ctx context.Context, err error, e schemas.BatchEvent, msg string) {
	if ctx.Err() != nil {
		return
	}
	kind := err.Error()
	if status := (*StatusError)(nil); !errors.As(err, &status) {
		kind = schemas.Normalise(kind) // the ports of a connection differ each time
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.said[kind] {
		t.said[kind] = true
		t.sender.config.Log.Warn().Err(err).Str("batch", e.Batch).Str("event", e.ID).Msg(msg)
	}
}
