package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// The predecessor's manifests restore to the last byte, whatever their format.
func TestFixtureManifests(t *testing.T) {
	for _, tt := range []struct {
		archive, manifest string
		items             int64
	}{
		{"sqlite", "manifest.json", 294},
		{"sqlite", "manifest_list.json", 294},
		{"sqlite", "manifest.csv", 294},
		{"legacy", "manifest.json", 20},
	} {
		t.Run(tt.archive+"/"+tt.manifest, func(t *testing.T) {
			t.Parallel()
			w := fixture(t, tt.archive)
			b := w.mustRestore(t, tt.manifest, schemas.StateSucceeded)
			if b.Counts.Restored != tt.items || b.Total != tt.items {
				t.Errorf("restored %d of %d, want %d", b.Counts.Restored, b.Total, tt.items)
			}
			w.checkSums(t, tt.items)
			w.checkInvariants(t, b.ID)
		})
	}
}

// What cannot be restored fails with its code, and with it nothing else.
func TestFixtureExpectedFailures(t *testing.T) {
	t.Parallel()
	w := fixture(t, "sqlite")
	b := w.mustRestore(t, "manifest_all.json", schemas.StatePartial)
	want := schemas.Counts{Restored: 294, Failed: 10, Bytes: b.Counts.Bytes}
	if diff := cmp.Diff(want, b.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	w.checkSums(t, 294)
	w.checkInvariants(t, b.ID)

	state := map[string]string{}
	for _, e := range w.expected(t) {
		state[e.Tombstone] = e.State
	}
	failed := map[schemas.Code]int{}
	for _, r := range w.results(t, b.ID) {
		if r.Outcome != schemas.OutcomeFailed {
			continue
		}
		failed[r.Code]++
		if purged := state[r.Tombstone] == "purged"; purged != (r.Code == schemas.CodeArtifactPurged) {
			t.Errorf("%s is %q in the archive and failed with %s", r.Tombstone, state[r.Tombstone], r.Code)
		}
	}
	if diff := cmp.Diff(map[schemas.Code]int{schemas.CodeArtifactPurged: 7, schemas.CodeTombstoneNotFound: 3}, failed); diff != "" {
		t.Errorf("failures by code (-want +got):\n%s", diff)
	}
}

// Submitting again finishes only what is missing, and does nothing when nothing
// is.
func TestSubmitAgain(t *testing.T) {
	t.Parallel()
	w := fixture(t, "sqlite")
	first := w.mustRestore(t, "manifest.json", schemas.StateSucceeded)
	again := w.mustRestore(t, "manifest.json", schemas.StateSucceeded)
	if again.ID != first.ID || !again.Known || again.Before != first.Counts || again.Counts != first.Counts {
		t.Errorf("the same manifest again: %+v, first %+v", again, first)
	}
	w.checkInvariants(t, first.ID)

	// Another name does it all again, and finds everything in place.
	other := w.mustRestore(t, "manifest.json", schemas.StateSucceeded, func(o *app.BatchOptions) { o.Name = "again" })
	if other.Counts.Unchanged != 294 {
		t.Errorf("a second batch over the same files: %+v, want 294 unchanged", other.Counts)
	}
	w.checkInvariants(t, other.ID)

	// What was lost in between is brought back, and only that.
	if err := os.Remove(w.path("out/golang/go/runtime/compiler.go")); err != nil {
		t.Fatal(err)
	}
	third := w.mustRestore(t, "manifest.json", schemas.StateSucceeded, func(o *app.BatchOptions) { o.Name = "third" })
	if third.Counts.Restored != 1 || third.Counts.Unchanged != 293 {
		t.Errorf("after one file was lost: %+v, want 1 restored and 293 unchanged", third.Counts)
	}
	w.checkInvariants(t, third.ID)
}

// checkSums checks the fixture's own list of digests.
func (w *world) checkSums(t *testing.T, want int64) {
	t.Helper()
	sums, err := os.ReadFile(w.path("SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for line := range lines(string(sums)) {
		n++
		if got := fileSHA256(t, w.path(filepath.FromSlash(line[66:]))); got != line[:64] {
			t.Errorf("%s: SHA-256 %s, want %s", line[66:], got, line[:64])
		}
	}
	if n != want {
		t.Errorf("%d digests checked, want %d", n, want)
	}
}

// results reads a batch's results from the ledger.
func (w *world) results(t testing.TB, id string) []schemas.Result {
	t.Helper()
	l, err := app.OpenLedgerReader(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // opened for reading
	var all []schemas.Result
	for r, err := range l.Results(t.Context(), id, ledger.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}
