// Package control is the life of a batch: it opens, seals, pauses, cancels and
// copies batches, stops those of which too much fails, answers questions about
// them and, after a crash, brings the broker back in step with the ledger.
package control

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Book is ledger and evidence as the control role sees them.
type Book interface {
	Begin(ctx context.Context, b schemas.Batch) (schemas.Summary, error)
	Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (schemas.Summary, error)
	// Change records what decide makes of a batch, once for each id of an event;
	// see collector.Book.
	Change(ctx context.Context, id, eventID string, decide func(*schemas.Summary) (*schemas.BatchEvent, error)) (s schemas.Summary, changed bool, err error)
	Active(ctx context.Context) ([]schemas.Summary, error)
	Find(ctx context.Context, id string) (schemas.Summary, bool, error)
	// Steer records what change makes of what holds for the fleet.
	Steer(ctx context.Context, by schemas.Command, change func(*schemas.Steering) error) (schemas.Steering, error)
}

// Queue is the broker as the control role sees it.
type Queue interface {
	// Activate shows a batch to the workers.
	Activate(ctx context.Context, b schemas.Batch) error
	// Activated lists the ids of the batches that workers are shown, and of those of
	// which something else is there.
	Activated(ctx context.Context) (shown, others []string, err error)
	// Retire removes a batch from the broker.
	Retire(ctx context.Context, id string) error
	// Settled says whether no message of the batch waits or is in a worker's hand,
	// and all results that there are of it are recorded.
	Settled(ctx context.Context, id string) (bool, error)
	// Look gives an active batch as workers are shown it, nil when they are not or
	// cannot take its messages, and says whether nothing of what they can take of it
	// waits or is in hand, and all results of it are recorded.
	Look(ctx context.Context, id string) (shown *schemas.Batch, idle bool, err error)
	// Republish publishes requests again that the broker has lost.
	Republish(ctx context.Context, requests []schemas.Request, perMessage int, sample bool) error
	// RetriesOf gives what workers know of failed attempts at items, and SetRetry tells
	// them.
	RetriesOf(ctx context.Context, id string, indexes []int64) (map[int64]schemas.Retry, error)
	SetRetry(ctx context.Context, id string, index int64, r schemas.Retry) error
	// SetSteering shows the workers what holds for the fleet, and Steering is what they
	// are shown.
	SetSteering(ctx context.Context, s schemas.Steering) error
	Steering(ctx context.Context) (schemas.Steering, error)
	// Setup makes what is missing of streams and buckets. Incarnation changes when any
	// of them was lost.
	Setup(ctx context.Context) error
	Incarnation(ctx context.Context) (string, error)
}

// Finish ends a batch if its results are complete.
type Finish func(ctx context.Context, s schemas.Summary) error

// Control steers batches. It is safe for concurrent use.
type Control struct {
	book    Book
	queue   Queue
	records Records
	finish  Finish
	log     zerolog.Logger
	// Changed, if set before Run, is told of each batch that changed.
	Changed func(schemas.Summary)
	// single are the settings of the standing batch, nil before Stand.
	single *schemas.Settings
	copies copies
	kept   Keeper
	lost   lost
}

// New makes a control role and brings the broker in step with the ledger.
func New(ctx context.Context, b Book, q Queue, r Records, k Keeper, f Finish, submit Submit, log zerolog.Logger) (*Control, error) {
	c := &Control{
		book: b, queue: q, records: r, kept: k, finish: f, log: log, Changed: func(schemas.Summary) {},
		copies: copies{submit: submit, base: ctx, running: map[string]bool{}},
		lost:   lost{batches: map[string]*stillness{}},
	}
	return c, c.reconcile(ctx)
}

// Open opens a batch, or finds the one that has its id. What a batch that exists
// is like is kept. One that comes as StatePaused is held until it is resumed.
func (c *Control) Open(ctx context.Context, b schemas.Batch) (schemas.Summary, error) {
	if err := schemas.CheckName(b.ID); err != nil {
		return schemas.Summary{}, fault.New(schemas.CodeBadRequest, "batch: %w", err)
	}
	if err := checkTerms(b.Terms); err != nil {
		return schemas.Summary{}, err
	}
	if len(b.Actor) > maxActor || len(b.Note) > maxNote || len(b.Manifest) > maxNote {
		return schemas.Summary{}, fault.New(schemas.CodeBadRequest, "batch %s: actor of %d bytes, reason of %d, manifest's name of %d: want at most %d, %d and %d",
			b.ID, len(b.Actor), len(b.Note), len(b.Manifest), maxActor, maxNote, maxNote)
	}
	return c.open(ctx, b)
}

