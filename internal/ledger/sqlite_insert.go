package ledger

import (
	"context"
	"database/sql"
	"strings"
)

// insertRows is the number of rows of one INSERT; fewer and more are slower.
const insertRows = 50

func insertSQL(rows int) string {
	row := "(?" + strings.Repeat(",?", strings.Count(insertColumns, ",")) + ")"
	return `INSERT INTO result (` + insertColumns + `) VALUES ` + row + strings.Repeat(","+row, rows-1) + ` ON CONFLICT DO NOTHING`
}

// sqliteTx is a transaction that writes to a SQLite file.
type sqliteTx struct {
	sqlQuerier
	db *sqlite
	t  *sql.Tx
}

func (t *sqliteTx) insert(ctx context.Context, rows []resultRow, added func(resultRow)) error {
	var args []any
	for len(rows) > 0 {
		n, stmt := 1, t.db.insertOne
		if len(rows) >= insertRows {
			n, stmt = insertRows, t.db.insertMany
		}
		args = args[:0]
		for _, row := range rows[:n] {
			args = row.values(args)
		}
		if err := t.insertChunk(ctx, stmt, args, rows[:n], added); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// insertChunk runs one INSERT and finds out which of its rows were new.
func (t *sqliteTx) insertChunk(ctx context.Context, stmt *sql.Stmt, args []any, rows []resultRow, added func(resultRow)) error {
	res, err := t.t.StmtContext(ctx, stmt).ExecContext(ctx, args...) //nolint:sqlclosecheck // the transaction closes it
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil || n == 0 {
		return err
	}
	if n == int64(len(rows)) {
		for _, row := range rows {
			added(row)
		}
		return nil
	}
	// RETURNING would cost a fifth of the speed always, this only when rows
	// repeat: rows are numbered as they come in.
	found, err := t.query(ctx, `SELECT batch_no, idx FROM result ORDER BY no DESC LIMIT $1`, n)
	if err != nil {
		return err
	}
	keys, err := readKeys(found)
	if err != nil {
		return err
	}
	for _, row := range rows {
		k := key{row.batchNo, row.Index}
		if keys[k] {
			delete(keys, k) // what repeats it in the same statement was not added
			added(row)
		}
	}
	return nil
}
