package control

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// ChangeFleet changes what holds for all workers: whether they work, and how fast
// at most.
func (c *Control) ChangeFleet(ctx context.Context, q schemas.FleetChange) (schemas.Steering, error) {
	if err := checkCommand(q.Command); err != nil {
		return schemas.Steering{}, err
	}
	now := time.Now().UTC()
	if !q.Until.IsZero() && (q.Pause == nil || !*q.Pause || !q.Until.After(now)) {
		return schemas.Steering{}, fault.New(schemas.CodeBadRequest, "until %s: only a pause has an end, and it must be still to come", q.Until.Format(time.RFC3339))
	}
	for _, l := range q.Limits {
		if err := checkLimit(l); err != nil {
			return schemas.Steering{}, err
		}
	}
	return c.steer(ctx, q.Command, func(s *schemas.Steering) error {
		switch {
		case q.Pause == nil:
		case *q.Pause:
			s.Pause = &schemas.Standing{Reason: schemas.ReasonFleetPaused, By: q.Actor, Note: q.Note, Since: now, Until: q.Until}
		default:
			s.Pause = nil
		}
		for _, l := range q.Limits {
			l.By, l.Note, l.Since = q.Actor, q.Note, now
			s.Limits = setLimit(s.Limits, l)
		}
		return nil
	})
}

// steer records other steering and shows it to the workers.
func (c *Control) steer(ctx context.Context, by schemas.Command, change func(*schemas.Steering) error) (schemas.Steering, error) {
	if _, err := c.book.Steer(ctx, by, change); err != nil {
		return schemas.Steering{}, err
	}
	return c.showSteering(ctx)
}

// showSteering shows the workers what is recorded; see activate.
func (c *Control) showSteering(ctx context.Context) (schemas.Steering, error) {
	for {
		s, err := c.records.Steering(ctx)
		if err != nil {
			return s, err
		}
		if err := c.queue.SetSteering(ctx, s); err != nil {
			return s, err
		}
		now, err := c.records.Steering(ctx)
		if err != nil || reflect.DeepEqual(now, s) {
			return s, err
		}
	}
}

// lookAtFleet ends a pause of everything whose time has come.
func (c *Control) lookAtFleet(ctx context.Context, now time.Time) error {
	s, err := c.records.Steering(ctx)
	if err != nil || !over(s.Pause, now) {
		return err
	}
	by := schemas.Command{ID: "fleet-until-" + s.Pause.Until.Format(time.RFC3339Nano), Note: "the pause is over"}
	_, err = c.steer(ctx, by, func(s *schemas.Steering) error {
		if over(s.Pause, now) {
			s.Pause = nil
		}
		return nil
	})
	return err
}

func over(p *schemas.Standing, now time.Time) bool {
	return p != nil && !p.Until.IsZero() && !now.Before(p.Until)
}

func setLimit(limits []schemas.Limit, l schemas.Limit) []schemas.Limit {
	limits = slices.DeleteFunc(slices.Clone(limits), func(o schemas.Limit) bool { return o.Scope == l.Scope })
	if l.Items > 0 || l.Bytes > 0 {
		limits = append(limits, l)
	}
	slices.SortFunc(limits, func(a, b schemas.Limit) int { return strings.Compare(a.Scope, b.Scope) })
	return limits
}

// minItems is the slowest limit: slower ones would only be pauses.
const minItems = 0.01

func checkLimit(l schemas.Limit) error {
	switch {
	case l.Items < 0 || l.Bytes < 0 || l.Items > 0 && l.Items < minItems:
		return fault.New(schemas.CodeBadRequest, "limit of %g items and %d bytes a second: want 0 (no limit), at least %g items, or any bytes", l.Items, l.Bytes, minItems)
	case l.Scope == schemas.ScopeFleet:
		return nil
	}
	for _, known := range []string{"sqlite", "postgres", "mariadb"} {
		if l.Scope == schemas.ScopeBackend(known) {
			return nil
		}
	}
	if id, ok := cutBatch(l.Scope); ok && (id == schemas.Single || schemas.CheckName(id) == nil) {
		return nil
	}
	return fault.New(schemas.CodeBadRequest, "limit on %q: want the fleet, a batch, or a backend (sqlite, postgres, mariadb)", l.Scope)
}

// cutBatch gives the batch that a scope is about, if it is about one.
func cutBatch(scope string) (id string, ok bool) {
	return strings.CutPrefix(scope, schemas.ScopeBatch(""))
}
