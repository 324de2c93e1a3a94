package control

import (
	"encoding/json"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/exhume/exhume/schemas"
)

// Requests that somebody had kept are those of the indexes that are asked for, as
// they were kept, or nothing can be told of them.
func FuzzKept(f *testing.F) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, first, last int64, raw bool) {
		n := last - first + 1
		if first < 0 || n < 1 || n > schemas.MaxKept { // see Keep
			return
		}
		k := schemas.Kept{Batch: "b", First: first, Last: last, Body: text}
		if !raw {
			k.Body = z.EncodeAll(text, nil)
		}
		var want []schemas.RequestItem
		readable := !raw && json.Unmarshal(text, &want) == nil && int64(len(want)) == n
		got, err := requestsOf(k, []int64{first, last})
		if !raw && (err == nil) != readable {
			t.Fatalf("%q from %d to %d: %v", text, first, last, err)
		}
		if err != nil {
			return
		}
		if len(got) != 2 || got[0].Index != first || got[1].Index != last || got[0].Batch != "b" {
			t.Errorf("%+v from %d to %d", got, first, last)
		}
		if readable && (got[1].Tombstone != want[n-1].Tombstone || got[1].Output != want[n-1].Output || got[1].Actor != want[n-1].Actor) {
			t.Errorf("%+v, want %+v", got[1], want[n-1])
		}
	})
}
