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

// PublishResults stores results and failures of one worker and batch, in as few messages as
// their size allows, and returns when all are stored. When it fails some may be
// stored; repeating is harmless. While the stream is full of results that no
// collector has recorded, the error carries CodeBrokerFull.
func (b *Broker) PublishResults(ctx context.Context, g schemas.ResultGroup) error {
	data, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("results of %s: %w", g.Batch, err)
	}
	if n, f := len(g.Results), len(g.Failures); len(data) > min(maxResultBytes, int(b.nc.MaxPayload()/2)) && n+f > 1 {
		// As if all stood in one list.
		half := (n + f) / 2
		head, tail := g, g
		head.Results, tail.Results = g.Results[:min(half, n)], g.Results[min(half, n):]
		head.Failures, tail.Failures = g.Failures[:max(0, half-n)], g.Failures[max(0, half-n):]
		if err := b.PublishResults(ctx, head); err != nil {
			return err
		}
		return b.PublishResults(ctx, tail)
	}
	ctx, cancel := context.WithTimeout(ctx, b.publishTimeout)
	defer cancel()
	_, err = b.js.PublishMsg(ctx, &nats.Msg{Subject: schemas.ResultSubject(g.Worker, g.Batch), Data: data})
	if err != nil {
		return fmt.Errorf("publish results of %s: %w", g.Batch, b.whyFull(ctx, schemas.StreamResults, err))
	}
	return nil
}

// Results takes up to n messages of results that are waiting; see fetch.
func (b *Broker) Results(ctx context.Context, n int, wait time.Duration) ([]*Delivery, error) {
	return b.fetch(ctx, schemas.StreamResults, collectorConsumer, n, wait)
}
