package ledger

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var migrationFiles embed.FS

// step is one migration, to be applied or taken back.
type step struct {
	version int
	up      bool
}

// migrateUp applies what is pending, each migration in a transaction of its own,
// and gives the versions. Another process may be doing the same.
func migrateUp(ctx context.Context, db database) (done []int, err error) {
	all, err := readMigrations(db.dialect().migrations)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		applied, err := take(ctx, db, step{m.Version, true})
		if err != nil {
			return done, fmt.Errorf("bring the schema up to date: migration %d: %w", m.Version, err)
		}
		if applied {
			done = append(done, m.Version)
		}
	}
	return done, nil
}

// take takes one step under a lock that lets one process change the schema at a
// time; false if somebody else took it before.
func take(ctx context.Context, db database, s step) (bool, error) {
	files, err := fs.Sub(migrationFiles, db.dialect().migrations)
	if err != nil {
		return false, err
	}
	p, release, err := db.migrator(files, s)
	if err != nil {
		return false, err
	}
	defer release()
	_, err = p.ApplyVersion(ctx, int64(s.version), s.up)
	if errors.Is(err, goose.ErrAlreadyApplied) || errors.Is(err, goose.ErrNotApplied) {
		return false, nil
	}
	return err == nil, err
}

// readMigrations reads the migrations in a directory of migrationFiles.
func readMigrations(dir string) ([]Migration, error) {
	names, err := fs.Glob(migrationFiles, dir+"/*.sql")
	if err != nil {
		return nil, err
	}
	var all []Migration
	for _, name := range names {
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		m, err := parseMigration(path.Base(name), string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

var loses = regexp.MustCompile(`(?m)^-- loses: (.+)$`)

// parseMigration reads a file NUMBER_NAME.sql.
func parseMigration(file, text string) (m Migration, err error) {
	if _, err := fmt.Sscanf(file, "%d_", &m.Version); err != nil {
		return m, fmt.Errorf("migration %s: %w", file, err)
	}
	_, m.Name, _ = strings.Cut(strings.TrimSuffix(file, ".sql"), "_")
	up, down, ok := strings.Cut(text, "-- +goose Down")
	lost := loses.FindStringSubmatch(down)
	if !ok || lost == nil {
		return m, fmt.Errorf("migration %s does not say how it is taken back, and what that loses", file)
	}
	m.Up, m.Down = strings.TrimSpace(strings.TrimPrefix(up, "-- +goose Up")), strings.TrimSpace(down)
	m.Loses = lost[1]
	return m, nil
}
