package evidence

import (
	"testing"

	"github.com/exhume/exhume/schemas"
)

// A line is written without allocating, whatever it holds.
func TestEncodingAllocatesNothing(t *testing.T) {
	index, size, ms := int64(7), int64(8000), 1.25
	r := schemas.Record{
		Action: schemas.ActionRestore, Actor: "ops", Attempt: 1, Batch: "b", Index: &index, Outcome: schemas.OutcomeRestored, Path: "/data/\"é\".go",
		SHA256: "0123456789abcdef", Size: &size, Tombstone: "2841586a-97ab-428d-bb47-000000000001", DurationMS: &ms, Worker: "w", TS: "2026-01-02T03:04:05Z",
	}
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = appendRecord(buf[:0], &r) }); n > 0 {
		t.Errorf("%v allocations a line", n)
	}
}
