package archive

import (
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

func TestCreateWriterSchema(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "dir", "a.db")
	if err := createWriter(t, "sqlite:///"+path).Close(); err != nil {
		t.Fatal(err)
	}
	schema := func(path string) map[string]string {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		rows, err := db.Query(`SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema`)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		all := map[string]string{}
		for rows.Next() {
			var name, text string
			if err := rows.Scan(&name, &text); err != nil {
				t.Fatal(err)
			}
			all[name] = strings.Join(strings.Fields(text), " ")
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if diff := cmp.Diff(schema(fixture(t, "sqlite")), schema(path)); diff != "" {
		t.Errorf("schema (-want +got):\n%s", diff)
	}
	var mode string
	db, err := openSQLite(path, "mode=rw", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRow(`PRAGMA journal_mode`).Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode %q, %v", mode, err)
	}
}

func TestCreateWriterRefuses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "other.db")
	execSQL(t, path, `CREATE TABLE customer (id)`)
	_, err := CreateWriter(t.Context(), path)
	wantCode(t, err, schemas.CodeArchiveCorrupt)
	_, err = CreateWriter(t.Context(), filepath.Dir(path))
	wantCode(t, err, schemas.CodeArchiveCorrupt)
	_, err = CreateWriter(t.Context(), filepath.Join(path, "sub", "a.db"))
	wantCode(t, err, schemas.CodeArchiveDown)
}

func TestStoreNeverOverwrites(t *testing.T) {
	t.Parallel()
	path := fixture(t, "legacy")
	w, err := OpenWriter(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	r := openReader(t, path)
	old := list(t, r, Query{Limit: 1})[0]
	found, err := r.Lookup(t.Context(), []string{old.Tombstone})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := r.Open(t.Context(), found[old.Tombstone])
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(stream)
	if err := errors.Join(err, stream.Close()); err != nil {
		t.Fatal(err)
	}
	item := NewItem{Repo: old.Repo, Path: old.Path, Commit: old.Commit, By: "bob", Content: content}
	_, err = storeOne(t, w, StoreOptions{}, item)
	for _, want := range []string{old.Repo, old.Path, old.Commit, "only one"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
	item.Path = "elsewhere"
	s, err := storeOne(t, w, StoreOptions{Revive: true}, item)
	if err != nil || !s.Reused || s.Codec != "zlib" || s.CompressedSize != old.Stored {
		t.Errorf("%+v, %v", s, err)
	}
	// New content under a name that is taken leaves nothing behind.
	item.Path, item.Content = old.Path, []byte("new")
	if _, err = storeOne(t, w, StoreOptions{}, item); err == nil {
		t.Error("a second item of the same repo, path and commit was stored")
	}
	if stats, err := r.Stats(t.Context()); err != nil || stats.Items != 21 || stats.Artifacts != 20 {
		t.Errorf("%+v, %v", stats, err)
	}
	execSQL(t, path, `UPDATE artifact SET size_bytes = size_bytes + 1`)
	item.Path, item.Content = "third", content
	_, err = storeOne(t, w, StoreOptions{}, item)
	wantCode(t, err, schemas.CodeIntegrityMismatch)
}

func TestWriterBusy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	w := createWriter(t, path)
	if _, err := w.sink.(*sqliteWriter).db.Exec(`PRAGMA busy_timeout = 1`); err != nil {
		t.Fatal(err)
	}
	other := createWriter(t, path)
	err := other.sink.(*sqliteWriter).inTx(t.Context(), func(*sql.Tx) error {
		return w.Restored(t.Context(), []RestoreEvent{{ID: "e", Item: "i", Actor: "a"}})
	})
	wantCode(t, err, schemas.CodeArchiveBusy)
}

func TestRestoredVanished(t *testing.T) {
	t.Parallel()
	path := fixture(t, "sqlite")
	w, err := OpenWriter(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.Restored(t.Context(), []RestoreEvent{{ID: "x", Item: "y", Actor: "z"}}), schemas.CodeArchiveDown)
}
