package control

import (
	"context"
	"time"

	"github.com/exhume/exhume/schemas"
)

// Stand opens the standing batch of single requests, which never ends, and lets
// workers restore its items with these settings from now on.
func (c *Control) Stand(ctx context.Context, s schemas.Settings) error {
	standing, err := c.book.Begin(ctx, schemas.Batch{
		ID: schemas.Single, State: schemas.StateOpen, Settings: s, CreatedAt: time.Now().UTC(),
	})
	if err != nil {
		return err
	}
	c.single = &s // they may have changed since it was opened
	return c.activate(ctx, standing.Batch)
}
