package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/schemas"
)

// maxResultBytes bounds one message of results, well below the payload limit
// that servers have by default (1 MiB).
const maxResultBytes = 512 << 10

// PublishResults stores results of one worker and batch, in as few messages as
// their size allows, and returns when all are stored. When it fails some may be
// stored; repeating is harmless.
func (b *Broker) PublishResults(ctx context.Context, g schemas.ResultGroup) error {
	data, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("results of %s: %w", g.Batch, err)
	}
	if n := len(g.Results); len(data) > min(maxResultBytes, int(b.nc.MaxPayload()/2)) && n > 1 {
		head, tail := g, g
		head.Results, tail.Results = g.Results[:n/2], g.Results[n/2:]
		if err := b.PublishResults(ctx, head); err != nil {
			return err
		}
		return b.PublishResults(ctx, tail)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err = b.js.PublishMsg(ctx, &nats.Msg{Subject: schemas.ResultSubject(g.Worker, g.Batch), Data: data})
	if err != nil {
		return fmt.Errorf("publish results of %s: %w", g.Batch, err)
	}
	return nil
}

// Results takes up to n messages of results that are waiting; see fetch.
func (b *Broker) Results(ctx context.Context, n int, wait time.Duration) ([]*Delivery, error) {
	return b.fetch(ctx, schemas.StreamResults, collectorConsumer, n, wait)
}
