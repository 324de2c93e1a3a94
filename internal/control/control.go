// Package control is the life of a batch: it opens and seals batches, answers
// questions about them and, after a crash, brings the broker back in step with
// the ledger.
package control

import (
	"context"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Book is ledger and evidence as the control role sees them.
type Book interface {
	Begin(ctx context.Context, b schemas.Batch) (schemas.Summary, error)
	Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (schemas.Summary, error)
	Active(ctx context.Context) ([]schemas.Summary, error)
	Find(ctx context.Context, id string) (schemas.Summary, bool, error)
}

// Queue is the broker as the control role sees it.
type Queue interface {
	// Activate shows a batch to the workers.
	Activate(ctx context.Context, b schemas.Batch) error
	// Activated lists the ids of the batches that workers are shown.
	Activated(ctx context.Context) ([]string, error)
	// Retire removes a batch from the broker.
	Retire(ctx context.Context, id string) error
}

// Finish ends a batch if its results are complete.
type Finish func(ctx context.Context, s schemas.Summary) error

// Control opens and seals batches. It is safe for concurrent use.
type Control struct {
	book   Book
	queue  Queue
	finish Finish
}

// New makes a control role and brings the broker in step with the ledger.
func New(ctx context.Context, b Book, q Queue, f Finish) (*Control, error) {
	c := &Control{book: b, queue: q, finish: f}
	return c, c.reconcile(ctx)
}

// Open opens a batch, or finds the one that has its id. The settings of a batch
// that exists are kept.
func (c *Control) Open(ctx context.Context, b schemas.Batch) (schemas.Summary, error) {
	if err := schemas.CheckName(b.ID); err != nil {
		return schemas.Summary{}, fault.New(schemas.CodeBadRequest, "batch: %w", err)
	}
	b.State, b.CreatedAt = schemas.StateOpen, time.Now().UTC()
	s, err := c.book.Begin(ctx, b)
	if err != nil || s.State.Final() {
		return s, err
	}
	return s, c.activate(ctx, s.Batch)
}

// Seal says that all requests of a batch are published. A batch whose results
// are complete ends with it.
func (c *Control) Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (schemas.Summary, error) {
	s, err := c.book.Seal(ctx, id, total, manifestSHA256)
	if err != nil || s.State.Final() {
		return s, err
	}
	if err := c.activate(ctx, s.Batch); err != nil {
		return s, err
	}
	return s, c.finish(ctx, s)
}

// activate shows a batch to the workers, unless it ends meanwhile.
func (c *Control) activate(ctx context.Context, b schemas.Batch) error {
	if err := c.queue.Activate(ctx, b); err != nil {
		return err
	}
	s, found, err := c.book.Find(ctx, b.ID)
	if err == nil && found && s.State.Final() {
		return c.queue.Retire(ctx, b.ID)
	}
	return err
}

// reconcile mends what a crash between two steps left behind: batches that the
// ledger has and the broker lacks, the other way round, and batches that are
// complete and have not ended.
func (c *Control) reconcile(ctx context.Context) error {
	active, err := c.book.Active(ctx)
	if err != nil {
		return err
	}
	for _, s := range active {
		if err := c.queue.Activate(ctx, s.Batch); err != nil {
			return err
		}
		if err := c.finish(ctx, s); err != nil {
			return err
		}
	}
	shown, err := c.queue.Activated(ctx)
	if err != nil {
		return err
	}
	for _, id := range shown {
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
	return nil
}
