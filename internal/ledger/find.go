package ledger

import (
	"context"
	"errors"

	"github.com/exhume/exhume/schemas"
)

// Find gives the batch with exactly this id, if there is one.
func (r *Reader) Find(ctx context.Context, id string) (s schemas.Summary, found bool, err error) {
	b, err := batchByID(ctx, r.db, id, "")
	if errors.Is(err, ErrNotFound) {
		return s, false, nil
	}
	return b.Summary, err == nil, r.named(err)
}
