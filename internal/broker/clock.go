package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/exhume/exhume/schemas"
)

// clockFor is how long the server's clock is not asked for again. Meanwhile this
// process goes by how much time has passed, which nobody can set.
const clockFor = 10 * time.Second

// serverTime is what the server's clock shows about now.
func (b *Broker) serverTime(ctx context.Context) (time.Time, error) {
	b.mu.Lock()
	shown, at := b.clock, b.clockAt
	b.mu.Unlock()
	if !at.IsZero() && time.Since(at) < clockFor {
		return shown.Add(time.Since(at)), nil
	}
	asked := time.Now()
	s, err := b.js.Stream(ctx, bucketStreamName(schemas.BucketFleet))
	if err != nil {
		return time.Time{}, fmt.Errorf("the server's clock: %w", err)
	}
	shown, at = s.CachedInfo().TimeStamp, asked.Add(time.Since(asked)/2)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock, b.clockAt = shown, at
	return shown.Add(time.Since(at)), nil
}
