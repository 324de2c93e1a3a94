package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/exhume/exhume/schemas"
)

const (
	// insertRows is the number of rows of one INSERT; fewer and more are slower.
	insertRows = 50

	resultColumns = `idx, tombstone, output, actor, labels, outcome, code, detail, attempts, item, repo, path,
	sha256, size, target, worker, finished_at, queue_ms, read_ms, decode_ms, write_ms, total_ms`
)

func insertSQL(rows int) string {
	columns := `batch_no, ` + resultColumns
	row := "(?" + strings.Repeat(",?", strings.Count(columns, ",")) + ")"
	return `INSERT INTO result (` + columns + `) VALUES ` + row + strings.Repeat(","+row, rows-1) + ` ON CONFLICT DO NOTHING`
}

// resultRow is a result and the key of its batch.
type resultRow struct {
	batchNo int64
	*schemas.Result
}

// values appends what insertSQL takes for one row.
func (r resultRow) values(args []any) ([]any, error) {
	labels := ""
	if len(r.Labels) > 0 {
		text, err := json.Marshal(r.Labels)
		if err != nil {
			return nil, err
		}
		labels = string(text)
	}
	return append(args, r.batchNo, r.Index, r.Tombstone, r.Output, r.Actor, labels, string(r.Outcome), string(r.Code), r.Detail,
		int64(r.Attempts), r.Item, r.Repo, r.Path, r.SHA256, r.Size, r.Target, r.Worker, nanos(r.FinishedAt),
		r.Durations.Queue, r.Durations.Read, r.Durations.Decode, r.Durations.Write, r.Durations.Total), nil
}

// Recorded is what Record did.
type Recorded struct {
	// Batches are the batches that the results belong to, as they stand now,
	// also those for which nothing was new.
	Batches []schemas.Summary
	// Fresh is the number of results that were new.
	Fresh int
	// Strays are results that belong to no item, and are not in the ledger: of
	// a batch that does not exist, or with an index outside its batch.
	Strays []schemas.Result
}

// Record adds those of the results whose (batch, index) has none yet, counts
// them, hands them to note in the order given, and keeps the position that note
// returns: all of it or, on an error, nothing. The results may be of several
// batches, also of ended ones, and may repeat each other. When none is new, note
// is not called; it may be nil. Its error comes back as it is.
//
// note runs inside the transaction, as the last thing before it is committed,
// and must neither change what it is given nor call methods that write to this
// ledger.
func (l *Ledger) Record(ctx context.Context, results []schemas.Result,
	note func(fresh []schemas.Result) (schemas.EvidencePosition, error)) (rec Recorded, err error) {
	err = l.inTx(ctx, func(tx *sql.Tx) error {
		r := recording{l: l, tx: tx, batches: map[string]*touched{}}
		if err := r.add(ctx, results); err != nil {
			return fmt.Errorf("ledger %s: record results: %w", l.path, err)
		}
		rec = Recorded{Fresh: len(r.fresh), Strays: r.strays}
		for _, b := range r.order {
			rec.Batches = append(rec.Batches, b.Summary)
		}
		if len(r.fresh) == 0 || note == nil {
			return nil
		}
		pos, err := note(r.freshOf(results))
		if err != nil {
			return err
		}
		return setPosition(ctx, tx, pos)
	})
	if err != nil {
		return Recorded{}, err
	}
	return rec, nil
}

// touched is a batch that some of the results belong to, and what they add.
type touched struct {
	batchRow
	delta schemas.Counts
}

// recording is one call of Record.
type recording struct {
	l       *Ledger
	tx      *sql.Tx
	batches map[string]*touched // nil for a batch that does not exist
	order   []*touched
	args    []any
	fresh   []resultRow
	strays  []schemas.Result
}

func (r *recording) add(ctx context.Context, results []schemas.Result) error {
	rows := make([]resultRow, 0, len(results))
	for i := range results {
		b, err := r.batch(ctx, results[i].Batch)
		if err != nil {
			return err
		}
		if b == nil || !b.has(results[i].Index) {
			r.strays = append(r.strays, results[i])
			continue
		}
		rows = append(rows, resultRow{b.no, &results[i]})
	}
	r.fresh = make([]resultRow, 0, len(rows))
	for len(rows) > 0 {
		n, stmt := 1, r.l.insertOne
		if len(rows) >= insertRows {
			n, stmt = insertRows, r.l.insertMany
		}
		if err := r.insert(ctx, stmt, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return r.count(ctx)
}

func (r *recording) batch(ctx context.Context, id string) (*touched, error) {
	if b, ok := r.batches[id]; ok {
		return b, nil
	}
	row, err := batchByID(ctx, r.tx, id)
	if errors.Is(err, ErrNotFound) {
		r.batches[id] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := &touched{batchRow: row}
	r.batches[id], r.order = b, append(r.order, b)
	return b, nil
}

// has says whether the batch has an item with this index, as far as is known.
func (b *touched) has(index int64) bool {
	return index >= 0 && (b.SealedAt.IsZero() || index < b.Total)
}

// insert runs one INSERT and finds out which of its rows were new.
func (r *recording) insert(ctx context.Context, stmt *sql.Stmt, rows []resultRow) (err error) {
	r.args = r.args[:0]
	for _, row := range rows {
		if r.args, err = row.values(r.args); err != nil {
			return err
		}
	}
	res, err := r.tx.StmtContext(ctx, stmt).ExecContext(ctx, r.args...) //nolint:sqlclosecheck // the transaction closes it
	if err != nil {
		return err
	}
	added, err := res.RowsAffected()
	if err != nil || added == 0 {
		return err
	}
	if added == int64(len(rows)) {
		for _, row := range rows {
			r.keep(row)
		}
		return nil
	}
	keys, err := r.lastKeys(ctx, added)
	if err != nil {
		return err
	}
	for _, row := range rows {
		k := key{row.batchNo, row.Index}
		if keys[k] {
			delete(keys, k) // what repeats it in the same statement was not added
			r.keep(row)
		}
	}
	return nil
}

func (r *recording) keep(row resultRow) {
	r.fresh = append(r.fresh, row)
	r.batches[row.Batch].delta.Add(row.Outcome, row.Size)
}

type key struct{ batchNo, index int64 }

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

// lastKeys are the keys of the n rows added last. That costs only when rows
// repeat; RETURNING would cost a fifth of the speed always.
func (r *recording) lastKeys(ctx context.Context, n int64) (map[key]bool, error) {
	found, err := r.tx.QueryContext(ctx, `SELECT batch_no, idx FROM result ORDER BY no DESC LIMIT ?`, n)
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close() }()
	keys := make(map[key]bool, n)
	for found.Next() {
		var k key
		if err := found.Scan(&k.batchNo, &k.index); err != nil {
			return nil, err
		}
		keys[k] = true
	}
	return keys, found.Err()
}

// count adds what was new to the batches.
func (r *recording) count(ctx context.Context) error {
	for _, b := range r.order {
		d := b.delta
		if d == (schemas.Counts{}) {
			continue
		}
		_, err := r.tx.ExecContext(ctx, `UPDATE batch SET restored = restored + ?, unchanged = unchanged + ?, failed = failed + ?,
			skipped = skipped + ?, cancelled = cancelled + ?, bytes = bytes + ? WHERE no = ?`,
			d.Restored, d.Unchanged, d.Failed, d.Skipped, d.Cancelled, d.Bytes, b.no)
		if err != nil {
			return err
		}
		b.Counts.Plus(d)
	}
	return nil
}
