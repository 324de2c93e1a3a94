package evidence

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/exhume/exhume/schemas"
)

// CountItems counts the lines about what became of items of one batch in the log in
// dir; attempts that were followed by others are left out. It reads the whole log.
func CountItems(ctx context.Context, dir, batch string) (n int64, err error) {
	f, err := os.Open(filepath.Join(dir, FileName))
	if err != nil {
		return 0, fmt.Errorf("evidence log: %w", err)
	}
	defer func() { _ = f.Close() }()
	// The names of batches need no escaping, so that most lines need no decoding.
	named := []byte(`"batch":"` + batch + `"`)
	for line, err := range lines(f, 0) {
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return n, fmt.Errorf("evidence log %s: %w", f.Name(), err)
		}
		if !line.whole || !bytes.Contains(line.text, named) {
			continue
		}
		var r schemas.Record
		if json.Unmarshal(line.text, &r) == nil && r.Batch == batch && r.Index != nil && r.Action != schemas.ActionRestoreRetry {
			n++
		}
	}
	return n, nil
}
