package producer

import (
	"context"

	"github.com/exhume/exhume/schemas"
)

// keptBytes is how much of a manifest is kept in memory at most, so that it need
// not be read a second time: some thirty thousand rows.
const keptBytes = 8 << 20

// kept are the rows of a small manifest that are good by themselves.
type kept struct {
	rows  []keptRow
	bytes int
}

type keptRow struct {
	row     int64
	request schemas.Request
}

// add keeps a row, or none at all when there are too many.
func (k *kept) add(row int64, r schemas.Request) {
	if k.bytes > keptBytes {
		return
	}
	const overhead = 160 // of a row, and twice that of a label
	k.bytes += overhead + len(r.Tombstone) + len(r.Output) + len(r.Actor)
	for name, value := range r.Labels {
		k.bytes += 2*overhead + len(name) + len(value)
	}
	if k.rows = append(k.rows, keptRow{row, r}); k.bytes > keptBytes {
		k.rows = nil
	}
}

// all says whether all rows are here.
func (k *kept) all() bool { return k.bytes <= keptBytes }

// visit goes through the rows that were not rejected since.
func (k *kept) visit(ctx context.Context, rejected *rowSet, visit func(schemas.Request) error) error {
	for i := range k.rows {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if rejected.has(k.rows[i].row) {
			continue
		}
		if err := visit(k.rows[i].request); err != nil {
			return err
		}
	}
	return nil
}
