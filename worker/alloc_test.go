package worker

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

// carried is a message that is only read.
type carried struct {
	Message
	data        []byte
	first, last int64
}

func (m carried) Data() []byte                  { return m.data }
func (m carried) Indexes() (_, _ int64, _ bool) { return m.first, m.last, true }
func (m carried) PublishedAt() time.Time        { return time.Unix(0, 0) }
func (m carried) Redelivered() bool             { return false }

// Reading a request allocates what it holds, not more: its strings.
func TestDecodingAllocatesLittle(t *testing.T) {
	var requests []schemas.Request
	for i := range int64(64) {
		requests = append(requests, schemas.Request{Batch: "b", Index: i, Tombstone: fmt.Sprintf("2841586a-97ab-428d-bb47-%012x", i), Output: fmt.Sprint("dir/file-", i), Actor: "ops"})
	}
	data, err := json.Marshal(schemas.NewRequestGroup(requests))
	if err != nil {
		t.Fatal(err)
	}
	msgs := []Message{carried{data: data, first: 0, last: 63}}
	allocs := testing.AllocsPerRun(10, func() {
		if d := decode("b", msgs, false); len(d.good) != len(requests) {
			t.Fatalf("%d requests, %v", len(d.good), d.failed)
		}
	})
	if each := allocs / float64(len(requests)); each > 4 {
		t.Errorf("%.1f allocations a request", each)
	}
}
