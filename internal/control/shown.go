package control

import (
	"context"
	"reflect"
	"slices"

	"github.com/exhume/exhume/schemas"
)

// What is recorded may not be shown: whoever recorded it died before, or the broker
// was away at that moment. So what workers are shown is compared with what is
// recorded now and then, and soon after a change.

// alike says whether workers do the same with a batch, whichever of the two they are
// shown. Its settings do not change, but for those of single requests, which may be
// others in each collector.
func alike(a, b schemas.Batch) bool {
	return a.Workable() == b.Workable() && a.Stopping() == b.Stopping() &&
		(a.Reason == schemas.ReasonAborting) == (b.Reason == schemas.ReasonAborting) &&
		a.InCanary() == b.InCanary() &&
		a.Terms.Priority.Weight() == b.Terms.Priority.Weight() && a.Terms.MaxInFlight == b.Terms.MaxInFlight &&
		slices.Equal(a.Skips, b.Skips)
}

// showAgain shows the workers a batch as it is recorded now.
func (c *Control) showAgain(ctx context.Context, id string) error {
	s, found, err := c.book.Find(ctx, id)
	if err != nil || !found || s.State.Final() {
		return err
	}
	return c.activate(ctx, s.Batch)
}

// mendSteering shows the workers what holds for the fleet when they are shown
// something else.
func (c *Control) mendSteering(ctx context.Context) error {
	shown, err := c.queue.Steering(ctx)
	if err != nil {
		return err
	}
	recorded, err := c.records.Steering(ctx)
	if err != nil || reflect.DeepEqual(shown, recorded) {
		return err
	}
	_, err = c.showSteering(ctx)
	return err
}
