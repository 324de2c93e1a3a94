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
	// gatherBytes is how long the messages with them are at most, about: results with
	// many labels are long.
	gatherBytes = 16 << 20
	// gatherFor is how long results wait for more to come.
	gatherFor = 250 * time.Millisecond
	// fetchMessages is how many messages are taken at once.
	fetchMessages = 8
)

// gathered is a number of messages in hand, and the results and failed attempts in
// them.
type gathered struct {
	msgs     []Message
	bytes    int // of the messages
	results  []schemas.Result
	failures []schemas.Failure
}

// size is how much there is to record.
func (g *gathered) size() int { return len(g.results) + len(g.failures) }

// full says whether it is as much as is recorded together.
func (g *gathered) full() bool { return g.size() >= gatherResults || g.bytes >= gatherBytes }

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
		before := len(g.results)
		c.add(&g, msgs)
		for i := range g.results[before:] {
			here[g.results[before+i].Batch]++
		}
		wait = time.Until(end)
		if !c.expectsMore(here) {
			wait = 0
		}
		// What came as many as were asked for has more behind it.
		if g.full() || wait <= 0 && len(msgs) < fetchMessages {
			return g, nil
		}
		wait = max(0, wait)
	}
}

// add adds messages and what can be told of what is in them.
func (c *Collector) add(g *gathered, msgs []Message) {
	g.msgs = append(g.msgs, msgs...)
	for _, m := range msgs {
		g.bytes += len(m.Data())
		results, failures, err := decode(m.Data())
		if err != nil {
			c.log.Error().Err(err).Str("payload", quote(m.Data())).Int("known", len(results)+len(failures)).
				Msg("results cannot be understood; see the message in stream " + schemas.StreamResults)
		}
		g.results, g.failures = append(g.results, results...), append(g.failures, failures...)
	}
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
