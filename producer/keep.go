package producer

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const (
	// keepBytes is about how much JSON is kept in one piece at most. It bounds what
	// reading one back takes.
	keepBytes = 1 << 20
	// maxBody is how long a piece is at most, compressed: with base64 a quarter of the
	// payload that brokers take by default. A single request may be longer.
	maxBody = 192 << 10
	// askedInVain is how often a collector that answers something else does not answer
	// what is kept, until it is taken for an older program.
	askedInVain = 3
)

// keeper has the requests of a batch kept, in the order of their indexes, before
// they are published: what the broker loses of them can be published again.
type keeper struct {
	control Control
	batch   string
	// next is the lowest index that is not kept.
	next  int64
	items []schemas.RequestItem // from next on
	bytes int
	zstd  *zstd.Encoder
	// off: the collector is an older program, which keeps nothing.
	off bool
}

// newKeeper goes on where whoever submitted the batch before has stopped.
func newKeeper(ctx context.Context, c Control, batch schemas.Batch) (*keeper, error) {
	next, err := c.Kept(ctx, batch.ID)
	for asked := 1; fault.Is(err, schemas.CodeNoCollector); asked++ {
		if asked > askedInVain {
			return &keeper{off: true}, nil
		}
		// An older program answers all but this question, one that is away none.
		if _, err := c.Open(ctx, batch); err != nil {
			return nil, err
		}
		next, err = c.Kept(ctx, batch.ID)
	}
	if err != nil {
		return nil, err
	}
	k := &keeper{control: c, batch: batch.ID, next: next}
	k.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	return k, err
}

// wants says whether not all of so many requests are kept.
func (k *keeper) wants(total int64) bool { return !k.off && k.next < total }

// add takes a request in. They come in the order of their indexes.
func (k *keeper) add(ctx context.Context, r *schemas.Request) error {
	if k.off || r.Index < k.next+int64(len(k.items)) {
		return nil
	}
	k.items = append(k.items, schemas.RequestItem{Tombstone: r.Tombstone, Output: r.Output, Actor: r.Actor, Labels: r.Labels})
	k.bytes += requestBytes(r)
	if len(k.items) < schemas.MaxKept && k.bytes < keepBytes {
		return nil
	}
	return k.flush(ctx)
}

// requestBytes is about how long a request is as JSON.
func requestBytes(r *schemas.Request) int {
	const names, label = 40, 6
	n := names + len(r.Tombstone) + len(r.Output) + len(r.Actor)
	for name, value := range r.Labels {
		n += label + len(name) + len(value)
	}
	return n
}

// flush has everything kept that was taken in.
func (k *keeper) flush(ctx context.Context) error {
	err := k.keep(ctx, k.items)
	k.items, k.bytes = k.items[:0], 0
	return err
}

func (k *keeper) keep(ctx context.Context, items []schemas.RequestItem) error {
	if len(items) == 0 {
		return nil
	}
	text, err := json.Marshal(items)
	if err != nil {
		return fmt.Errorf("requests of batch %s from item %d: %w", k.batch, k.next, err)
	}
	body := k.zstd.EncodeAll(text, nil)
	if n := len(items); n > 1 && len(body) > maxBody {
		if err := k.keep(ctx, items[:n/2]); err != nil {
			return err
		}
		return k.keep(ctx, items[n/2:])
	}
	last := k.next + int64(len(items)) - 1
	if err := k.control.Keep(ctx, schemas.Kept{Batch: k.batch, First: k.next, Last: last, Body: body}); err != nil {
		return err
	}
	k.next = last + 1
	failpoint.Here("producer.kept")
	return nil
}
