package control

import (
	"context"

	"github.com/exhume/exhume/schemas"
)

// recount tells the workers of failed attempts at open items that the broker has
// lost count of: an item fails after as many as it may have, and no more.
func (c *Control) recount(ctx context.Context, id string, open []int64) error {
	failures, err := c.kept.FailuresBetween(ctx, id, open[0], open[len(open)-1])
	if err != nil || len(failures) == 0 {
		return err
	}
	counted := countRetries(failures)
	var failed []int64
	for _, index := range open {
		if counted[index].Attempts > 0 {
			failed = append(failed, index)
		}
	}
	known, err := c.queue.RetriesOf(ctx, id, failed)
	if err != nil {
		return err
	}
	for _, index := range failed {
		if known[index].Attempts >= counted[index].Attempts {
			continue
		}
		if err := c.queue.SetRetry(ctx, id, index, counted[index]); err != nil {
			return err
		}
	}
	return nil
}

// countRetries is what workers would know of failures, which are in the order of
// items and attempts.
func countRetries(failures []schemas.Failure) map[int64]schemas.Retry {
	all := map[int64]schemas.Retry{}
	for _, f := range failures {
		r := all[f.Index]
		r.Attempts, r.LastError, r.NextTry = f.Number, f.Detail, f.NextTry
		r.Causes, r.History = append(r.Causes, f.Code), append(r.History, f.Attempt)
		r.History = r.History[max(0, len(r.History)-schemas.MaxHistory):]
		all[f.Index] = r
	}
	return all
}
