package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/exhume/exhume/schemas"
)

// Filter says which results of a batch are wanted; empty fields allow all.
type Filter struct {
	schemas.ResultFilter
	// From is the first index.
	From int64
}

// unhappy is the condition of the index result_unhappy, word for word.
const unhappy = ` AND outcome NOT IN ('restored', 'unchanged')`

// where gives the table and the conditions that choose the results, but for their
// messages; see matches. The conditions go on after the first n parameters.
func (f Filter) where(d dialect, n int) (from, conditions string, args []any) {
	from = "result"
	if len(f.Outcomes) > 0 {
		conditions += ` AND outcome IN (` + parameters(n+1, len(f.Outcomes)) + `)`
		for _, o := range f.Outcomes {
			args = append(args, string(o))
		}
	}
	also := func(condition string, value any) {
		args = append(args, value)
		conditions += fmt.Sprintf(" AND %s $%d", condition, n+len(args))
	}
	if f.Code != "" {
		also("code =", string(f.Code))
	}
	if !f.Since.IsZero() {
		also("finished_at >=", f.Since.UnixNano())
	}
	if f.Message != "" {
		conditions += ` AND detail <> ''`
	}
	if f.unhappyOnly() {
		from, conditions = d.unhappy, conditions+unhappy
	}
	return from, conditions, args
}

// unhappyOnly says whether only items are wanted that are neither restored nor
// unchanged: others have no code.
func (f Filter) unhappyOnly() bool {
	happy := func(o schemas.Outcome) bool { return o == schemas.OutcomeRestored || o == schemas.OutcomeUnchanged }
	return f.Code != "" || len(f.Outcomes) > 0 && !slices.ContainsFunc(f.Outcomes, happy)
}

// matches says whether a detail is wanted.
func (f Filter) matches(detail string) bool {
	return f.Message == "" || schemas.Normalise(detail) == f.Message
}

// query gives the statement for one page; its parameters are the batch's number,
// the first index, then those in args.
func (f Filter) query(d dialect) (statement string, args []any) {
	from, conditions, args := f.where(d, 2)
	return fmt.Sprintf(`SELECT %s FROM %s WHERE batch_no = $1 AND idx >= $2%s ORDER BY idx LIMIT %d`,
		resultColumns, from, conditions, pageSize), args
}

// Count counts the results that Results would give.
func (r *Reader) Count(ctx context.Context, id string, f Filter) (n int64, err error) {
	if f.Message != "" {
		for _, err := range r.Results(ctx, id, f) {
			if err != nil {
				return 0, err
			}
			n++
		}
		return n, nil
	}
	err = r.db.snapshot(ctx, func(q querier) error {
		b, err := batchByID(ctx, q, id, "")
		if err != nil {
			return err
		}
		from, conditions, args := f.where(r.db.dialect(), 2)
		return q.queryRow(ctx, `SELECT count(*) FROM `+from+` WHERE batch_no = $1 AND idx >= $2`+conditions,
			append([]any{b.no, f.From}, args...)...).Scan(&n)
	})
	return n, r.named(err)
}
