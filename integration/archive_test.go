package integration

import (
	"context"
	"database/sql"
	"os"
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

// Somebody else's long transaction on the archive delays the notes in it, and
// nothing else: items are restored meanwhile and no attempt is lost.
func TestArchiveLocked(t *testing.T) {
	t.Parallel()
	w := harness.Fixture(t, "sqlite")
	db := harness.OpenSQL(t, w.Path("archive.sqlite"))
	defer db.Close() //nolint:errcheck // or its side files would count as left behind
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	b := w.MustRestore(t, "manifest.json", schemas.StateSucceeded, func(o *app.BatchOptions) {
		o.Progress = &onDone{do: func() { unlock(t, conn) }}
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.CheckInvariants(t, b.ID)
}

func unlock(t *testing.T, conn *sql.Conn) {
	if _, err := conn.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK"); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// onDone does something once, when the first results are there.
type onDone struct {
	harness.Quiet
	did bool
	do  func()
}

func (o *onDone) Restoring(schemas.Summary) {
	if !o.did {
		o.did = true
		o.do()
	}
}

// Without archive events the archive is not written to at all.
func TestArchiveEventsOff(t *testing.T) {
	t.Parallel()
	w := harness.Fixture(t, "sqlite")
	before := harness.FileSHA256(w.Path("archive.sqlite"))
	if err := os.Chmod(w.Path("archive.sqlite"), 0o444); err != nil {
		t.Fatal(err)
	}
	w.Config.Exhume.ArchiveEvents = false
	b := w.MustRestore(t, "manifest.json", schemas.StateSucceeded)
	if b.Counts.Restored != 294 {
		t.Errorf("restored %d, want 294", b.Counts.Restored)
	}
	if after := harness.FileSHA256(w.Path("archive.sqlite")); after != before {
		t.Error("the archive was changed")
	}
}
