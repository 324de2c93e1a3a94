package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

func TestReadLegacy(t *testing.T) {
	t.Parallel()
	path := fixture(t, "legacy")
	execSQL(t, path, `ALTER TABLE item ADD COLUMN standardization_metadata TEXT`)
	r := openReader(t, path)
	sumsFile, err := os.ReadFile(filepath.Join(testdata, "legacy", "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	wantSums := map[string]string{}
	for line := range strings.Lines(string(sumsFile)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		wantSums[strings.TrimPrefix(name, "out/")] = sum
	}
	var ids []string
	for item, err := range r.List(t.Context(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if item.ArchivedAt != "2026-11-22T18:52:30Z" {
			t.Errorf("archived at %q", item.ArchivedAt)
		}
		ids = append(ids, item.Tombstone)
	}
	found, err := r.Lookup(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	got := sums(t, r, found)
	paths := map[string]string{}
	for _, a := range found {
		paths[a.Path] = got[a.ID]
	}
	if diff := cmp.Diff(wantSums, paths); diff != "" {
		t.Errorf("SHA-256 by path (-want +got):\n%s", diff)
	}
}

func TestOpenReaderRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile(fixture(t, "sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.db")
	execSQL(t, other, `CREATE TABLE item (id)`)
	before := names(t, dir)
	tests := []struct {
		name, url string
		code      schemas.Code
	}{
		{"missing file", filepath.Join(dir, "no.db"), schemas.CodeArchiveDown},
		{"missing directory", filepath.Join(dir, "no", "no.db"), schemas.CodeArchiveDown},
		{"file as directory", filepath.Join(other, "no.db"), schemas.CodeArchiveDown},
		{"directory", dir, schemas.CodeArchiveCorrupt},
		{"no database", file("text.db", bytes.Repeat([]byte("text "), 1000)), schemas.CodeArchiveCorrupt},
		{"empty file", file("empty.db", nil), schemas.CodeArchiveCorrupt},
		{"cut", file("cut.db", good[:10000]), schemas.CodeArchiveCorrupt},
		{"other tables", other, schemas.CodeArchiveCorrupt},
		{"unknown scheme", "foo://u:secret@h/d", schemas.CodeInternal},
	}
	before = append(before, "text.db", "empty.db", "cut.db")
	slices.Sort(before)
	for _, tt := range tests {
		for _, what := range []string{"OpenWriter", "OpenReader"} {
			var err error
			if what == "OpenReader" {
				_, err = OpenReader(t.Context(), tt.url)
			} else {
				_, err = OpenWriter(t.Context(), tt.url)
			}
			if err == nil || fault.CodeOf(err) != tt.code {
				t.Errorf("%s, %s: got error %v (%s), want code %s", tt.name, what, err, fault.CodeOf(err), tt.code)
			} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, %s: bad text %q", tt.name, what, err)
			}
		}
	}
	if diff := cmp.Diff(before, names(t, dir)); diff != "" {
		t.Errorf("files were created (-want +got):\n%s", diff)
	}
}

func names(t testing.TB, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestPathsThatLookLikeSyntax(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b?mode=memory#x%41&é'\n")
	path := filepath.Join(dir, "arch?ive#1.db")
	stored := storeAll(t, createWriter(t, path), newItems(1, func(int) []byte { return []byte("x") })...)
	r := openReader(t, path)
	found, err := r.Lookup(t.Context(), []string{stored[0].Tombstone})
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	checkStream(t, r, found[stored[0].Tombstone])
	if got := names(t, dir); got[0] != "arch?ive#1.db" {
		t.Errorf("files: %q", got)
	}
	_, err = OpenReader(t.Context(), dir+"/none")
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q, want one line", err)
	}
}

func TestReaderLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	w, err := CreateWriter(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	storeAll(t, w, newItems(3, func(i int) []byte { return []byte{byte(i)} })...)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stats(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"a.db"}, names(t, filepath.Dir(path))); diff != "" {
		t.Errorf("files beside the archive (-want +got):\n%s", diff)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the archive has changed: %v", err)
	}
}

func TestReaderCannotWrite(t *testing.T) {
	t.Parallel()
	r := openReader(t, fixture(t, "sqlite"))
	_, err := r.source.(*sqliteReader).db.Exec(`DELETE FROM item`)
	if err == nil {
		t.Error("a reader can delete items")
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	path := fixture(t, "sqlite")
	r := openReader(t, path)
	if err := r.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, r.Ping(t.Context()), schemas.CodeArchiveDown)
	other, err := os.ReadFile(fixture(t, "legacy"))
	if err == nil {
		err = os.WriteFile(path, other, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if stats, err := r.Stats(t.Context()); err != nil || stats.Items != 20 {
		t.Errorf("after the file was replaced: %+v, %v", stats, err)
	}
}

func TestClassification(t *testing.T) {
	t.Parallel()
	file := fixture(t, "sqlite")
	for rc, want := range map[int]schemas.Code{
		5: schemas.CodeArchiveBusy, 261: schemas.CodeArchiveBusy, 6: schemas.CodeArchiveBusy, 15: schemas.CodeArchiveBusy,
		14: schemas.CodeArchiveDown, 10: schemas.CodeArchiveDown, 266: schemas.CodeArchiveDown, 13: schemas.CodeArchiveDown, 1032: schemas.CodeArchiveDown,
		11: schemas.CodeArchiveCorrupt, 26: schemas.CodeArchiveCorrupt, 267: schemas.CodeArchiveCorrupt,
		1: schemas.CodeArchiveError, 8: schemas.CodeArchiveError, 19: schemas.CodeArchiveError, 21: schemas.CodeArchiveError,
	} {
		err := fmt.Errorf("wrapped: %w", &sqliteError{rc, "text"})
		wantCode(t, sqliteFault(t.Context(), file, "testing", err), want)
		wantCode(t, sqliteFault(t.Context(), file+".gone", "testing", err), schemas.CodeArchiveDown)
	}
	noTable := &sqliteError{1, "no such table: item"}
	wantCode(t, sqliteFault(t.Context(), file, "testing", noTable), schemas.CodeArchiveCorrupt)
	if err := sqliteFault(t.Context(), file, "testing", context.DeadlineExceeded); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a context error became %v", err)
	}
}