func (c *Control) open(ctx context.Context, b schemas.Batch) (schemas.Summary, error) {
	b.CreatedAt = time.Now().UTC()
	b.Standing = schemas.Standing{By: b.Actor, Note: b.Note, Since: b.CreatedAt}
	if b.State == schemas.StatePaused {
		b.Reason = schemas.ReasonHeld
	} else {
		b.State = schemas.StateOpen
		b.Reason = b.Resting()
	}
	s, err := c.book.Begin(ctx, b)
	if err != nil || s.State.Final() {
		return s, err
	}
	return s, c.activate(ctx, s.Batch)
}

// Seal says that all requests of a batch are published. A batch whose results
// are complete ends with it. One that was cancelled meanwhile is given as it
// ended, and what its producer has published since is removed.
func (c *Control) Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (schemas.Summary, error) {
	if err := c.checkKept(ctx, id, total); err != nil {
		return schemas.Summary{}, err
	}
	s, err := c.book.Seal(ctx, id, total, manifestSHA256)
	if err != nil {
		return s, err
	}
	if s.State.Final() {
		return s, c.queue.Retire(ctx, id)
	}
	if err := c.activate(ctx, s.Batch); err != nil {
		return s, err
	}
	c.Changed(s)
	return s, c.finish(ctx, s)
}

// activate shows a batch to the workers as it is recorded. Whoever changes it at
// the same time shows it, too, and the older picture must not be the last one:
// everybody looks again afterwards.
func (c *Control) activate(ctx context.Context, b schemas.Batch) error {
	for {
		shown := b
		if b.ID == schemas.Single && c.single != nil {
			shown.Settings = *c.single
		}
		if err := c.queue.Activate(ctx, shown); err != nil {
			return err
		}
		s, found, err := c.book.Find(ctx, b.ID)
		switch {
		case err != nil || !found:
			return err
		case s.State.Final():
			return c.queue.Retire(ctx, b.ID)
		case reflect.DeepEqual(s.Batch, b):
			return nil
		}
		b = s.Batch
	}
}

// reconcile mends what a crash between two steps left behind: batches that the
// ledger has and the broker lacks, the other way round, and batches that are
// complete and have not ended.
func (c *Control) reconcile(ctx context.Context) error {
	shown, others, err := c.queue.Activated(ctx)
	if err != nil {
		return err
	}
	if err := c.checkLedger(ctx, shown); err != nil {
		return err
	}
	for _, id := range slices.Concat(shown, others) {
		if id == schemas.Single {
			continue // whose requests may come before Stand, and wait
		}
		s, found, err := c.book.Find(ctx, id)
		if err != nil {
			return err
		}
		if !found || s.State.Final() {
			if err := c.queue.Retire(ctx, id); err != nil {
				return err
			}
		}
	}
	active, err := c.showAll(ctx)
	if err != nil {
		return err
	}
	for _, s := range active {
		if err := c.judge(ctx, s); err != nil {
			return err
		}
		if err := c.finish(ctx, s); err != nil {
			return err
		}
	}
	return c.kept.DropKept(ctx)
}

// checkLedger refuses to work when workers are shown batches that the ledger does
// not know. A batch is recorded before it is shown, and stays recorded for ever: so
// it is the ledger that was lost, and what the broker holds is all that is left.
func (c *Control) checkLedger(ctx context.Context, shown []string) error {
	var unknown []string
	for _, id := range shown {
		_, found, err := c.book.Find(ctx, id)
		if err != nil {
			return err
		}
		if !found && id != schemas.Single {
			unknown = append(unknown, id)
		}
	}
	if n := len(unknown); n > 0 {
		return fault.New(schemas.CodeLedgerLost, "the broker works on %d batches that the ledger does not know (%s): it was lost, or is another one; "+
			"if it was lost, bring it back with 'exhume ledger rebuild'", n, some(unknown))
	}
	return nil
}

// some are the first of many names, in one line.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + ", …"
}

// showAll shows the workers all that is recorded, and gives the active batches.
func (c *Control) showAll(ctx context.Context) (active []schemas.Summary, err error) {
	// Before anything is shown: what is lost meanwhile is noticed then.
	if c.lost.incarnation, err = c.queue.Incarnation(ctx); err != nil {
		return nil, err
	}
	if _, err := c.showSteering(ctx); err != nil {
		return nil, err
	}
	if active, err = c.book.Active(ctx); err != nil {
		return nil, err
	}
	for _, s := range active {
		if err := c.activate(ctx, s.Batch); err != nil {
			return nil, err
		}
	}
	return active, nil
}
