package app

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// The file that one item is restored to lies below the root, and is the one that
// was named.
func FuzzSplitOutput(f *testing.F) {
	f.Fuzz(func(t *testing.T, root, output string) {
		below, rel, err := splitOutput(RestoreOptions{Root: root, Output: output})
		if err != nil {
			return
		}
		want, err := filepath.Abs(output)
		if err != nil {
			t.Fatal(err)
		}
		if got := filepath.Join(below, rel); got != want || !filepath.IsLocal(rel) || rel == "." || !filepath.IsAbs(below) {
			if rel == "/" || rel == "." {
				return // a directory, which the destination refuses
			}
			t.Errorf("root %q and output %q are %q and %q: %q, want %q", root, output, below, rel, got, want)
		}
	})
}

// The results of a batch are a manifest of the same items.
func FuzzResultsCSV(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		var results []schemas.Result
		if json.Unmarshal(text, &results) != nil || len(results) == 0 || len(results) > 20 {
			return
		}
		o := producer.ManifestOptions{Root: "/", TempDir: t.TempDir()}
		want := map[string]schemas.Result{}
		for _, r := range results {
			if q, err := producer.CheckRow(o, r.Tombstone, r.Output, r.Actor); err != nil || q.Output != r.Output || q.Tombstone != r.Tombstone || q.Actor != r.Actor {
				return // no manifest can have asked for it
			}
			if strings.Contains(r.Detail+string(r.Code)+string(r.Outcome)+r.SHA256, "\x00") || len(r.Detail) > 1000 {
				return // no worker gives such a result
			}
			if _, twice := want[r.Output]; !twice {
				want[r.Output] = r
			}
		}
		var b bytes.Buffer
		if err := ResultsCSV(&b, sequence(results)); err != nil {
			t.Fatal(err)
		}
		m, err := producer.OpenManifest("-", &b, o)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close() //nolint:errcheck // only read
		var rejects []producer.Reject
		if c, err := m.Check(t.Context(), func(x producer.Reject) { rejects = append(rejects, x) }); err != nil || c.Rows != int64(len(results)) {
			t.Fatalf("%+v, %v of %s", c, err, b.String())
		}
		n := 0
		for item, err := range m.Items(t.Context()) {
			n++
			r, ok := want[item.Output]
			if err != nil || !ok || item.Tombstone != r.Tombstone || item.Actor != r.Actor || item.Labels["outcome"] != string(r.Outcome) {
				t.Errorf("%+v, %v", item, err)
			}
		}
		for _, x := range rejects {
			// Results of one batch do not collide, these may.
			if !strings.Contains(x.Reason, "same output") && !strings.Contains(x.Reason, "already uses") {
				t.Errorf("rejected: %s", x)
			}
		}
		if n+len(rejects) != len(results) {
			t.Errorf("%d items and %d rejects of %d results", n, len(rejects), len(results))
		}
	})
}
