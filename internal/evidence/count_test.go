package evidence

import (
	"testing"

	"github.com/exhume/exhume/schemas"
)

func TestCountItems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	index := int64(0)
	_, err = l.Append(t.Context(), []schemas.Record{
		{Action: schemas.ActionBatchRestore, Phase: schemas.PhaseStart, Batch: "a"},
		{Action: schemas.ActionRestoreRetry, Batch: "a", Index: &index, Attempt: 1},
		{Action: schemas.ActionRestore, Batch: "a", Index: &index, Attempt: 2},
		{Action: schemas.ActionRestoreFail, Batch: "a", Index: &index, Reason: `"batch":"b"`},
		{Action: schemas.ActionRestore, Batch: "ab", Index: &index},
		{Action: schemas.ActionRestore, Path: "/x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for batch, want := range map[string]int64{"a": 2, "ab": 1, "b": 0} {
		if n, err := CountItems(t.Context(), dir, batch); err != nil || n != want {
			t.Errorf("%s: %d, %v, want %d", batch, n, err, want)
		}
	}
}
