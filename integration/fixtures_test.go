package integration

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/app"
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
			w := harness.Fixture(t, tt.archive)
			b := w.MustRestore(t, tt.manifest, schemas.StateSucceeded)
			if b.Counts.Restored != tt.items || b.Total != tt.items {
				t.Errorf("restored %d of %d, want %d", b.Counts.Restored, b.Total, tt.items)
			}
			w.CheckSums(t, tt.items)
			w.CheckInvariants(t, b.ID)
		})
	}
}

// What cannot be restored fails with its code, and with it nothing else.
func TestFixtureExpectedFailures(t *testing.T) {
	t.Parallel()
	w := harness.Fixture(t, "sqlite")
	b := w.MustRestore(t, "manifest_all.json", schemas.StatePartial)
	want := schemas.Counts{Restored: 294, Failed: 10, Bytes: b.Counts.Bytes}
	if diff := cmp.Diff(want, b.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	w.CheckSums(t, 294)
	w.CheckInvariants(t, b.ID)

	state := map[string]string{}
	for _, e := range w.Expected(t) {
		state[e.Tombstone] = e.State
	}
	failed := map[schemas.Code]int{}
	for _, r := range w.Results(t, b.ID) {
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
	w := harness.Fixture(t, "sqlite")
	first := w.MustRestore(t, "manifest.json", schemas.StateSucceeded)
	again := w.MustRestore(t, "manifest.json", schemas.StateSucceeded)
	if again.ID != first.ID || !again.Known || again.Before != first.Counts || again.Counts != first.Counts {
		t.Errorf("the same manifest again: %+v, first %+v", again, first)
	}
	w.CheckInvariants(t, first.ID)

	// Another name does it all again, and finds everything in place.
	other := w.MustRestore(t, "manifest.json", schemas.StateSucceeded, func(o *app.BatchOptions) { o.Name = "again" })
	if other.Counts.Unchanged != 294 {
		t.Errorf("a second batch over the same files: %+v, want 294 unchanged", other.Counts)
	}
	w.CheckInvariants(t, other.ID)

	// What was lost in between is brought back, and only that.
	if err := os.Remove(w.Path("out/golang/go/runtime/compiler.go")); err != nil {
		t.Fatal(err)
	}
	third := w.MustRestore(t, "manifest.json", schemas.StateSucceeded, func(o *app.BatchOptions) { o.Name = "third" })
	if third.Counts.Restored != 1 || third.Counts.Unchanged != 293 {
		t.Errorf("after one file was lost: %+v, want 1 restored and 293 unchanged", third.Counts)
	}
	w.CheckInvariants(t, third.ID)
}
