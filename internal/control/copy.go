package control

import (
	"context"
	"iter"
	"reflect"
	"sync"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Submit publishes the items of a batch that is open, and seals it; see
// producer.Submit. It can be repeated.
type Submit func(ctx context.Context, c *Control, b schemas.Batch, items iter.Seq2[schemas.Request, error], total int64) error

// copies are the batches that this process fills with the items of others.
type copies struct {
	submit Submit
	// base ends when the process stops; another one goes on then.
	base    context.Context
	mu      sync.Mutex
	running map[string]bool
	wg      sync.WaitGroup
}

func (c *copies) wait() { c.wg.Wait() }

// begin says whether it is the caller who fills the batch.
func (c *copies) begin(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[id] {
		return false
	}
	c.running[id] = true
	return true
}

func (c *copies) end(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, id)
}

// Copy opens a batch of the items of one that has ended. Its requests are
// published afterwards; if this process dies meanwhile, another goes on.
func (c *Control) Copy(ctx context.Context, q schemas.BatchCopy) (schemas.BatchCopied, error) {
	var none schemas.BatchCopied
	if err := checkCommand(q.Command); err != nil {
		return none, err
	}
	of, err := c.records.Batch(ctx, q.Ref)
	if err != nil {
		return none, err
	}
	if !of.State.Final() {
		return none, fault.New(schemas.CodeBatchState, "batch %s is %s: its items can be copied when it has ended, because until then its results change", of.ID, of.State)
	}
	n, err := c.records.Count(ctx, of.ID, q.ResultFilter)
	if err != nil {
		return none, err
	}
	if q.Limit > 0 {
		n = min(n, q.Limit)
	}
	if q.DryRun || n == 0 {
		return schemas.BatchCopied{Items: n}, nil
	}
	b := schemas.Batch{
		ID: q.As, Actor: q.Actor, Settings: of.Settings, Terms: q.Terms, Archive: of.Archive, Manifest: of.Manifest,
		PerMessage: schemas.PerMessage(n, q.Terms.MaxInFlight),
		Source:     &schemas.Source{Batch: of.ID, ResultFilter: q.ResultFilter, Limit: q.Limit, Total: n},
	}
	b.Note = "items of batch " + of.ID
	if q.Note != "" {
		b.Note += ": " + q.Note
	}
	if q.Root != "" {
		b.Settings.Root = q.Root
	}
	if q.Overwrite != "" {
		b.Settings.Overwrite = q.Overwrite
	}
	if q.Hold {
		b.State = schemas.StatePaused
	}
	s, err := c.Open(ctx, b)
	if err != nil {
		return none, err
	}
	if !reflect.DeepEqual(s.Source, b.Source) {
		return none, fault.New(schemas.CodeBatchState, "batch %s exists and is another one: choose another name", q.As)
	}
	c.copy(s.Batch)
	return schemas.BatchCopied{Items: n, Batch: &s}, nil
}

// copyPatience is after how long others take a copy for abandoned. It is far
// longer than copying a million items takes.
const copyPatience = time.Minute

// goOnCopying fills a batch that somebody else has left unfinished.
func (c *Control) goOnCopying(b schemas.Batch) {
	if time.Since(b.CreatedAt) > copyPatience {
		c.copy(b)
	}
}

// copy fills a batch, unless this process is doing that already.
func (c *Control) copy(b schemas.Batch) {
	ctx := c.copies.base
	if !c.copies.begin(b.ID) {
		return
	}
	c.copies.wg.Go(func() {
		defer c.copies.end(b.ID)
		if err := c.copies.submit(ctx, c, b, c.itemsOf(ctx, b), b.Source.Total); err != nil && ctx.Err() == nil {
			c.log.Warn().Err(err).Str("batch", b.ID).Msg("cannot publish the items of a copied batch; trying again")
		}
	})
}

// itemsOf are the requests of a copy, in the order of the results that they are
// made of, which no longer change.
func (c *Control) itemsOf(ctx context.Context, b schemas.Batch) iter.Seq2[schemas.Request, error] {
	return func(yield func(schemas.Request, error) bool) {
		index := int64(0)
		for r, err := range c.records.Results(ctx, schemas.ResultsQuery{Batch: b.Source.Batch, ResultFilter: b.Source.ResultFilter}) {
			if err == nil && index == b.Source.Total {
				return
			}
			q := r.Request
			q.Batch, q.Index, q.Published = b.ID, index, time.Time{}
			if !yield(q, err) || err != nil {
				return
			}
			index++
		}
	}
}
