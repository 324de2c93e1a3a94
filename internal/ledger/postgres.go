package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// answerTimeout bounds one statement of a transaction that writes, and one
	// question but those that count everything. A server that is alive is far
	// faster, unless it waits for another collector; see beginWrite.
	answerTimeout = time.Minute
	// byIndex leaves the planner no choice but an index. As long as its statistics
	// are older than the rows, and that they are while a batch runs, it takes the
	// batch for small, and reads or sorts all of it each time.
	byIndex = `SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off;
		SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; `
	// beginWrite also bounds how long a collector that stands still in a
	// transaction can hold the others up.
	beginWrite = beginAlone + `; SET LOCAL lock_timeout = '2s'; ` + shareLock + `; SET LOCAL lock_timeout TO DEFAULT`
	beginAlone = `BEGIN; ` + byIndex + `SET LOCAL idle_in_transaction_session_timeout = '40s'`
	beginRead  = `BEGIN READ ONLY; ` + byIndex
)

// isPostgres says whether where names a PostgreSQL database and not a file.
func isPostgres(where string) bool {
	return strings.HasPrefix(where, "postgres://") || strings.HasPrefix(where, "postgresql://")
}

// shown is how a ledger is named in messages: without secrets.
func shown(where string) string {
	if !isPostgres(where) {
		return where
	}
	u, err := url.Parse(where)
	if err != nil {
		return "postgresql://…"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// postgres is a ledger in a PostgreSQL database.
type postgres struct {
	pgQuerier
	pool *pgxpool.Pool
	// turn is held by whoever writes.
	turn chan struct{}
	// alone keeps all others from writing, unless it is nil.
	alone *pgx.Conn
}

// openPostgres opens the database, and brings its schema up to date if that is
// wanted.
func openPostgres(ctx context.Context, where string, migrate bool) (_ *postgres, err error) {
	p, err := newPostgres(ctx, where)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = p.close()
		}
	}()
	state, err := p.schema(ctx)
	if err != nil {
		return nil, err
	}
	if migrate && state.version < schemaVersion {
		_, err = migrateUp(ctx, p)
		return p, err
	}
	return p, state.check()
}

// newPostgres makes the pool; it connects when it is used.
func newPostgres(ctx context.Context, where string) (*postgres, error) {
	cfg, err := pgxpool.ParseConfig(where)
	if err != nil {
		return nil, err
	}
	params := cfg.ConnConfig.RuntimeParams
	params["timezone"] = "UTC"
	params["application_name"] = cmp.Or(params["application_name"], "exhume")
	cfg.ConnConfig.ConnectTimeout = cmp.Or(cfg.ConnConfig.ConnectTimeout, 10*time.Second)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &postgres{pgQuerier: pgQuerier{pool, answerTimeout}, pool: pool, turn: make(chan struct{}, 1)}, nil
}

func (p *postgres) close() error {
	if p.alone != nil {
		_ = p.alone.Close(context.Background()) // nothing was done in its transaction
	}
	p.pool.Close()
	return nil
}

func (p *postgres) dialect() dialect {
	// Batches keep their keys: readers of keys need not wait.
	return dialect{lockRow: " FOR NO KEY UPDATE", unhappy: "result", migrations: "migrations/postgres"}
}

func (p *postgres) schema(ctx context.Context) (s schemaState, err error) {
	var there bool
	err = p.queryRow(ctx, `SELECT to_regclass('ledger_schema') IS NOT NULL`).Scan(&there)
	if err != nil || !there {
		return s, err
	}
	return readSchema(ctx, p)
}

