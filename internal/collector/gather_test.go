package collector

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/schemas"
)

// endless is a queue that always has as many messages as are asked for.
type endless struct {
	Queue
	data []byte
}

type message []byte

func (m message) Data() []byte          { return m }
func (message) Ack() error              { return nil }
func (message) Nak(time.Duration) error { return nil }

func (q endless) Results(_ context.Context, n int, _ time.Duration) (msgs []Message, err error) {
	for range n {
		msgs = append(msgs, message(q.data))
	}
	return msgs, nil
}

// However much waits, what is recorded together is bounded, in results and in bytes.
func TestGatherIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ results, detail, want int }{
		{1000, 0, 8000}, // at least 4,096, eight messages at a time
		{1, 400 << 10, 48},
	} {
		g := schemas.ResultGroup{Batch: "b", Worker: "w", Results: make([]schemas.Result, c.results)}
		for i := range g.Results {
			g.Results[i] = schemas.Result{Outcome: schemas.OutcomeRestored, Detail: strings.Repeat("x", c.detail)}
			g.Results[i].Batch, g.Results[i].Index = "b", int64(i)
		}
		data, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		got, err := New(nil, endless{data: data}, nil, zerolog.Nop()).gather(t.Context(), time.Minute)
		if err != nil || got.size() != c.want {
			t.Errorf("%d results, %v; want %d", got.size(), err, c.want)
		}
	}
}
