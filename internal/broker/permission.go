package broker

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// right is something that a server lets a user do or not.
type right struct {
	do string // "publish" or "subscribe"
	// subject is the subject to do it with. Of a right that a call needs it may
	// end in ">", and then stands for all that begin like it.
	subject string
}

func toPublish(subject string) right { return right{"publish", subject} }

func toSubscribe(subject string) right { return right{"subscribe", subject} }

// covers says whether a call that needs r fails when denied is denied.
func (r right) covers(denied right) bool {
	if r.do != denied.do {
		return false
	}
	if beginning, ok := strings.CutSuffix(r.subject, ">"); ok {
		return strings.HasPrefix(denied.subject, beginning)
	}
	return r.subject == denied.subject
}

// grant is the subject to allow in place of one of its kind.
func (r right) grant(inboxPrefix string) string {
	for _, all := range []string{inboxPrefix + ".>", schemas.SubjectsAPI, schemas.SubjectsRestore, schemas.SubjectsResults} {
		if strings.HasPrefix(r.subject, strings.TrimSuffix(all, ">")) {
			return all
		}
	}
	return r.subject
}

// violation finds in the server's words what it denied.
var violation = regexp.MustCompile(`Violation for (Publish|Subscription) to ("(?:[^"\\]|\\.)*")`)

// deniedIn is the right that an error of the connection denies.
func deniedIn(err error) (r right, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return r, false
	}
	found := violation.FindStringSubmatch(err.Error())
	if found == nil {
		return r, false
	}
	subject, err := strconv.Unquote(found[2])
	if err != nil {
		return r, false
	}
	if found[1] == "Publish" {
		return toPublish(subject), true
	}
	return toSubscribe(subject), true
}

// denials bring what the server denies, which it tells the connection and not
// the call, to the calls that would wait in vain. They are safe for concurrent
// use; a connection has one.
type denials struct {
	mu      sync.Mutex
	waiting map[*waiter]struct{}
	// standing are denied subscriptions of the connection as a whole, to the
	// inbox of all answers: the server says it once, and they stay denied.
	standing map[right]error
	// last is what the connection reported last, news is closed with the next.
	last error
	news chan struct{}
}

func newDenials() *denials {
	return &denials{waiting: map[*waiter]struct{}{}, standing: map[right]error{}, news: make(chan struct{})}
}

// waiter is a call that needs rights.
type waiter struct {
	d      *denials
	needs  []right
	cancel context.CancelCauseFunc
}

// wait gives a context that ends when one of the rights is denied; denial tells
// whether it did. The waiter must be ended or left.
func (d *denials) wait(ctx context.Context, needs ...right) (context.Context, *waiter) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &waiter{d, needs, cancel}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting[w] = struct{}{}
	for denied, err := range d.standing {
		w.hear(denied, err)
	}
	return ctx, w
}

func (w *waiter) hear(denied right, err error) {
	for _, r := range w.needs {
		if r.covers(denied) {
			w.cancel(err)
		}
	}
}

// leave stops listening, and leaves the context to what goes on with it.
func (w *waiter) leave() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	delete(w.d.waiting, w)
}

// end stops listening and ends the context.
func (w *waiter) end() {
	w.leave()
	w.cancel(nil)
}

// denial is the error of a context that ended because of a denial, else nil.
func denial(ctx context.Context) error {
	if cause := context.Cause(ctx); fault.Is(cause, schemas.CodeBrokerDenied) {
		return cause
	}
	return nil
}

// tell hands a denial to those who need the right.
func (d *denials) tell(denied right, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if denied.do == "subscribe" && strings.HasSuffix(denied.subject, ".*") {
		d.standing[denied] = err
	}
	for w := range d.waiting {
		w.hear(denied, err)
	}
}

// seen says that the handler is done with what the connection reported.
func (d *denials) seen(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = err
	close(d.news)
	d.news = make(chan struct{})
}

// caughtUp waits until the handler, which runs behind the connection, has seen
// the last denial that the connection reported.
func (d *denials) caughtUp(ctx context.Context, last func() error) {
	for {
		d.mu.Lock()
		seen, news := d.last, d.news
		d.mu.Unlock()
		if err := last(); !errors.Is(err, nats.ErrPermissionViolation) || err == seen { //nolint:errorlint // it has to be the very same
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}

// forget is called when the connection is lost: a new one asks for everything
// anew.
func (d *denials) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.standing)
}

// deny is told of every error of the connection, and tells those whom it
// concerns.
func (b *Broker) deny(nc *nats.Conn, err error) {
	if r, ok := deniedIn(err); ok {
		prefix := strings.TrimSuffix(nc.Opts.InboxPrefix, ".")
		if prefix == "" {
			prefix = strings.TrimSuffix(nats.InboxPrefix, ".")
		}
		b.denials.tell(r, fault.New(schemas.CodeBrokerDenied,
			"%s: the broker does not let this user work (%w): allow it to %s to %q", b.opts, err, r.do, r.grant(prefix)))
	}
	b.denials.seen(err)
}

// permitted makes a call that waits for what needs the rights, and ends it when
// the server denies one of them: the error then carries CodeBrokerDenied.
func (b *Broker) permitted(ctx context.Context, call func(context.Context) error, needs ...right) error {
	ctx, w := b.denials.wait(ctx, needs...)
	defer w.end()
	err := call(ctx)
	if denied := denial(ctx); err != nil && denied != nil {
		return denied
	}
	return err
}

// toAsk are the rights that a question and its answer need.
func (b *Broker) toAsk(subjects ...string) []right {
	needs := []right{toSubscribe(b.answers())}
	for _, s := range subjects {
		needs = append(needs, toPublish(s))
	}
	return needs
}

// answers is the subject on which the connection hears the answers to all its
// questions.
func (b *Broker) answers() string {
	one := b.nc.NewRespInbox()
	return one[:strings.LastIndexByte(one, '.')+1] + "*"
}

// subscribe calls heard with every message of a subject, one at a time. The
// error of a user who may not listen carries CodeBrokerDenied. A broker that is
// away learns of it when it is back.
func (b *Broker) subscribe(subject string, heard nats.MsgHandler) (*nats.Subscription, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	ctx, w := b.denials.wait(ctx, toSubscribe(subject))
	defer w.end()
	sub, err := b.nc.Subscribe(subject, heard)
	if err != nil {
		return nil, err
	}
	if b.nc.FlushWithContext(ctx) == nil { // the server has said what it has against it
		b.denials.caughtUp(ctx, b.nc.LastError)
	}
	if denied := denial(ctx); denied != nil {
		_ = sub.Unsubscribe() // fails only on a connection that is closed
		return nil, denied
	}
	return sub, nil
}
