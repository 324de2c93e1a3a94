package control

import (
	"context"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Keeper is the ledger as it keeps requests until their batch ends.
type Keeper interface {
	Keep(ctx context.Context, k schemas.Kept) error
	// OpenKept visits what is kept of those items of a sealed batch that have no
	// result, whose indexes are open, each once and in order.
	OpenKept(ctx context.Context, id string, visit func(k schemas.Kept, open []int64) error) error
	// FailuresBetween gives the failed attempts at items, in the order of items and
	// attempts.
	FailuresBetween(ctx context.Context, id string, first, last int64) ([]schemas.Failure, error)
	// DropKept removes what is left of batches that have ended.
	DropKept(ctx context.Context) error
}

// Keep keeps requests of a batch until it ends, so that what the broker loses of
// them can be published again. Of a batch that has ended nothing is kept. It can be
// repeated.
func (c *Control) Keep(ctx context.Context, k schemas.Kept) error {
	n := k.Last - k.First + 1
	if k.First < 0 || n < 1 || n > schemas.MaxKept || len(k.Body) == 0 {
		return fault.New(schemas.CodeBadRequest, "batch %s: requests of items %d to %d in %d bytes cannot be kept: want 1 to %d items in order, compressed",
			k.Batch, k.First, k.Last, len(k.Body), schemas.MaxKept)
	}
	return c.kept.Keep(ctx, k)
}

// Kept is the lowest index of a batch whose request is not kept.
func (c *Control) Kept(ctx context.Context, id string) (int64, error) {
	return c.records.KeptTo(ctx, id)
}

// checkKept makes sure that all requests of a batch are kept which is to be sealed
// with so many items. Older programs keep none: theirs are as durable as the broker.
func (c *Control) checkKept(ctx context.Context, id string, total int64) error {
	next, err := c.records.KeptTo(ctx, id)
	if err == nil && next > 0 && next < total {
		err = fault.New(schemas.CodeBadRequest, "batch %s cannot be sealed with %d items: from item %d on their requests are not kept: submit the same manifest again",
			id, total, next)
	}
	return err
}
