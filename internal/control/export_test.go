package control

import (
	"context"
	"time"
)

// LookAt looks after everything as Run does at that time.
func (c *Control) LookAt(ctx context.Context, now time.Time) error { return c.look(ctx, now) }
