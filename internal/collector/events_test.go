package collector

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/exhume/exhume/schemas"
)

// Ids of events are well-formed, stay the same, grow with the index, and differ
// between items, batches and births.
func TestEventID(t *testing.T) {
	born := time.Date(2026, 11, 22, 18, 0, 0, 123456789, time.UTC)
	seen := map[string]bool{}
	for _, b := range []schemas.Batch{
		{ID: "a", CreatedAt: born}, {ID: "b", CreatedAt: born}, {ID: "a", CreatedAt: born.Add(time.Nanosecond)},
	} {
		prefix, last := eventPrefix(b), ""
		for _, index := range []int64{0, 1, 255, 256, 1 << 31, 1 << 32, 1<<40 - 1, 1 << 40, 1<<50 + 7, 1<<50 + 8} {
			id := eventID(prefix, index)
			if u, err := uuid.Parse(id); err != nil || u.Version() != 8 || u.Variant() != uuid.RFC4122 {
				t.Errorf("%s is no UUID of version 8 (%v)", id, err)
			}
			if index < 1<<40 && id <= last || seen[id] {
				t.Errorf("%s of index %d does not grow after %s, or was there before", id, index, last)
			}
			if again := eventID(eventPrefix(b), index); again != id {
				t.Errorf("index %d has id %s and then %s", index, id, again)
			}
			seen[id], last = true, id
		}
	}
}
