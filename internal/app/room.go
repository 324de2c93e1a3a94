package app

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/schemas"
)

// trimEvery is how often a collector looks whether the broker needs room.
const trimEvery = 250 * time.Millisecond

// bounds are how much the broker keeps.
func bounds(cfg *Config) broker.Bounds {
	e := &cfg.Exhume
	return broker.Bounds{
		QueueBytes: e.QueueBytes.Bytes(), ResultsBytes: e.ResultsBytes.Bytes(), ResultsAge: time.Duration(e.ResultsAge),
		RetriesBytes: e.RetriesBytes.Bytes(),
	}
}

// trim makes room at the broker where it is needed, until the context ends: it
// removes requests that are done and results that are recorded.
func trim(ctx context.Context, b *broker.Broker, log zerolog.Logger) error {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	for {
		if err := errors.Join(b.TrimQueue(ctx), b.TrimResults(ctx)); err != nil && ctx.Err() == nil {
			log.Warn().Err(err).Msg("cannot make room at the broker; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// tellOfRoom adds to the metrics how full queue and results are, in bytes, and their
// bounds; -1 where that is unknown.
func (p *process) tellOfRoom(ctx context.Context) {
	for _, s := range []struct{ stream, name, of string }{
		{schemas.StreamRestore, "exhume_queue", "requests in the queue"}, {schemas.StreamResults, "exhume_results", "results that the broker keeps"},
	} {
		read := func(figure func(broker.Usage) int64) func() float64 {
			return func() float64 {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				defer cancel()
				u, err := p.broker.Usage(ctx, s.stream)
				if err != nil {
					return -1
				}
				return float64(figure(u))
			}
		}
		p.metrics.Gauge(s.name+"_bytes", "Size of the "+s.of+".", read(func(u broker.Usage) int64 { return u.Bytes }))
		p.metrics.Gauge(s.name+"_bound_bytes", "Bound of the "+s.of+"; -1 for none.", read(func(u broker.Usage) int64 { return u.Bound }))
	}
}
