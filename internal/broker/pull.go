package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pullBytes bounds what one pull brings into memory, and into the buffer
	// that the server keeps for this connection.
	pullBytes = 16 << 20
	// pullGrace is how long a pull is waited for after its last sign. The server
	// says nothing while as many messages are in hand as may be.
	pullGrace = time.Second
	// settled is how long nothing more comes before what has come may be all that
	// can come just now, because as many messages are in hand as may be.
	settled = 50 * time.Millisecond
	// owedGrace is how long messages are waited for that the server has promised:
	// its cluster has to agree on each delivery first.
	owedGrace = 10 * time.Second
)

// pullRequest is what a pull consumer is asked for.
type pullRequest struct {
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes"`
	Expires  time.Duration `json:"expires,omitempty"`
	NoWait   bool          `json:"no_wait,omitempty"`
}

// fetch takes up to n messages that are there, waiting up to wait for the first.
// It never asks the server for more than it returns, so that no lease runs on a
// message that nobody looks at. No message in time is an empty result. When the
// context ends, messages that are on their way already are still returned.
func (b *Broker) fetch(ctx context.Context, stream, consumer string, n int, wait time.Duration) ([]*Delivery, error) {
	out, err := b.pull(ctx, stream, consumer, n, 0)
	if len(out) > 0 || err != nil || wait <= 0 {
		return out, err
	}
	// One only, because a pull that waits ends when all it asked for are there.
	out, err = b.pull(ctx, stream, consumer, 1, wait)
	if len(out) == 0 || err != nil || n == 1 {
		return out, err
	}
	more, err := b.pull(ctx, stream, consumer, n-1, 0)
	return append(out, more...), err
}

// pull sends one request to a consumer and gathers what it brings. The client
// library's Fetch is not used because it loses messages: those that arrive
// when its context or its patience (a second) has just ended wait for the end of
// their lease.
func (b *Broker) pull(ctx context.Context, stream, consumer string, n int, wait time.Duration) ([]*Delivery, error) {
	if ctx.Err() != nil {
		return nil, nil
	}
	body, err := json.Marshal(pullRequest{Batch: n, MaxBytes: pullBytes, Expires: wait, NoWait: wait == 0})
	if err != nil {
		return nil, err
	}
	inbox, in := b.nc.NewInbox(), make(chan *nats.Msg, n+1) // and the status
	next := "CONSUMER.MSG.NEXT." + stream + "." + consumer
	ctx, w := b.denials.wait(ctx, append(b.ofAPI(next), toSubscribe(inbox))...)
	defer w.end()
	sub, err := b.nc.ChanSubscribe(inbox, in)
	if err != nil {
		return nil, fmt.Errorf("take from %s: %w", consumer, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only on a connection that is closed
	if err := b.nc.PublishRequest(b.api+next, inbox, body); err != nil {
		return nil, fmt.Errorf("take from %s: %w", consumer, err)
	}
	reclaimed := b.reclaimedOf(stream, consumer)
	var out []*Delivery
	settling := settled
	start := time.Now()
	patience, silence := time.NewTimer(wait+pullGrace), time.NewTimer(settled)
	defer patience.Stop()
	defer silence.Stop()
	for len(out) < n {
		select {
		case msg := <-in:
			if isStatus(msg) {
				if promised := owed(msg, n); promised > len(out) {
					n = promised
					patience.Reset(owedGrace)
					silence.Stop()
					settling = owedGrace
					continue
				}
				return out, statusError(consumer, msg)
			}
			if len(out) == 0 {
				settling = min(max(settled, 4*time.Since(start)), pullGrace)
			}
			out = append(out, delivery(msg, reclaimed))
			patience.Reset(pullGrace)
			silence.Reset(settling)
		case <-silence.C:
			// The server is silent about messages that it keeps back.
			if wait == 0 && (len(out) > 0 || b.full(ctx, stream, consumer)) {
				return b.late(sub, in, out, reclaimed)
			}
		case <-patience.C:
			return b.late(sub, in, out, reclaimed)
		case <-ctx.Done():
			if denied := denial(ctx); denied != nil {
				return out, fmt.Errorf("take from %s: %w", consumer, denied)
			}
			out, _ = b.late(sub, in, out, reclaimed)
			return out, nil
		}
	}
	return out, nil
}

// full says whether as many messages of a consumer are in hand as may be.
func (b *Broker) full(ctx context.Context, stream, consumer string) bool {
	ctx, cancel := context.WithTimeout(ctx, pullGrace)
	defer cancel()
	c, err := b.js.Consumer(ctx, stream, consumer)
	if err != nil {
		return false
	}
	i := c.CachedInfo()
	return i.Config.MaxAckPending > 0 && i.NumAckPending >= i.Config.MaxAckPending
}

// late ends a pull early and gathers what the server had sent before it knew.
func (b *Broker) late(sub *nats.Subscription, in <-chan *nats.Msg, out []*Delivery, reclaimed reclaim) ([]*Delivery, error) {
	err := sub.Drain() // tells the server, and goes on receiving
	if err == nil {
		err = b.nc.FlushTimeout(callTimeout)
	}
	for {
		select {
		case msg := <-in:
			if !isStatus(msg) {
				out = append(out, delivery(msg, reclaimed))
			}
		default:
			if err != nil && len(out) == 0 {
				return nil, fmt.Errorf("take messages: the broker does not answer: %w", err)
			}
			return out, nil
		}
	}
}

// isStatus tells what the server says about a pull from the messages it brings:
// those have a subject for their acknowledgement.
func isStatus(msg *nats.Msg) bool { return msg.Reply == "" }

// owed is how many messages a pull for n brings in all, as the status at its end
// tells. In a cluster that status comes before the messages.
func owed(msg *nats.Msg, n int) int {
	if msg.Header.Get("Status") != "409" {
		return 0
	}
	pending, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
	if err != nil {
		return 0
	}
	return n - pending
}

func statusError(consumer string, msg *nats.Msg) error {
	switch status, text := msg.Header.Get("Status"), msg.Header.Get("Description"); status {
	case "404", "408": // no messages, or no more
		return nil
	case "503":
		return fmt.Errorf("take from %s: there is no such consumer, or it has no leader just now", consumer)
	default:
		if text == "Message Size Exceeds MaxBytes" || text == "Batch Completed" {
			return nil
		}
		return fmt.Errorf("take from %s: %s %s", consumer, status, text)
	}
}
