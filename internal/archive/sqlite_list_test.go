package archive

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// Times with an offset are compared as what they mean.
func TestListOffset(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	storeAll(t, createWriter(t, path), newItems(4, func(i int) []byte { return []byte{byte(i)} })...)
	execSQL(t, path,
		`UPDATE item SET archived_at = '2026-01-02T12:00:00Z' WHERE path = 'src/0.go'`,
		`UPDATE item SET archived_at = '2026-01-02T12:30:00+02:00' WHERE path = 'src/1.go'`,
		`UPDATE item SET archived_at = '2026-01-02 10:00:00' WHERE path = 'src/2.go'`,
		`UPDATE item SET archived_at = '2026-01-03T00:15:00+14:00' WHERE path = 'src/3.go'`)
	got := list(t, openReader(t, path), Query{Since: mustTime(t, "2026-01-02T12:30:00+02:00")})
	if diff := cmp.Diff([]string{"src/0.go", "src/1.go"}, paths(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	until := list(t, openReader(t, path), Query{Until: mustTime(t, "2026-01-02T10:30:01Z")})
	if diff := cmp.Diff([]string{"src/1.go", "src/3.go", "src/2.go"}, paths(until)); diff != "" {
		t.Errorf("until (-want +got):\n%s", diff)
	}
	if got[1].ArchivedAt != "2026-01-02T10:30:00Z" {
		t.Errorf("archived at %q", got[1].ArchivedAt)
	}
}

func TestShowBadMetadata(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	s := storeAll(t, createWriter(t, path), newItems(1, func(int) []byte { return nil })...)[0]
	execSQL(t, path, `UPDATE item SET metadata = 'not JSON'`)
	d, err := openReader(t, path).Show(t.Context(), s.Tombstone)
	if err != nil || string(d.Metadata) != `"not JSON"` {
		t.Errorf("metadata %s, %v", d.Metadata, err)
	}
}

// A SQLite archive does not keep items from losing their artifact.
func TestLookupDangling(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	s := storeAll(t, createWriter(t, path), newItems(1, func(int) []byte { return []byte("x") })...)[0]
	execSQL(t, path, `DELETE FROM artifact`)
	r := openReader(t, path)
	found, err := r.Lookup(t.Context(), []string{s.Tombstone})
	a := found[s.Tombstone]
	if err != nil || a.Stored != -1 || a.ID == "" || StateOf(a.Stored, a.URL) != StateMissing {
		t.Errorf("got %+v, %v, want an artifact without bytes", a, err)
	}
	_, err = r.Open(t.Context(), a)
	wantCode(t, err, schemas.CodeArtifactMissing)
}
