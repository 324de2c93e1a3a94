package ledger

import (
	"errors"
	"testing"
)

// Nothing and too much behind a reference are told apart.
func TestAmbiguousReference(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "abc-1", "abc-2")
		if _, err := l.Batch(t.Context(), "abc"); !errors.Is(err, ErrAmbiguous) || errors.Is(err, ErrNotFound) {
			t.Errorf("two: got %v", err)
		}
		if _, err := l.Batch(t.Context(), "abd"); errors.Is(err, ErrAmbiguous) || !errors.Is(err, ErrNotFound) {
			t.Errorf("none: got %v", err)
		}
	})
}
