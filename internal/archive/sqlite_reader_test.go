package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// sums decodes the artifacts in bulk and gives their SHA-256 by artifact id.
func sums(t testing.TB, r *Reader, found map[string]schemas.Artifact) map[string]string {
	t.Helper()
	artifacts, got := map[string]schemas.Artifact{}, map[string]string{}
	for _, a := range found {
		artifacts[a.ID] = a
	}
	var ids []string
	for id := range artifacts {
		ids = append(ids, id)
	}
	var dst []byte
	err := r.Blobs(t.Context(), ids, func(id string, blob []byte) (err error) {
		if n := artifacts[id].Stored; n != int64(len(blob)) {
			t.Errorf("artifact %s: Lookup told %d stored bytes, Blobs gave %d", id, n, len(blob))
		}
		dst, err = Decode(artifacts[id], blob, dst)
		got[id] = hexSum(dst)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestReadFixture(t *testing.T) {
	t.Parallel()
	r := openReader(t, "sqlite:///"+fixture(t, "sqlite"))
	items, unknown := expected(t)
	ids := slices.Clone(unknown)
	for _, item := range items {
		ids = append(ids, item.Tombstone)
	}
	ids = append(ids, strings.ToUpper(items[0].Tombstone), "", "not-a-uuid", "\xff\x00")
	found, err := r.Lookup(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(items) {
		t.Errorf("found %d items, want %d", len(found), len(items))
	}
	got := sums(t, r, found)
	for _, want := range items {
		a := found[want.Tombstone]
		if diff := cmp.Diff(schemas.Artifact{Tombstone: want.Tombstone, Repo: want.Repo, Path: want.Path, SHA256: want.SHA256, Size: want.Size},
			schemas.Artifact{Tombstone: a.Tombstone, Repo: a.Repo, Path: a.Path, SHA256: a.SHA256, Size: a.Size}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Tombstone, diff)
		}
		wantState, wantSum := StateOK, want.SHA256
		if want.State == "purged" {
			wantState, wantSum = StatePurged, ""
		}
		if state := StateOf(a.Stored, a.URL); state != wantState {
			t.Errorf("%s: state %s, want %s", want.Tombstone, state, wantState)
		}
		if got[a.ID] != wantSum {
			t.Errorf("%s: content has SHA-256 %q, want %q", want.Tombstone, got[a.ID], wantSum)
		}
		checkStream(t, r, a)
	}
	stats, err := r.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Stats{Items: 301, Retrievable: 294, Purged: 7, Artifacts: 274},
		Stats{Items: stats.Items, Retrievable: stats.Retrievable, Purged: stats.Purged, Missing: stats.Missing, Artifacts: stats.Artifacts}); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	if stats.RawBytes <= stats.StoredBytes || stats.StoredBytes == 0 {
		t.Errorf("stats: %d raw bytes, %d stored", stats.RawBytes, stats.StoredBytes)
	}
}

// checkStream reads an artifact as a stream.
func checkStream(t *testing.T, r *Reader, a schemas.Artifact) {
	t.Helper()
	s, err := r.Open(t.Context(), a)
	if a.Stored < 0 {
		wantCode(t, err, schemas.CodeArtifactPurged)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(s)
	if err := errors.Join(err, s.Close(), s.Close()); err != nil {
		t.Errorf("%s: %v", a.Tombstone, err)
	}
	if hexSum(content) != a.SHA256 {
		t.Errorf("%s: the stream has another SHA-256", a.Tombstone)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("a closed stream can be read")
	}
}

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

func TestLookupDanglingAndMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	stored := storeAll(t, createWriter(t, path), newItems(2, func(i int) []byte { return []byte{byte(i)} })...)
	execSQL(t, path, `DELETE FROM artifact WHERE content_sha256 = '`+stored[0].SHA256+`'`,
		`UPDATE artifact SET blob_bytes = NULL, storage_driver = 'object', object_url = 's3://b/k'`)
	r := openReader(t, path)
	found, err := r.Lookup(t.Context(), []string{stored[0].Tombstone, stored[1].Tombstone})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stored {
		a := found[s.Tombstone]
		if a.Stored != -1 || a.ID == "" || StateOf(a.Stored, a.URL) != StateMissing {
			t.Errorf("got %+v, want an artifact without bytes", a)
		}
		_, err := r.Open(t.Context(), a)
		wantCode(t, err, schemas.CodeArtifactMissing)
		if d, err := r.Show(t.Context(), s.Tombstone); err != nil || d.State != StateMissing {
			t.Errorf("Show: %+v, %v", d, err)
		}
	}
	if stats, err := r.Stats(t.Context()); err != nil || stats.Missing != 2 {
		t.Errorf("stats %+v, %v", stats, err)
	}
}

func TestBlobsStopsAtError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	stored := storeAll(t, createWriter(t, path), newItems(3, func(i int) []byte { return []byte{byte(i)} })...)
	r := openReader(t, path)
	var ids, tombstones []string
	for _, s := range stored {
		tombstones = append(tombstones, s.Tombstone)
	}
	found, err := r.Lookup(t.Context(), tombstones)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found {
		ids = append(ids, a.ID)
	}
	calls, stop := 0, errors.New("enough")
	err = r.Blobs(t.Context(), append(ids, "unknown"), func(string, []byte) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls, error %v; want 1 and the error of the callback", calls, err)
	}
}

func TestReadConcurrently(t *testing.T) {
	t.Parallel()
	r := openReader(t, fixture(t, "sqlite"))
	items, _ := expected(t)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			var ids []string
			for i := worker; i < len(items); i += 5 {
				ids = append(ids, items[i].Tombstone)
			}
			found, err := r.Lookup(t.Context(), ids)
			if err != nil {
				t.Error(err)
				return
			}
			for id, sum := range sums(t, r, found) {
				for _, a := range found {
					if a.ID == id && a.SHA256 != sum {
						t.Errorf("artifact %s: wrong content", id)
					}
				}
			}
		})
	}
	wg.Wait()
}

// A stream must not hold the blob in memory: it reads chunk by chunk.
func TestOpenLarge(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	content := noise(16 << 20)
	stored := storeAll(t, createWriter(t, path), NewItem{Repo: "r", Path: "big", Commit: "c", By: "b",
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }})
	r := openReader(t, path)
	found, err := r.Lookup(t.Context(), []string{stored[0].Tombstone})
	if err != nil {
		t.Fatal(err)
	}
	a := found[stored[0].Tombstone]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := r.Open(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	blob := s.(*stream).blob
	head := make([]byte, 1<<20)
	if _, err := io.ReadFull(s, head); err != nil || !bytes.Equal(head, content[:1<<20]) {
		t.Fatalf("the first MiB is wrong: %v", err)
	}
	if blob.size != a.Stored || blob.offset > 3<<20 {
		t.Errorf("after 1 MiB of content %d of %d stored bytes are read", blob.offset, blob.size)
	}
	rest, err := io.ReadAll(s)
	if err != nil || hexSum(append(head, rest...)) != a.SHA256 {
		t.Errorf("the content is wrong: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	if s, err = r.Open(ctx, a); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, s); !errors.Is(err, context.Canceled) {
		t.Errorf("reading after the context ended: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Open(ctx, a); !errors.Is(err, context.Canceled) {
		t.Errorf("opening after the context ended: %v", err)
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
		{"postgres", "postgresql://u:secret@h/d", schemas.CodeInternal},
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
	_, err := r.db.Exec(`DELETE FROM item`)
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
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
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
