package broker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// SetSteering shows all workers what holds for the fleet.
func (b *Broker) SetSteering(ctx context.Context, s schemas.Steering) error {
	return b.put(ctx, schemas.BucketFleet, schemas.KeySteering, s)
}

// WatchFleet calls show with what holds for the fleet, at first and whenever it
// changes, until the context ends. Where nothing was ever set it shows the zero
// value first. An error means that it cannot know any more.
func (b *Broker) WatchFleet(ctx context.Context, show func(schemas.Steering)) error {
	shown := false
	return b.watch(ctx, schemas.BucketFleet, schemas.KeySteering, func(e jetstream.KeyValueEntry) (done bool, err error) {
		if e == nil && shown {
			return false, nil
		}
		var s schemas.Steering
		if e != nil && e.Operation() == jetstream.KeyValuePut {
			if err := json.Unmarshal(e.Value(), &s); err != nil {
				return false, fmt.Errorf("%s in %s: %w", schemas.KeySteering, schemas.BucketFleet, err)
			}
		}
		shown = true
		show(s)
		return false, nil
	})
}
