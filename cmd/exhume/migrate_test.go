package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// migrated is what a migrate command did.
type migrated struct{ out, err string }

func migrate(t *testing.T, wantCode int, f func(c *cli) error) migrated {
	t.Helper()
	var out, errOut bytes.Buffer
	c := &cli{out: &out, err: &errOut}
	if code := c.exitCode(f(c)); code != wantCode {
		t.Errorf("exit code %d, want %d: %s", code, wantCode, errOut.String())
	}
	return migrated{out.String(), errOut.String()}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	where := filepath.Join(t.TempDir(), "state", "ledger.sqlite")
	up := func(dry bool) func(*cli) error { return func(c *cli) error { return c.migrateUp(ctx, where, dry) } }
	down := func(dry, yes bool) func(*cli) error {
		return func(c *cli) error { return c.migrateDown(ctx, where, dry, yes) }
	}
	status := func(output string) migrated {
		return migrate(t, exitOK, func(c *cli) error { return c.migrateStatus(ctx, where, output) })
	}

	if got := status("table").out; !strings.Contains(got, "pending") || strings.Contains(got, "applied") {
		t.Errorf("status of nothing:\n%s", got)
	}
	if got := migrate(t, exitOK, up(true)).out; !strings.Contains(got, "-- migration 1 (ledger)") || !strings.Contains(got, "CREATE TABLE result") {
		t.Errorf("up --dry-run printed:\n%s", got)
	}
	if _, err := os.Stat(filepath.Dir(where)); err == nil {
		t.Fatal("looking made something")
	}
	if got := migrate(t, exitOK, up(false)).err; !strings.Contains(got, "applied migration 2 (writers)") {
		t.Errorf("up said %q", got)
	}
	if got := migrate(t, exitOK, up(false)).err; !strings.Contains(got, "up to date") {
		t.Errorf("up again said %q", got)
	}
	if got := migrate(t, exitOK, up(true)).out; got != "" {
		t.Errorf("up --dry-run printed %q", got)
	}
	var list []struct {
		Version int
		Name    string
		Applied string
		Pending bool
	}
	if err := json.Unmarshal([]byte(status("json").out), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) < 2 || list[0].Version != 1 || list[0].Name != "ledger" || list[0].Pending || list[0].Applied == "" {
		t.Errorf("status: %+v", list)
	}

	record(t, where)
	if got := migrate(t, exitOK, down(true, false)).out; !strings.Contains(got, "-- migration 4 (attempts)") || !strings.Contains(got, "DROP TABLE") {
		t.Errorf("down --dry-run printed:\n%s", got)
	}
	if got := migrate(t, exitRefused, down(false, false)).err; !strings.Contains(got, "loses the failed attempts") || !strings.Contains(got, "--yes") {
		t.Errorf("down said %q", got)
	}
	if got := migrate(t, exitOK, down(false, true)).err; !strings.Contains(got, "took migration 4 (attempts) back") {
		t.Errorf("down --yes said %q", got)
	}
	if err := json.Unmarshal([]byte(status("json").out), &list); err != nil || !list[len(list)-1].Pending {
		t.Errorf("status: %+v, %v", list, err)
	}
	for range list[1:] {
		migrate(t, exitOK, down(false, true))
	}
	if got := migrate(t, exitOK, down(false, true)).err; !strings.Contains(got, "nothing to do") {
		t.Errorf("down from nothing said %q", got)
	}
}

// record puts one result into the ledger.
func record(t *testing.T, where string) {
	t.Helper()
	l, err := ledger.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Create(t.Context(), schemas.Batch{ID: "b1"}, nil); err != nil {
		t.Fatal(err)
	}
	r := schemas.Result{Request: schemas.Request{Batch: "b1"}, Outcome: schemas.OutcomeRestored}
	if _, err := l.Record(t.Context(), []schemas.Result{r}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
