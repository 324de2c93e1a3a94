package collector

import (
	"encoding/json"
	"testing"

	fastjson "github.com/go-json-experiment/json/v1"
	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// The fast reader of results and the one that defines what JSON is agree.
func FuzzGroupAsJSON(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var fast, slow schemas.ResultGroup
		ferr, serr := fastjson.Unmarshal(data, &fast), json.Unmarshal(data, &slow)
		if (ferr == nil) != (serr == nil) {
			t.Fatalf("fast: %v; encoding/json: %v", ferr, serr)
		}
		if diff := cmp.Diff(slow, fast); serr == nil && diff != "" {
			t.Errorf("encoding/json (-), fast (+):\n%s", diff)
		}
	})
}
