package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/exhume/exhume/schemas"
)

// Setting gives what is set under a name; false if nothing is, or the empty text.
func (r *Reader) Setting(ctx context.Context, name string) (value string, found bool, err error) {
	err = r.db.queryRow(ctx, `SELECT value FROM setting WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, r.named(fmt.Errorf("setting %s: %w", name, err))
	}
	return value, value != "", nil
}

// ChangeSetting sets under a name what change makes of what is set there, empty
// for nothing, and gives it. It notes that as Note does, unless change gives back
// what it got. Of several who change a setting at once, each sees what the one
// before has set. The errors of change and note come back as they are, and leave
// the setting as it was.
func (l *Ledger) ChangeSetting(ctx context.Context, name string, change func(old string) (string, error),
	note func() (schemas.EvidencePosition, error)) (value string, err error) {
	err = l.inTx(ctx, func(t tx) error {
		failed := func(err error) error { return l.named(fmt.Errorf("change setting %s: %w", name, err)) }
		// What is not there cannot be locked.
		if _, err := t.exec(ctx, `INSERT INTO setting (name, value) VALUES ($1, '') ON CONFLICT DO NOTHING`, name); err != nil {
			return failed(err)
		}
		var old string
		if err := t.queryRow(ctx, `SELECT value FROM setting WHERE name = $1`+l.db.dialect().lockRow, name).Scan(&old); err != nil {
			return failed(err)
		}
		if value, err = change(old); err != nil || value == old {
			return err
		}
		if _, err := t.exec(ctx, `UPDATE setting SET value = $1 WHERE name = $2`, value, name); err != nil {
			return failed(err)
		}
		if note == nil {
			return nil
		}
		pos, err := note()
		if err != nil {
			return err
		}
		return l.setPosition(ctx, t, pos)
	})
	if err != nil {
		return "", err
	}
	return value, nil
}
