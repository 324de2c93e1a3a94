package archive

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

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

// Thousands of items, in several groups, with every third content a duplicate.
func TestStoreMany(t *testing.T) {
	t.Parallel()
	const n = 1500
	path := filepath.Join(t.TempDir(), "a.db")
	content := func(i int) []byte { return fmt.Appendf(nil, "content %d", i-i%3) }
	w := createWriter(t, path)
	stored := storeAll(t, w, newItems(n, content)...)
	again := storeAll(t, w, newItems(30, content)...)
	r := openReader(t, path)
	var ids []string
	for i, s := range stored {
		if s.Path != fmt.Sprintf("src/%d.go", i) || s.SHA256 != hexSum(content(i)) || s.Reused != (i%3 != 0) {
			t.Fatalf("item %d was stored as %+v", i, s)
		}
		ids = append(ids, s.Tombstone)
	}
	for i, s := range again {
		if !s.Reused || s.CompressedSize != stored[i].CompressedSize {
			t.Errorf("item %d was stored again as %+v", i, s)
		}
	}
	found, err := r.Lookup(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	got := sums(t, r, found)
	for _, s := range stored {
		a := found[s.Tombstone]
		if got[a.ID] != s.SHA256 || a.Item != s.Item || a.Codec != "zstd" || uuid.Validate(a.Item) != nil || uuid.Validate(a.Tombstone) != nil {
			t.Errorf("stored %+v, found %+v", s, a)
		}
	}
	stats, err := r.Stats(t.Context())
	if err != nil || stats.Items != n+30 || stats.Artifacts != (n+2)/3 || stats.Retrievable != n+30 {
		t.Errorf("stats %+v, %v", stats, err)
	}
}

func TestStoreRefusesItems(t *testing.T) {
	t.Parallel()
	good := NewItem{Repo: "r", Path: "p", Commit: "c", By: "b", Content: []byte("x")}
	with := func(f func(*NewItem)) NewItem {
		n := good
		f(&n)
		return n
	}
	refused := []struct {
		item NewItem
		want string
	}{
		{with(func(n *NewItem) { n.Repo = "" }), "repo is missing"},
		{with(func(n *NewItem) { n.By = "" }), "by is missing"},
		{with(func(n *NewItem) { n.Commit = "" }), "commit is missing"},
		{with(func(n *NewItem) { n.Kind = "video" }), `kind "video": want one of code, doc, asset`},
		{with(func(n *NewItem) { n.Reason = "duplicate" }), `reason "duplicate"`},
		{with(func(n *NewItem) { n.Tags = []string{""} }), "a tag is empty"},
		{with(func(n *NewItem) { n.Metadata = map[string]string{"sha256": "fake"} }), "metadata sha256"},
		{with(func(n *NewItem) { n.Metadata = map[string]string{"legal_hold": "enabled"} }), `legal_hold="enabled"`},
		{with(func(n *NewItem) { n.Open = func() (io.ReadCloser, error) { return nil, errors.New("cannot open") } }), "cannot open"},
	}
	items := []NewItem{good}
	for _, r := range refused {
		items = append(items, r.item, good)
	}
	path := filepath.Join(t.TempDir(), "a.db")
	w := createWriter(t, path)
	i := 0
	for s, err := range w.Store(t.Context(), sequence(items), StoreOptions{}) {
		switch {
		case i%2 == 0 && err != nil:
			t.Errorf("item %d: %v", i, err)
		case i%2 == 1 && (err == nil || !strings.Contains(err.Error(), refused[i/2].want) || s.Tombstone != ""):
			t.Errorf("item %d: got %+v, error %v, want %q", i, s, err, refused[i/2].want)
		}
		i++
	}
	if i != len(items) {
		t.Errorf("%d results for %d items", i, len(items))
	}
	if _, err := (NewItem{Content: noise(11)}).read(10); err == nil || !strings.Contains(err.Error(), "larger than the 10 bytes") {
		t.Errorf("too large an item: %v", err)
	}
	failing := func(yield func(NewItem, error) bool) {
		_ = yield(NewItem{Repo: "r", Path: "gone"}, io.ErrClosedPipe) && yield(good, nil)
	}
	var errs []error
	for s, err := range w.Store(t.Context(), failing, StoreOptions{}) {
		errs = append(errs, err)
		if err != nil && s.Path != "gone" {
			t.Errorf("the error is not told of which item it is: %+v", s)
		}
	}
	if len(errs) != 2 || !errors.Is(errs[0], io.ErrClosedPipe) || errs[1] != nil {
		t.Errorf("errors %v", errs)
	}
}

func TestStoreColumns(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	w := createWriter(t, path)
	hold := func(word string) bool {
		s := storeAll(t, w, NewItem{Repo: "r", Path: "p", Commit: "c", By: "b", Metadata: map[string]string{"legal_hold": word}})[0]
		d, err := openReader(t, path).Show(t.Context(), s.Tombstone)
		if err != nil {
			t.Fatal(err)
		}
		var meta map[string]any
		if err := json.Unmarshal(d.Metadata, &meta); err != nil {
			t.Fatal(err)
		}
		if _, kept := meta["legal_hold"]; kept != d.LegalHold {
			t.Errorf("legal_hold=%s: metadata %s", word, d.Metadata)
		}
		if d.Language != nil || meta["language"] != nil || d.Kind != "code" || d.Reason != "dead" || meta["mime_type"] != "application/octet-stream" {
			t.Errorf("defaults: %+v, metadata %s", d, d.Metadata)
		}
		return d.LegalHold
	}
	for word, want := range map[string]bool{"1": true, "TRUE": true, "yes": true, "On": true, "0": false, "false": false, "no": false, "off": false, "": false} {
		if got := hold(word); got != want {
			t.Errorf("legal_hold=%q gives %t", word, got)
		}
	}
}

func storeOne(t *testing.T, w *Writer, opts StoreOptions, item NewItem) (Stored, error) {
	t.Helper()
	for s, err := range w.Store(t.Context(), sequence([]NewItem{item}), opts) {
		return s, err
	}
	t.Fatal("no result")
	return Stored{}, nil
}

func TestStorePurged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	w := createWriter(t, path)
	item := newItems(1, func(int) []byte { return []byte("secret plans") })[0]
	first, err := storeOne(t, w, StoreOptions{}, item)
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, path, `UPDATE artifact SET blob_bytes = NULL, storage_driver = 'object', object_url = 'purged://dual-control'`)
	_, err = storeOne(t, w, StoreOptions{}, item)
	wantCode(t, err, schemas.CodeArtifactPurged)
	for _, want := range []string{first.Tombstone, first.SHA256, "--revive", "purged"} {
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	r := openReader(t, path)
	if stats, err := r.Stats(t.Context()); err != nil || stats.Items != 1 || stats.Purged != 1 {
		t.Errorf("after the refusal: %+v, %v", stats, err)
	}

	revived, err := storeOne(t, w, StoreOptions{Revive: true}, item)
	if err != nil || !revived.Revived || revived.Reused {
		t.Fatalf("%+v, %v", revived, err)
	}
	found, err := r.Lookup(t.Context(), []string{first.Tombstone, revived.Tombstone})
	if err != nil {
		t.Fatal(err)
	}
	a, b := found[first.Tombstone], found[revived.Tombstone]
	if a.ID != b.ID || a.URL != "" || sums(t, r, found)[a.ID] != first.SHA256 {
		t.Errorf("after reviving: %+v and %+v", a, b)
	}
	d, err := r.Show(t.Context(), revived.Tombstone)
	if err != nil || !bytes.Contains(d.Events[0].Context, []byte(`"revived":true`)) || d.Artifact.StorageDriver != "db" {
		t.Errorf("%+v, %v", d, err)
	}
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

// What the consumer has not seen is not there.
func TestStoreStops(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	w := createWriter(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := 0
	for _, err := range w.Store(ctx, sequence(newItems(storeItems+1, func(i int) []byte { return []byte{byte(i)} })), StoreOptions{}) {
		if results++; results <= storeItems && err != nil {
			t.Fatal(err)
		}
		if results > storeItems && !errors.Is(err, context.Canceled) {
			t.Errorf("after cancelling: %v", err)
		}
		cancel()
	}
	for _, err := range w.Store(t.Context(), sequence(newItems(3, func(i int) []byte { return []byte{byte(i)} })), StoreOptions{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	if stats, err := openReader(t, path).Stats(t.Context()); err != nil || stats.Items != storeItems+3 {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestWriterBusy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	w := createWriter(t, path)
	if _, err := w.db.Exec(`PRAGMA busy_timeout = 1`); err != nil {
		t.Fatal(err)
	}
	other := createWriter(t, path)
	err := other.inTx(t.Context(), func(*sql.Tx) error {
		return w.Restored(t.Context(), []RestoreEvent{{ID: "e", Item: "i", Actor: "a"}})
	})
	wantCode(t, err, schemas.CodeArchiveBusy)
}

func TestRestored(t *testing.T) {
	t.Parallel()
	path := fixture(t, "sqlite")
	w, err := OpenWriter(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	r := openReader(t, path)
	items := list(t, r, Query{})
	at := mustTime(t, "2027-01-02T03:04:05Z")
	var events []RestoreEvent
	for i, item := range items {
		events = append(events, RestoreEvent{ID: fmt.Sprint("b:", i), Item: item.ID, Actor: "ops", At: at})
	}
	for range 2 {
		if err := w.Restored(t.Context(), append(events, events[0])); err != nil {
			t.Fatal(err)
		}
	}
	execSQL(t, path, `UPDATE item SET restored_at = NULL`)
	later := RestoreEvent{ID: "c:0", Item: items[0].ID, Actor: "ops", At: at.AddDate(0, 0, 1), Context: `{"batch":"c"}`}
	if err := w.Restored(t.Context(), append(events, later)); err != nil {
		t.Fatal(err)
	}
	for i, item := range items {
		d, err := r.Show(t.Context(), item.Tombstone)
		if err != nil {
			t.Fatal(err)
		}
		var got []Event
		for _, e := range d.Events {
			if e.Actor == "ops" && strings.HasPrefix(e.CreatedAt, "2027") {
				got = append(got, e)
			}
		}
		want := []Event{{Action: "RESTORE", Actor: "ops", Context: json.RawMessage("{}"), CreatedAt: "2027-01-02T03:04:05Z"}}
		if i == 0 {
			want = append(want, Event{Action: "RESTORE", Actor: "ops", Context: json.RawMessage(`{"batch":"c"}`), CreatedAt: "2027-01-03T03:04:05Z"})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events of %s (-want +got):\n%s", item.Path, diff)
		}
		// Only the event that was new sets the time again.
		if (d.RestoredAt != nil) != (i == 0) {
			t.Errorf("%s: restored_at %v", item.Path, d.RestoredAt)
		}
	}
	if err := w.Restored(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.Restored(t.Context(), []RestoreEvent{{ID: "x", Item: "y", Actor: "z", At: at}}), schemas.CodeArchiveDown)
}
