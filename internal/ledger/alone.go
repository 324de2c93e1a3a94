package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrInUse says that somebody is recording in a ledger that is wanted alone, or has
// it alone.
var ErrInUse = errors.New("somebody else is recording in it")

// Every transaction that writes shares an advisory lock, which whoever is to be alone
// holds for itself. It belongs to a transaction and not to a session, so that it also
// holds through a pooler, and no connection that is lost leaves anything to take back.
const (
	shareLock = `SELECT pg_advisory_xact_lock_shared(1702389869, 1)`
	aloneLock = `SELECT pg_try_advisory_xact_lock(1702389869, 1)`
)

// beAlone keeps all others from writing until the ledger is closed.
func (p *postgres) beAlone(ctx context.Context) error {
	c, err := pgx.ConnectConfig(ctx, p.pool.Config().ConnConfig)
	if err != nil {
		return classify(ctx, err)
	}
	var free bool
	_, err = c.Exec(ctx, `BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0`)
	if err == nil {
		err = c.QueryRow(ctx, aloneLock).Scan(&free)
	}
	if err == nil && !free {
		err = ErrInUse
	}
	if err != nil {
		return errors.Join(classify(ctx, err), c.Close(context.WithoutCancel(ctx)))
	}
	p.alone = c
	return nil
}

// stillAlone says whether others are still kept from writing, for who wants that.
func (p *postgres) stillAlone(ctx context.Context) error {
	if p.alone == nil {
		return nil
	}
	if _, err := p.alone.Exec(ctx, `SELECT 1`); err != nil {
		return fmt.Errorf("others can write again: %w", err)
	}
	return nil
}
