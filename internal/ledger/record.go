package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/exhume/exhume/schemas"
)

const (
	resultColumns = `idx, tombstone, output, actor, labels, outcome, code, detail, attempts, item, repo, path,
	sha256, size, target, worker, finished_at, queue_ms, read_ms, decode_ms, write_ms, total_ms, history`
	insertColumns = `batch_no, ` + resultColumns
)

// resultRow is a result and what is stored beside it or instead of a part.
type resultRow struct {
	batchNo int64
	labels  string // JSON, or empty
	history string // likewise
	*schemas.Result
}

// values appends what insertColumns are in one row.
func (r resultRow) values(args []any) []any {
	return append(args, r.batchNo, r.Index, r.Tombstone, r.Output, r.Actor, r.labels, string(r.Outcome), string(r.Code), r.Detail,
		int64(r.Attempts), r.Item, r.Repo, r.Path, r.SHA256, r.Size, r.Target, r.Worker, nanos(r.FinishedAt),
		r.Durations.Queue, r.Durations.Read, r.Durations.Decode, r.Durations.Write, r.Durations.Total, r.history)
}

// Recorded is what Record did.
type Recorded struct {
	// Batches are the batches that results and failures belong to, as they stand
	// now, also those for which nothing was new.
	Batches []schemas.Summary
	// Fresh and FreshFailures are the numbers of those that were new.
	Fresh, FreshFailures int
	// Strays and StrayFailures belong to no item, and are not in the ledger: they are
	// of a batch that does not exist, or have an index outside their batch.
	Strays        []schemas.Result
	StrayFailures []schemas.Failure
}

// NoteFresh is as Note, of what Record is about to commit, in the order given. It
// must not change it either.
type NoteFresh = func(results []schemas.Result, failures []schemas.Failure) (schemas.EvidencePosition, error)

// Record adds those of the results whose (batch, index) has none yet, and those of
// the failures whose (batch, index, number) is not there yet. It counts the results,
// sets batches running whose first ones they are, hands what was new to note, and
// keeps the position that note returns: all of it or, on an error, nothing. Both may
// be of several batches, also of ended ones, and may repeat each other. What is of
// a batch that was cancelled or aborted is dropped. When nothing is new, note is not
// called; it may be nil. Its error comes back as it is.
func (l *Ledger) Record(ctx context.Context, results []schemas.Result, failures []schemas.Failure, note NoteFresh) (rec Recorded, err error) {
	err = l.inTx(ctx, func(t tx) error {
		r := recording{tx: t, lock: l.db.dialect().lockRow, batches: map[string]*touched{}}
		err := r.lockBatches(ctx, results, failures)
		if err == nil {
			err = r.addFailures(ctx, failures)
		}
		if err == nil {
			err = r.add(ctx, results)
		}
		if err != nil {
			return l.named(fmt.Errorf("record results: %w", err))
		}
		rec = Recorded{Fresh: len(r.fresh), FreshFailures: len(r.failures), Strays: r.strays, StrayFailures: r.strayFailures}
		for _, b := range r.order {
			rec.Batches = append(rec.Batches, b.Summary)
		}
		if len(r.fresh)+len(r.failures) == 0 || note == nil {
			return nil
		}
		pos, err := note(r.freshOf(results), r.failures)
		if err != nil {
			return err
		}
		return l.setPosition(ctx, t, pos)
	})
	if err != nil {
		return Recorded{}, err
	}
	return rec, nil
}

// touched is a batch that is recorded of, and what its results add.
type touched struct {
	batchRow
	delta schemas.Counts
}

// recording is one call of Record.
type recording struct {
	tx      tx
	lock    string
	batches map[string]*touched // nil for a batch that does not exist
	order   []*touched
	fresh   []resultRow
	strays  []schemas.Result
	// failures are those that were new.
	failures, strayFailures []schemas.Failure
}

func (r *recording) add(ctx context.Context, results []schemas.Result) error {
	rows := make([]resultRow, 0, len(results))
	for i := range results {
		b := r.batches[results[i].Batch]
		if b == nil || !b.has(results[i].Index) {
			r.strays = append(r.strays, results[i])
			continue
		}
		if b.cut() {
			continue
		}
		row, err := newRow(b.no, &results[i])
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	r.fresh = make([]resultRow, 0, len(rows))
	if err := r.tx.insert(ctx, rows, r.keep); err != nil {
		return err
	}
	return r.count(ctx)
}

func newRow(batchNo int64, r *schemas.Result) (row resultRow, err error) {
	row = resultRow{batchNo: batchNo, Result: r}
	if len(r.Labels) > 0 {
		if row.labels, err = jsonText(r.Labels); err != nil {
			return row, err
		}
	}
	if len(r.History) > 0 {
		row.history, err = jsonText(r.History)
	}
	return row, err
}

func jsonText(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}

// lockBatches finds the batches that all this belongs to, and keeps other processes
// from recording of them. Everybody locks in the order of the ids, so that nobody
// waits in a circle.
func (r *recording) lockBatches(ctx context.Context, results []schemas.Result, failures []schemas.Failure) error {
	var ids []string
	want := func(id string) {
		if _, ok := r.batches[id]; !ok {
			r.batches[id] = nil
			ids = append(ids, id)
		}
	}
	for i := range results {
		want(results[i].Batch)
	}
	for i := range failures {
		want(failures[i].Batch)
	}
	for _, id := range slices.Sorted(slices.Values(ids)) {
		row, err := batchByID(ctx, r.tx, id, r.lock)
		if err == nil {
			r.batches[id] = &touched{batchRow: row}
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	for _, id := range ids {
		if b := r.batches[id]; b != nil {
			r.order = append(r.order, b)
		}
	}
	return nil
}

// has says whether the batch has an item with this index, as far as is known.
func (b *touched) has(index int64) bool {
	return index >= 0 && (b.SealedAt.IsZero() || index < b.Total)
}

// cut says whether nothing is recorded of the batch any more: its items are those
// that had a result when it ended.
func (b *touched) cut() bool {
	return b.State == schemas.StateCancelled || b.State == schemas.StateAborted
}

func (r *recording) keep(row resultRow) {
	r.fresh = append(r.fresh, row)
	r.batches[row.Batch].delta.Add(row.Outcome, row.Size)
}

// freshOf gives the results that were new, without copying when all were.
func (r *recording) freshOf(results []schemas.Result) []schemas.Result {
	if len(r.fresh) == len(results) {
		return results
	}
	fresh := make([]schemas.Result, 0, len(r.fresh))
	for _, row := range r.fresh {
		fresh = append(fresh, *row.Result)
	}
	return fresh
}

// count adds what was new to the batches.
func (r *recording) count(ctx context.Context) error {
	for _, b := range r.order {
		d := b.delta
		if d == (schemas.Counts{}) {
			continue
		}
		_, err := r.tx.exec(ctx, `UPDATE batch SET restored = restored + $1, unchanged = unchanged + $2, failed = failed + $3,
			skipped = skipped + $4, cancelled = cancelled + $5, bytes = bytes + $6 WHERE no = $7`,
			d.Restored, d.Unchanged, d.Failed, d.Skipped, d.Cancelled, d.Bytes, b.no)
		if err != nil {
			return err
		}
		b.Counts.Plus(d)
		if _, begins := b.Next(schemas.ChangeBegin); begins {
			if err := b.apply(ctx, r.tx, schemas.ChangeBegin, time.Now().UTC()); err != nil {
				return err
			}
		}
	}
	return nil
}
