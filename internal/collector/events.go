package collector

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/exhume/exhume/schemas"
)

// restorations gives the events of those results that are restorations.
func restorations(batches []schemas.Summary, results []schemas.Result) []Event {
	prefixes := make(map[string]uuid.UUID, len(batches))
	for _, s := range batches {
		prefixes[s.ID] = eventPrefix(s.Batch)
	}
	events := make([]Event, 0, len(results))
	for i := range results {
		r := &results[i]
		prefix, known := prefixes[r.Batch]
		if r.Outcome != schemas.OutcomeRestored || !known {
			continue
		}
		events = append(events, Event{
			ID: eventID(prefix, r.Index), Item: r.Item, Actor: r.Actor, At: r.FinishedAt, Batch: r.Batch, Index: r.Index,
		})
	}
	return events
}

// eventPrefix is what the ids of a batch's events have in common: the time of
// its birth, so that ids grow and indexes stay compact, and a digest of what it
// is. The birth also tells the same manifest, restored again from a new ledger,
// from the first time.
//
// It is a UUID of version 8 (RFC 9562, section 5.8) whose last five bytes are
// left to the index.
func eventPrefix(b schemas.Batch) (id uuid.UUID) {
	born := b.CreatedAt.UTC()
	sum := sha256.Sum256([]byte(b.ID + " " + born.Format(time.RFC3339Nano)))
	binary.BigEndian.PutUint64(id[:], uint64(born.UnixMilli())<<16)
	copy(id[6:11], sum[:])
	id[6] = id[6]&0x0f | 0x80 // version
	id[8] = id[8]&0x3f | 0x80 // variant
	return id
}

// eventID is the id of the event that item index of a batch was restored, the
// same whenever it is asked for, growing with the index.
func eventID(prefix uuid.UUID, index int64) string {
	if index >= 1<<40 { // of a single request: a sequence number, for which there is no room
		return uuid.NewHash(sha256.New(), prefix, binary.BigEndian.AppendUint64(nil, uint64(index)), 8).String()
	}
	prefix[11] = byte(index >> 32)
	binary.BigEndian.PutUint32(prefix[12:], uint32(index))
	return prefix.String()
}
