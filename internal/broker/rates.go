package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

const (
	// rateBurst is how much of what nobody used may be made up for.
	rateBurst = 100 * time.Millisecond
	// rateAhead is how far ahead units can be taken. Neither one huge item nor a
	// server whose clock is wrong keeps the fleet from working for longer.
	rateAhead = time.Hour
	// rateRetry is how long a reservation waits at most, at random, before it is
	// tried again because another one was faster.
	rateRetry = 20 * time.Millisecond
)

// rate is how a rate that the fleet shares stands.
type rate struct {
	// free is the time at which all units that were taken are used up.
	free time.Time
	// perSecond is the rate at which they were taken, 0 when none ever were.
	perSecond float64
}

// take takes units of a rate, and says from when on they may be used. Units that
// were taken at another rate, because the limit was another, count as units, not
// as time: what a low limit put off does not hold up a higher one.
func (r rate) take(now time.Time, units, perSecond float64) (_ rate, at time.Time) {
	ahead := r.free.Sub(now).Seconds()
	if ahead > 0 && r.perSecond > 0 {
		ahead *= r.perSecond / perSecond
	}
	ahead = min(max(ahead, -rateBurst.Seconds()), rateAhead.Seconds())
	at = now.Add(seconds(max(ahead, 0)))
	return rate{now.Add(seconds(min(ahead+units/perSecond, rateAhead.Seconds()))), perSecond}, at
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// String is what is stored: nanoseconds since 1970, a space, units a second.
func (r rate) String() string { return fmt.Sprintf("%d %g", r.free.UnixNano(), r.perSecond) }

func parseRate(s string) (r rate, err error) {
	var free int64
	if _, err := fmt.Sscanf(s, "%d %g", &free, &r.perSecond); err != nil {
		return r, fmt.Errorf("%q is not a time and a rate: %w", s, err)
	}
	r.free = time.Unix(0, free)
	return r, nil
}

// rateKey is the key of a scope's rate in schemas.BucketFleet.
func rateKey(scope string) string { return "rate." + scope }

// Reserve takes units of a rate that the whole fleet shares, so many a second,
// and says from when on they may be used: on the average, and but for a tenth of a
// second that nobody used, no more are used than the rate allows. With 0 units it
// only says when the next may be. The scope is a key of a bucket: letters, digits,
// '-', '_', with dots between. The clock that counts is the server's; the time that is
// returned is by this machine's.
//
// When it fails it is unknown whether the units were taken.
func (b *Broker) Reserve(ctx context.Context, scope string, units, perSecond float64) (at time.Time, err error) {
	if !(perSecond > 0) || !(units >= 0) { // nor are they no numbers
		return at, fmt.Errorf("reserve %g units of %s at %g a second: want 0 or more, and a rate above 0", units, scope, perSecond)
	}
	if at, err = b.reserve(ctx, rateKey(scope), units, perSecond); err != nil {
		return at, fmt.Errorf("reserve %g units of %s: %w", units, scope, err)
	}
	return at, nil
}

func (b *Broker) reserve(ctx context.Context, key string, units, perSecond float64) (at time.Time, err error) {
	kv, err := b.bucket(ctx, schemas.BucketFleet)
	if err != nil {
		return at, err
	}
	for {
		var r rate
		now, err := b.serverTime(ctx)
		if err != nil {
			return at, err
		}
		store := func(value []byte) (uint64, error) { return kv.Create(ctx, key, value) }
		e, err := kv.Get(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
		case err != nil:
			return at, err
		default:
			store = func(value []byte) (uint64, error) { return kv.Update(ctx, key, value, e.Revision()) }
			if r, err = parseRate(string(e.Value())); err != nil {
				return at, fmt.Errorf("%w: remove it with 'nats kv del %s %s'", err, schemas.BucketFleet, key)
			}
		}
		r, at = r.take(now, units, perSecond)
		at = time.Now().Add(at.Sub(now))
		if units == 0 {
			return at, nil
		}
		_, err = store([]byte(r.String()))
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) && !errors.Is(err, jetstream.ErrKeyExists) {
			return at, err
		}
		pause(ctx, rand.N(rateRetry)) //nolint:gosec // spreads load, guards nothing
		if ctx.Err() != nil {
			return at, ctx.Err()
		}
	}
}
