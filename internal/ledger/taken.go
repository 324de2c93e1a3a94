package ledger

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/exhume/exhume/schemas"
)

// taken tells which failed results are in a copy of their batch, so that nobody has
// to look after them any more: by the number of the batch, what its copies have
// chosen.
type taken map[int64][]schemas.Source

// takenLetters reads what copies there are. Copies with a limit are left out: which
// of the results they have is not known without counting.
func takenLetters(ctx context.Context, db querier) (taken, error) {
	found, err := db.query(ctx, `SELECT control FROM batch WHERE control LIKE '%"source":%'`)
	if err != nil {
		return nil, err
	}
	var sources []schemas.Source
	for found.Next() {
		var text string
		var b schemas.Batch
		if err = found.Scan(&text); err == nil {
			err = setControl(&b, text)
		}
		if err != nil {
			break
		}
		if s := b.Source; s != nil && s.Limit == 0 && (len(s.Outcomes) == 0 || slices.Contains(s.Outcomes, schemas.OutcomeFailed)) {
			sources = append(sources, *s)
		}
	}
	if err := errors.Join(err, found.Err(), found.Close()); err != nil {
		return nil, err
	}
	all := taken{}
	for _, s := range sources {
		b, err := batchByID(ctx, db, s.Batch, "")
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[b.no] = append(all[b.no], s)
	}
	return all, nil
}

// has says whether a failed result is in a copy.
func (t taken) has(batchNo int64, code schemas.Code, detail string, finished time.Time) bool {
	return slices.ContainsFunc(t[batchNo], func(s schemas.Source) bool {
		return (s.Code == "" || s.Code == code) && !finished.Before(s.Since) &&
			(s.Message == "" || s.Message == schemas.Normalise(detail))
	})
}
