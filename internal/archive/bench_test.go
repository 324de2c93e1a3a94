package archive

import (
	"fmt"
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

// sourceText is text of n bytes that compresses about as well as source code.
func sourceText(seed, n int) []byte {
	words := []string{"func ", "return ", "err != nil {\n", "ctx, ", "item.", "if ", "\t}\n", "range ", "string", "value"}
	var b []byte
	for x := uint32(seed)*2654435761 + 1; len(b) < n; {
		x = x*1664525 + 1013904223
		b = append(b, words[x>>24%10]...)
		if x>>16&3 == 0 {
			b = fmt.Appendf(b, "%x", x>>8)
		}
	}
	return b[:n]
}

// bigArchive has n items of 8 KiB.
func bigArchive(b *testing.B, e engine, n int) (url string, stored []Stored) {
	b.Helper()
	url = e.place(b)
	w := createWriter(b, url)
	return url, storeAll(b, w, newItems(n, func(i int) []byte { return sourceText(i, 8192) })...)
}

const groupSize = 512

func BenchmarkRead(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) { benchmarkRead(b, e) })
	}
}

func benchmarkRead(b *testing.B, e engine) {
	url, stored := bigArchive(b, e, 20000)
	r := openReader(b, url)
	group := func(i int) (ids []string) {
		for k := range groupSize {
			ids = append(ids, stored[(i*groupSize+k*7)%len(stored)].Tombstone)
		}
		return ids
	}
	b.Run("Lookup", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if found, err := r.Lookup(b.Context(), group(i)); err != nil || len(found) == 0 {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(groupSize*b.N)/b.Elapsed().Seconds(), "items/s")
	})
	found, err := r.Lookup(b.Context(), group(3))
	if err != nil {
		b.Fatal(err)
	}
	artifacts := map[string]schemas.Artifact{}
	var ids []string
	for _, a := range found {
		artifacts[a.ID] = a
		ids = append(ids, a.ID)
	}
	b.Run("Blobs", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := r.Blobs(b.Context(), ids, func(string, []byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "items/s")
	})
	b.Run("LookupBlobsDecode", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for i := 0; b.Loop(); i++ {
			if _, err := r.Lookup(b.Context(), group(3)); err != nil {
				b.Fatal(err)
			}
			err := r.Blobs(b.Context(), ids, func(id string, blob []byte) (err error) {
				dst, err = Decode(artifacts[id], blob, dst)
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "items/s")
	})
	b.Run("List50", func(b *testing.B) {
		for b.Loop() {
			for _, err := range r.List(b.Context(), Query{Limit: 50}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("Stats", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Stats(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, codec := range []string{codecZstd, codecZlib} {
		b.Run(codec, func(b *testing.B) {
			content := sourceText(1, 8192)
			blob := compress(b, codec, content)
			a := schemas.Artifact{ID: "a", Codec: codec, Size: int64(len(content))}
			b.SetBytes(a.Size)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				var dst []byte
				for pb.Next() {
					var err error
					if dst, err = Decode(a, blob, dst); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkStore(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) {
			const n = 4000
			for round := 0; b.Loop(); round++ {
				b.StopTimer()
				items := newItems(n, func(i int) []byte { return sourceText(round*n+i, 8192) })
				w := createWriter(b, e.place(b))
				b.StartTimer()
				storeAll(b, w, items...)
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "items/s")
		})
	}
}

func BenchmarkRestored(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) { benchmarkRestored(b, e) })
	}
}

func benchmarkRestored(b *testing.B, e engine) {
	url, stored := bigArchive(b, e, 5000)
	w := createWriter(b, url)
	const n = 1000
	events := make([]RestoreEvent, n)
	total := 0
	for b.Loop() {
		b.StopTimer()
		for i := range events {
			events[i] = RestoreEvent{ID: fmt.Sprintf("0193a5c2-7f10-8abc-9def-%012x", total), Item: stored[total%len(stored)].Item, Actor: "ops", At: time.Now(),
				Context: `{"batch":"b-1","index":1}`}
			total++
		}
		b.StartTimer()
		if err := w.Restored(b.Context(), events); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "events/s")
}
