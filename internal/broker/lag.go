package broker

import (
	"context"
	"fmt"

	"github.com/exhume/exhume/schemas"
)

// Unrecorded is how many messages of results no collector has recorded yet, of
// all batches.
func (b *Broker) Unrecorded(ctx context.Context) (int64, error) {
	c, err := b.js.Consumer(ctx, schemas.StreamResults, collectorConsumer)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", collectingName, err)
	}
	info := c.CachedInfo()
	return int64(info.NumPending) + int64(info.NumAckPending), nil
}
