package collector

import (
	"encoding/json"
	"testing"

	"github.com/exhume/exhume/schemas"
)

// Reading a result allocates what it holds, not more: its strings.
func TestDecodingAllocatesLittle(t *testing.T) {
	g := schemas.ResultGroup{Batch: "b", Worker: "w"}
	for i := range int64(512) {
		g.Results = append(g.Results, results("b", i)...)
	}
	data, err := json.Marshal(g)
	must(t, err)
	allocs := testing.AllocsPerRun(10, func() {
		if got, _, err := decode(data); err != nil || len(got) != len(g.Results) {
			t.Fatal(len(got), err)
		}
	})
	if each := allocs / float64(len(g.Results)); each > 2 {
		t.Errorf("%.1f allocations a result", each)
	}
}
