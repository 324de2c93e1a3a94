package collector

import (
	"context"
	"math"
	"time"

	"github.com/exhume/exhume/schemas"
)

const (
	// gatherResults is how many results are recorded together at most. Each
	// recording waits for the disk several times, and touches random pages of
	// the archive's tables that many restorations share.
	gatherResults = 4096
	// gatherFor is how long results wait for more to come.
	gatherFor = 250 * time.Millisecond
	// fetchMessages is how many messages are taken at once.
	fetchMessages = 8
)

// gathered is a number of messages in hand and the results in them.
type gathered struct {
	msgs    []Message
	results []schemas.Result
}

// gather takes the results that are there, waiting for the first, and as long as
// all their batches expect more than that, those that come within gatherFor.
// Without a wait it takes only what is there.
func (c *Collector) gather(ctx context.Context, wait time.Duration) (g gathered, err error) {
	here := map[string]int64{}
	var end time.Time
	for {
		msgs, err := c.queue.Results(ctx, fetchMessages, wait)
		if err != nil || len(msgs) == 0 {
			return g, err
		}
		if wait > 0 && end.IsZero() {
			end = time.Now().Add(gatherFor)
		}
		g.msgs = append(g.msgs, msgs...)
		for _, r := range c.decode(msgs) {
			g.results = append(g.results, r)
			here[r.Batch]++
		}
		wait = time.Until(end)
		if !c.expectsMore(here) {
			wait = 0
		}
		// What came as many as were asked for has more behind it.
		if len(g.results) >= gatherResults || wait <= 0 && len(msgs) < fetchMessages {
			return g, nil
		}
		wait = max(0, wait)
	}
}

func (c *Collector) decode(msgs []Message) (results []schemas.Result) {
	for _, m := range msgs {
		known, err := decode(m.Data())
		if err != nil {
			c.log.Error().Err(err).Str("payload", quote(m.Data())).Int("known", len(known)).
				Msg("results cannot be understood; see the message in stream " + schemas.StreamResults)
		}
		results = append(results, known...)
	}
	return results
}

// expect remembers how many results of a batch are still to come.
func (c *Collector) expect(s schemas.Summary) {
	switch {
	case s.ID == schemas.Single:
		// Somebody waits for each of them.
	case s.InCanary():
		delete(c.expected, s.ID) // the sample is small, and the rest waits for it
	case s.SealedAt.IsZero():
		c.expected[s.ID] = math.MaxInt64
	case s.Open() > 0:
		c.expected[s.ID] = s.Open()
	default:
		delete(c.expected, s.ID)
	}
}

// expectsMore says whether all the batches expect more than is here, so that
// little is left to record when the last result of a batch comes. A batch that is
// not known yet does not: it may be a small one, and somebody waits.
func (c *Collector) expectsMore(here map[string]int64) bool {
	for batch, n := range here {
		if n >= c.expected[batch]-n {
			return false
		}
	}
	return true
}
