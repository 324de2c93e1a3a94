package schemas

import (
	"strconv"
	"time"
)

// Request asks for one item of a batch to be restored.
type Request struct {
	Batch string `json:"batch"`
	// Index is the item's place in the batch, from 0. (Batch, Index) is the
	// item's identity for ever.
	Index int64 `json:"index"`
	// Tombstone is the item's UUID in the archive.
	Tombstone string `json:"tombstone"`
	// Output is where the bytes go: a slash-separated path below the batch's root.
	Output string `json:"output"`
	// Actor is on whose behalf the item is restored.
	Actor string `json:"actor"`
	// Labels are the manifest's further columns, carried through to the result.
	Labels map[string]string `json:"labels,omitempty"`
	// Published is when the broker stored the request. It is not part of the
	// message: whoever takes the message from the broker sets it.
	Published time.Time `json:"-"`
}

// ID names the request, <batch>:<index>.
func (r *Request) ID() string { return r.Batch + ":" + strconv.FormatInt(r.Index, 10) }

// MaxRequests is how many requests one message carries at most.
const MaxRequests = 100

// PerMessage is how many requests of a batch of so many items, of which at most
// maxInFlight may be in flight (0: no bound), go into one message. What is in one
// message is done by one worker, so that a small batch, which may be one of large
// artifacts, is divided further.
func PerMessage(total, maxInFlight int64) int64 {
	most := int64(64)
	if maxInFlight > 0 {
		most = min(most, maxInFlight)
	}
	return max(1, min(total/256, most))
}

// RequestGroup is one message on StreamRestore: requests for items of one batch
// that follow each other. Each item keeps its own result, attempts and retries.
type RequestGroup struct {
	Batch string `json:"batch"`
	// First is the index of the first item.
	First int64 `json:"first"`
	// Items are 1 to MaxRequests items.
	Items []RequestItem `json:"items"`
	// Published and NotBefore are set when a worker publishes the request of an
	// item again because an attempt failed: when the first request was stored,
	// and the time of the next attempt.
	Published time.Time `json:"published,omitzero"`
	NotBefore time.Time `json:"not_before,omitzero"`
}

// RequestItem is what a group's message says of one item; see Request.
type RequestItem struct {
	Tombstone string            `json:"tombstone"`
	Output    string            `json:"output"`
	Actor     string            `json:"actor"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// NewRequestGroup puts requests of one batch with consecutive indexes, at least
// one, into one group.
func NewRequestGroup(requests []Request) RequestGroup {
	g := RequestGroup{Batch: requests[0].Batch, First: requests[0].Index, Items: make([]RequestItem, len(requests))}
	for i := range requests {
		r := &requests[i]
		g.Items[i] = RequestItem{Tombstone: r.Tombstone, Output: r.Output, Actor: r.Actor, Labels: r.Labels}
	}
	return g
}

// Request is the group's i-th request.
func (g *RequestGroup) Request(i int) Request {
	item := &g.Items[i]
	return Request{
		Batch: g.Batch, Index: g.First + int64(i),
		Tombstone: item.Tombstone, Output: item.Output, Actor: item.Actor, Labels: item.Labels,
	}
}
