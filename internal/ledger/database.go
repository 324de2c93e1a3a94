package ledger

import (
	"context"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// ErrAway is wrapped by errors that say that the ledger's database does not
// answer just now. Nothing is known to be wrong with what was asked, and it may
// be asked again: what the ledger may have done before the error, it does not do
// twice.
var ErrAway error = fault.New(schemas.CodeLedgerDown, "the ledger's database does not answer; work can go on when it is back")

// database is where a ledger is kept. Both kinds understand the same statements,
// with parameters as $1, $2 and so on, but for the fragments in dialect.
type database interface {
	querier
	dialect() dialect
	// write runs f in a transaction, one after the other in this process. It is
	// durable when write returns nil, and was not if f failed. Once it has begun
	// it is not broken off by ctx alone.
	write(ctx context.Context, f func(tx) error) error
	// snapshot runs f on what the database holds at one moment.
	snapshot(ctx context.Context, f func(querier) error) error
	// inOrder runs f, whose questions read rows along an index up to a LIMIT.
	inOrder(ctx context.Context, f func(querier) error) error
	// schema says what is there, without changing anything.
	schema(ctx context.Context) (schemaState, error)
	// migrator makes what takes one step of the schema under a lock.
	migrator(files fs.FS, next step) (p *goose.Provider, release func(), err error)
	close() error
}

// querier is a database or a transaction. A row that is not there is
// sql.ErrNoRows.
type querier interface {
	exec(ctx context.Context, statement string, args ...any) (affected int64, err error)
	query(ctx context.Context, statement string, args ...any) (rows, error)
	queryRow(ctx context.Context, statement string, args ...any) row
}

// tx is a transaction that writes.
type tx interface {
	querier
	// insert adds those rows whose batch and index no row has yet, neither in the
	// database nor before it among the rows, and calls added with each, in order.
	// The batches of the rows must be locked.
	insert(ctx context.Context, rows []resultRow, added func(resultRow)) error
}

type row interface{ Scan(dest ...any) error }

type rows interface {
	row
	Next() bool
	Err() error
	Close() error
}

// dialect is where the SQL of the two differs.
type dialect struct {
	// lockRow at the end of a SELECT keeps others from changing the rows until
	// the transaction ends.
	lockRow string
	// unhappy is the table of results, read through the index of those that are
	// neither restored nor unchanged.
	unhappy string
	// migrations is their directory.
	migrations string
}
