package worker

import (
	"encoding/json"
	"slices"
	"testing"

	fastjson "github.com/go-json-experiment/json/v1"
	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// The fast reader of requests and the one that defines what JSON is agree.
func FuzzGroupAsJSON(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var fast, slow schemas.RequestGroup
		ferr, serr := fastjson.Unmarshal(data, &fast), json.Unmarshal(data, &slow)
		if (ferr == nil) != (serr == nil) {
			t.Fatalf("fast: %v; encoding/json: %v", ferr, serr)
		}
		if diff := cmp.Diff(slow, fast); serr == nil && diff != "" {
			t.Errorf("encoding/json (-), fast (+):\n%s", diff)
		}
	})
}

// A message that anybody may have published is one item, whatever it says, and
// its result has an id that can be a part of a subject.
func FuzzDecodeSingle(f *testing.F) {
	f.Fuzz(func(t *testing.T, data, id string) {
		d := decode(schemas.Single, []Message{fakeMessage{data: data, first: -1, id: id}}, false)
		items := slices.Concat(d.good, d.bad)
		if len(items) != 1 || len(d.failed) != len(d.bad) || len(d.foreign)+len(d.early) > 0 {
			t.Fatalf("got %+v", d)
		}
		r := items[0].request
		if r.Batch != schemas.Single || r.Index != 77 || !schemas.CheckRequestID(r.Labels[schemas.LabelRequestID]) {
			t.Errorf("got %+v", r)
		}
		if len(d.good) == 1 && (r.Tombstone == "" || r.Output == "" || r.Actor == "" || r.Labels[schemas.LabelRequestID] != id) {
			t.Errorf("taken for good: %+v", r)
		}
		for _, r := range d.failed {
			if _, err := json.Marshal(r); err != nil || r.Code != schemas.CodeBadRequest {
				t.Errorf("got %+v, %v", r, err)
			}
		}
	})
}
