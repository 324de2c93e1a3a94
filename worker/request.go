package worker

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// held is a request in hand.
type held struct {
	msg     Message
	request schemas.Request
}

// decode sorts a batch's messages: requests; those that say which item they are
// of but not what is wanted, with a failed result for each; and those that say
// nothing, which are of no item.
func decode(batch string, msgs []Message) (good, bad []held, failed []schemas.Result, foreign []Message) {
	good = make([]held, 0, len(msgs))
	for _, m := range msgs {
		r, known, err := decodeOne(batch, m)
		r.Published = m.PublishedAt()
		switch {
		case err == nil:
			good = append(good, held{m, r})
		case known:
			bad = append(bad, held{m, r})
			failed = append(failed, failure(r, err))
		default:
			foreign = append(foreign, m)
		}
	}
	return good, bad, failed, foreign
}

// decodeOne reads one request. Known says whether batch and index of r can be
// relied upon. The index beside the payload counts for more than the one in it.
func decodeOne(batch string, m Message) (r schemas.Request, known bool, err error) {
	var payload struct {
		schemas.Request
		Index json.RawMessage `json:"index"`
	}
	err = json.Unmarshal(m.Data(), &payload)
	r = payload.Request
	index, beside := m.Index()
	inside, ierr := strconv.ParseInt(string(payload.Index), 10, 64)
	switch {
	case err != nil:
	case ierr != nil:
		err = fmt.Errorf("its index is %q", payload.Index)
	case r.Batch != batch:
		err = fmt.Errorf("it is of batch %q, on the subject of batch %q", r.Batch, batch)
	case beside && inside != index:
		err = fmt.Errorf("its index is %d and %d beside it", inside, index)
	}
	if !beside && ierr == nil && r.Batch == batch {
		index, beside = inside, true
	}
	known = beside && index >= 0
	if !known && err == nil {
		err = fmt.Errorf("its index is %d", index)
	}
	r.Batch, r.Index = batch, index
	if err != nil {
		err = fault.New(schemas.CodeBadRequest, "request cannot be understood: %w; payload %s", err, quote(m.Data()))
	}
	return r, known, err
}

// quote is a payload as far as it can be kept in a line.
func quote(data []byte) string { return fmt.Sprintf("%.512q", data) }
