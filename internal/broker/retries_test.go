package broker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// A record that tells of nothing any more is gone: written when its batch has ended, it
// would stay.
func TestEmptyRetriesAreRemoved(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	must(t, b.Setup(t.Context()))
	for _, want := range []schemas.Retry{{Deaths: 1}, {}, {}, {Attempts: 2, Causes: []schemas.Code{schemas.CodeArchiveError}}, {}} {
		must(t, b.SetRetry(t.Context(), "b", 7, want))
		got, err := b.Retry(t.Context(), "b", 7)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	kv, err := b.bucket(t.Context(), schemas.BucketRetries)
	must(t, err)
	if keys, err := kv.Keys(t.Context()); len(keys) > 0 {
		t.Errorf("%v, %v", keys, err)
	}
}
