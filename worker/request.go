package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	// The same rules as encoding/json, twice as fast.
	fastjson "github.com/go-json-experiment/json/v1"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// taken is a message in hand.
type taken struct {
	Message
	// items is how many it asks for, and retryAt, if set, when its item, which
	// has failed before, is to be tried again.
	items   int
	retryAt time.Time
}

// held is one item in hand.
type held struct {
	of      *taken
	request schemas.Request
	// past are its failed attempts, nil as long as nobody has looked.
	past *schemas.Retry
}

// decoded is what a number of messages say.
type decoded struct {
	msgs []Message // those of good and bad
	good []held
	// bad are items of which it is known that they are asked for, but not how;
	// failed has a result for each.
	bad    []held
	failed []schemas.Result
	// early are messages whose items are not to be tried again yet, foreign
	// those that name no item.
	early   []*taken
	foreign []Message
}

// decode reads a batch's messages; at once says that the time of the next try does
// not matter.
func decode(batch string, msgs []Message, atOnce bool) (d decoded) {
	for _, m := range msgs {
		t := &taken{Message: m}
		requests, err := t.decode(batch)
		if len(requests) == 0 {
			d.foreign = append(d.foreign, m)
			continue
		}
		// Time is only waited for once: the clock that set it may be wrong.
		if !atOnce && !t.Redelivered() && time.Now().Before(t.retryAt) {
			d.early = append(d.early, t)
			continue
		}
		d.msgs = append(d.msgs, t)
		for _, r := range requests {
			if err == nil {
				d.good = append(d.good, held{of: t, request: r})
			} else {
				d.bad = append(d.bad, held{of: t, request: r})
				d.failed = append(d.failed, failure(r, err))
			}
		}
	}
	return d
}

// decode reads one message. When it returns an error, the requests have batch
// and index only, and there are none when not even those are known. What stands
// beside the payload counts for more than what is in it.
func (t *taken) decode(batch string) ([]schemas.Request, error) {
	if batch == schemas.Single {
		return t.decodeSingle()
	}
	var g schemas.RequestGroup
	err := fastjson.Unmarshal(t.Data(), &g)
	from, to, beside := t.Indexes()
	beside = beside && plausible(from, to)
	first, last := g.First, g.First+int64(len(g.Items))-1
	switch {
	case err != nil:
	case g.Batch != batch:
		err = fmt.Errorf("it is of batch %q, on the subject of batch %q", g.Batch, batch)
	case !plausible(first, last):
		err = fmt.Errorf("it asks for %d items from %d on", len(g.Items), first)
	case beside && (first != from || last != to):
		err = fmt.Errorf("it asks for items %d to %d, and beside it stands %d to %d", first, last, from, to)
	}
	if err != nil {
		if !beside {
			return nil, err
		}
		first, last = from, to
		err = fault.New(schemas.CodeBadRequest, "request cannot be understood: %w; payload %s", err, quote(t.Data()))
	}
	requests := make([]schemas.Request, last-first+1)
	for i := range requests {
		r := &requests[i]
		if err == nil {
			*r = g.Request(i)
		}
		r.Batch, r.Index, r.Published = batch, first+int64(i), t.PublishedAt()
		if err == nil && !g.Published.IsZero() {
			r.Published = g.Published
		}
	}
	t.items = len(requests)
	if err == nil {
		t.retryAt = g.NotBefore
	}
	return requests, err
}

// decodeSingle reads a message that asks for one item and that anybody may have
// published.
func (t *taken) decodeSingle() ([]schemas.Request, error) {
	t.items = 1
	id, index := t.Single()
	r := schemas.Request{Batch: schemas.Single, Index: index, Published: t.PublishedAt()}
	var s schemas.SingleRequest
	err := json.Unmarshal(t.Data(), &s)
	if err == nil {
		r.Tombstone, r.Output, r.Actor, r.Labels = s.Tombstone, s.Output, s.Actor, s.Labels
	}
	switch {
	case err != nil:
	case s.Tombstone == "":
		err = errors.New("it names no tombstone")
	case s.Output == "":
		err = errors.New("it names no output")
	case s.Actor == "":
		err = errors.New("it names no actor")
	case !schemas.CheckRequestID(id):
		err = fmt.Errorf("its id %q is not 1 to 64 letters, digits, '-' and '_'", id)
	}
	if !schemas.CheckRequestID(id) {
		id = fmt.Sprintf("seq-%d", index)
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	r.Labels[schemas.LabelRequestID] = id
	if err != nil {
		err = fault.New(schemas.CodeBadRequest, "request cannot be understood: %w; payload %s", err, quote(t.Data()))
	}
	return []schemas.Request{r}, err
}

// itemsOf is how many items a message asks for by what stands beside it, at
// least one.
func itemsOf(m Message) int {
	if first, last, ok := m.Indexes(); ok && plausible(first, last) {
		return int(last-first) + 1
	}
	return 1
}

func itemsIn(msgs []Message) (n int) {
	for _, m := range msgs {
		n += itemsOf(m)
	}
	return n
}

func plausible(first, last int64) bool {
	return first >= 0 && last >= first && last-first < schemas.MaxRequests
}

// quote is a payload as far as it can be kept in a line.
func quote(data []byte) string { return fmt.Sprintf("%.512q", data) }