func (p *postgres) write(ctx context.Context, f func(tx) error) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx = context.WithoutCancel(ctx)
	limited := func(do func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		return do(ctx)
	}
	begin := beginWrite
	if p.alone != nil {
		begin = beginAlone
	}
	var t pgx.Tx
	err := limited(func(ctx context.Context) (err error) {
		if err = p.stillAlone(ctx); err == nil {
			t, err = p.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
		}
		return err
	})
	if locked(err) {
		return fmt.Errorf("%w: it is being rebuilt", ErrAway) // see shareLock
	}
	if err != nil {
		return classify(ctx, err)
	}
	defer func() { _ = limited(t.Rollback) }() // nothing once committed
	if err := f(pgTx{pgQuerier{t, p.timeout}, t}); err != nil {
		return err
	}
	return classify(ctx, limited(t.Commit))
}

func (p *postgres) snapshot(ctx context.Context, f func(querier) error) error {
	return p.read(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, 0, f)
}

func (p *postgres) inOrder(ctx context.Context, f func(querier) error) error {
	return p.read(ctx, pgx.TxOptions{BeginQuery: beginRead}, p.timeout, f)
}

func (p *postgres) read(ctx context.Context, o pgx.TxOptions, timeout time.Duration, f func(querier) error) error {
	limited, cancel := p.limit(ctx)
	defer cancel()
	t, err := p.pool.BeginTx(limited, o)
	if err != nil {
		return classify(ctx, err)
	}
	defer func() { _ = t.Rollback(context.WithoutCancel(ctx)) }() // there is nothing to commit
	return f(pgQuerier{t, timeout})
}

// pgQuerier is a pool or a transaction of pgx.
type pgQuerier struct {
	q interface {
		Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
		Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	}
	timeout time.Duration // of one statement, 0 for none
}

func (p pgQuerier) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, p.timeout)
}

func (p pgQuerier) exec(ctx context.Context, statement string, args ...any) (int64, error) {
	limited, cancel := p.limit(ctx)
	defer cancel()
	tag, err := p.q.Exec(limited, statement, storable(args)...)
	return tag.RowsAffected(), classify(ctx, err)
}

func (p pgQuerier) query(ctx context.Context, statement string, args ...any) (rows, error) {
	limited, cancel := p.limit(ctx)
	found, err := p.q.Query(limited, statement, storable(args)...)
	if err != nil {
		cancel()
		return nil, classify(ctx, err)
	}
	return &pgRows{ctx, cancel, found}, nil
}

func (p pgQuerier) queryRow(ctx context.Context, statement string, args ...any) row {
	found, err := p.query(ctx, statement, args...)
	return pgRow{found, err}
}

// pgRows are rows whose texts are given back as they were stored.
type pgRows struct {
	ctx    context.Context //nolint:containedctx // the caller's, to tell whose fault an error is
	cancel context.CancelFunc
	found  pgx.Rows
}

func (r *pgRows) Next() bool { return r.found.Next() }

func (r *pgRows) Err() error { return classify(r.ctx, r.found.Err()) }

func (r *pgRows) Scan(dest ...any) error {
	err := r.found.Scan(dest...)
	for _, d := range dest {
		if s, ok := d.(*string); ok {
			*s = stored(*s)
		}
	}
	return classify(r.ctx, err)
}

func (r *pgRows) Close() error {
	r.found.Close()
	r.cancel()
	return nil
}

// pgRow is the first of rows, or why there are none.
type pgRow struct {
	found rows
	err   error
}

func (r pgRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.found.Close() //nolint:errcheck // it has none
	if !r.found.Next() {
		return cmp.Or(r.found.Err(), sql.ErrNoRows)
	}
	if err := r.found.Scan(dest...); err != nil {
		return err
	}
	_ = r.found.Close() // reads to the end: only then an error is known
	return r.found.Err()
}

// classify marks an error as ErrAway if that is what it says; not when it was
// the caller who did not want to wait.
func classify(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || !away(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// locked says that a lock could not be had in time.
func locked(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "55P03"
}

func away(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(e.Code, "08") || slices.Contains([]string{
			"57P01", "57P02", "57P03", // the server is being shut down, has crashed, starts up
			"53300", // too many connections
			"25P03", // the connection was taken away from a transaction that stood still
		}, e.Code)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return pgconn.SafeToRetry(err) // the connection was closed before anything was sent
}
