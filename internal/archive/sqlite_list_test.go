package archive

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

func list(t *testing.T, r *Reader, q Query) (items []Item) {
	t.Helper()
	for item, err := range r.List(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, item)
	}
	return items
}

func paths(items []Item) (all []string) {
	for _, i := range items {
		all = append(all, i.Path)
	}
	return all
}

func TestListOrder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	items := newItems(6, func(i int) []byte { return []byte{byte(i)} })
	items[5].Repo = "acme/other"
	storeAll(t, createWriter(t, path), items...)
	execSQL(t, path,
		`UPDATE item SET archived_at = '2026-01-02T10:00:00Z' WHERE path = 'src/0.go'`,
		`UPDATE item SET archived_at = '2026-01-02 11:00:00' WHERE path = 'src/1.go'`,
		`UPDATE item SET archived_at = '2026-01-02T12:00:00Z' WHERE path = 'src/2.go'`,
		`UPDATE item SET archived_at = '2026-01-03 00:30:00' WHERE path = 'src/3.go'`,
		`UPDATE item SET archived_at = '2026-01-02T12:30:00+02:00' WHERE path = 'src/4.go'`,
		`UPDATE item SET archived_at = '2026-01-01T00:00:00Z' WHERE path = 'src/5.go'`)
	r := openReader(t, path)
	for _, tt := range []struct {
		name string
		q    Query
		want []string
	}{
		{"all", Query{}, []string{"src/3.go", "src/2.go", "src/1.go", "src/4.go", "src/0.go", "src/5.go"}},
		{"limit", Query{Limit: 2}, []string{"src/3.go", "src/2.go"}},
		{"repo", Query{Repo: "acme/other"}, []string{"src/5.go"}},
		{"no repo", Query{Repo: "acme"}, nil},
		{"since", Query{Since: mustTime(t, "2026-01-02T11:00:00Z")}, []string{"src/3.go", "src/2.go", "src/1.go"}},
		{"since elsewhere", Query{Since: mustTime(t, "2026-01-02T12:30:00+02:00")}, []string{"src/3.go", "src/2.go", "src/1.go", "src/4.go"}},
		{"since and repo and limit", Query{Since: mustTime(t, "2025-01-02T12:30:00Z"), Repo: "acme/demo", Limit: 1}, []string{"src/3.go"}},
		{"since later", Query{Since: mustTime(t, "2026-01-04T00:00:00Z")}, nil},
	} {
		got := list(t, r, tt.q)
		if diff := cmp.Diff(tt.want, paths(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	all := list(t, r, Query{})
	if all[2].ArchivedAt != "2026-01-02T11:00:00Z" || all[3].ArchivedAt != "2026-01-02T10:30:00Z" {
		t.Errorf("times %q and %q are not spelled alike", all[2].ArchivedAt, all[3].ArchivedAt)
	}
	for _, err := range r.List(t.Context(), Query{}) {
		if err != nil {
			t.Error(err)
		}
		break // leaving early must not hold a connection
	}
}

func TestListFixture(t *testing.T) {
	t.Parallel()
	r := openReader(t, fixture(t, "sqlite"))
	got := map[string]Item{}
	for _, i := range list(t, r, Query{}) {
		got[i.Tombstone] = i
	}
	want, _ := expected(t)
	if len(got) != len(want) {
		t.Errorf("got %d items, want %d", len(got), len(want))
	}
	for _, w := range want {
		g := got[w.Tombstone]
		slices.Sort(w.Tags)
		state := StateOK
		if w.State == "purged" {
			state = StatePurged
		}
		if diff := cmp.Diff(Item{Repo: w.Repo, Path: w.Path, SHA256: w.SHA256, Size: w.Size, Kind: w.Kind, Reason: w.Reason, Tags: w.Tags,
			LegalHold: w.LegalHold, State: state, Tombstone: w.Tombstone},
			Item{Repo: g.Repo, Path: g.Path, SHA256: g.SHA256, Size: g.Size, Kind: g.Kind, Reason: g.Reason, Tags: g.Tags,
				LegalHold: g.LegalHold, State: g.State, Tombstone: g.Tombstone}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", w.Path, diff)
		}
	}
}

func TestItemKeys(t *testing.T) {
	t.Parallel()
	r := openReader(t, fixture(t, "sqlite"))
	item := list(t, r, Query{Limit: 1})[0]
	d, err := r.Show(t.Context(), item.Tombstone)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		v    any
		keys []string
	}{
		{"list", item, []string{"id", "repo", "path", "commit_sha", "reason", "archived_by", "archived_at", "tombstone_id",
			"kind", "size", "codec", "state", "tags", "legal_hold"}},
		{"show", d, []string{"id", "repo", "path", "commit_sha", "language", "kind", "reason", "artifact_id", "metadata", "archived_by",
			"archived_at", "tombstone_id", "legal_hold", "delete_after", "restored_at", "tags", "events", "artifact"}},
		{"event", d.Events[0], []string{"action", "actor", "context", "created_at"}},
	} {
		var got map[string]any
		data, err := json.Marshal(tt.v)
		if err == nil {
			err = json.Unmarshal(data, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range tt.keys {
			if _, ok := got[k]; !ok {
				t.Errorf("%s: no key %s in %s", tt.name, k, data)
			}
		}
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	w := createWriter(t, path)
	s := storeAll(t, w, NewItem{Repo: "r", Path: "p", Commit: "c", By: "alice", Kind: "doc", Reason: "legacy", Language: "go",
		MIME: "text/plain", Tags: []string{"b", "a", "b"}, Content: []byte("hello\n"),
		Metadata: map[string]string{"ticket": "OPS-1 <&>", "legal_hold": "Yes", "delete_after": "2027-03-01T00:00:00Z"}})[0]
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	if err := w.Restored(t.Context(), []RestoreEvent{{ID: "e-1", Item: s.Item, Actor: "ops", At: at, Context: `{"batch":"b"}`}}); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, path)
	d, err := r.Show(t.Context(), s.Tombstone)
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) *string { return &s }
	want := Detail{
		Item: Item{ID: s.Item, Repo: "r", Path: "p", Commit: "c", Reason: "legacy", ArchivedBy: "alice", ArchivedAt: d.ArchivedAt,
			Tombstone: s.Tombstone, Kind: "doc", State: StateOK, SHA256: hexSum([]byte("hello\n")), Size: 6, Codec: "zstd",
			Stored: s.CompressedSize, LegalHold: true, Tags: []string{"a", "b"}},
		Language: text("go"), ArtifactID: d.ArtifactID,
		Metadata: json.RawMessage(`{"compressed_size":15,"compression":"zstd","delete_after":"2027-03-01T00:00:00Z","language":"go",` +
			`"legal_hold":true,"mime_type":"text/plain","sha256":"` + s.SHA256 + `","size_bytes":6,"ticket":"OPS-1 <&>"}`),
		DeleteAfter: text("2027-03-01T00:00:00Z"), RestoredAt: text("2026-05-06T07:08:09Z"),
		Artifact: ArtifactDetail{ID: d.ArtifactID, SHA256: s.SHA256, Size: 6, Codec: "zstd", Stored: s.CompressedSize, MIME: "text/plain",
			StorageDriver: "db", CreatedAt: d.ArchivedAt},
		Events: []Event{
			{Action: "RESTORE", Actor: "ops", Context: json.RawMessage(`{"batch":"b"}`), CreatedAt: "2026-05-06T07:08:09Z"},
			{Action: "ARCHIVE", Actor: "alice", Context: json.RawMessage(`{"commit":"c","path":"p","repo":"r","tool":"exhume"}`), CreatedAt: d.ArchivedAt},
		},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := time.Parse(stampLayout, d.ArchivedAt); err != nil {
		t.Error(err)
	}
	_, err = r.Show(t.Context(), "nope")
	wantCode(t, err, schemas.CodeTombstoneNotFound)

	execSQL(t, path, `UPDATE item SET metadata = 'not JSON'`, `DROP TABLE event`)
	_, err = r.Show(t.Context(), s.Tombstone)
	wantCode(t, err, schemas.CodeArchiveCorrupt)
	if got := string(jsonValue("not JSON")); got != `"not JSON"` {
		t.Errorf("text that is not JSON became %s", got)
	}
}
