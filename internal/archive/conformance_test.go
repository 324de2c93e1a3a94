package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/exhume/exhume/schemas"
)

// What every kind of archive does alike. The tests in this file run against
// all of them.

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

func storeOne(t *testing.T, w *Writer, opts StoreOptions, item NewItem) (Stored, error) {
	t.Helper()
	for s, err := range w.Store(t.Context(), sequence([]NewItem{item}), opts) {
		return s, err
	}
	t.Fatal("no result")
	return Stored{}, nil
}

func TestReadFixture(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		r := openReader(t, e.fixture(t))
		items, unknown := expected(t, e.name)
		ids := slices.Clone(unknown)
		for _, item := range items {
			ids = append(ids, item.Tombstone)
		}
		upper := strings.ToUpper(items[0].Tombstone)
		ids = append(ids, upper, items[1].Tombstone+" ", " "+items[1].Tombstone, "{"+items[1].Tombstone+"}",
			strings.ReplaceAll(items[1].Tombstone, "-", ""), "", "not-a-uuid", "\xff\x00", "' OR 1=1 --")
		found, err := r.Lookup(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := found[upper]; ok != e.anyCase || ok && a.ID != found[items[0].Tombstone].ID {
			t.Errorf("in upper case: %+v, %t", a, ok)
		}
		delete(found, upper)
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
	})
}

func TestListOrder(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		items := newItems(6, func(i int) []byte { return []byte{byte(i)} })
		items[5].Repo = "acme/other"
		storeAll(t, createWriter(t, url), items...)
		for i, at := range []string{"2026-01-02 10:00:00", "2026-01-02 11:00:00", "2026-01-02 12:00:00", "2026-01-03 00:30:00",
			"2026-01-02 10:30:00", "2026-01-01 00:00:00"} {
			e.exec(t, url, fmt.Sprintf(`UPDATE item SET archived_at = '%s' WHERE path = 'src/%d.go'`, e.spelled(i, at), i))
		}
		r := openReader(t, url)
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
			{"until", Query{Until: mustTime(t, "2026-01-02T11:00:00Z")}, []string{"src/4.go", "src/0.go", "src/5.go"}},
			{"until elsewhere", Query{Until: mustTime(t, "2026-01-02T12:30:00+02:00")}, []string{"src/0.go", "src/5.go"}},
			{"a day", Query{Since: mustTime(t, "2026-01-02T00:00:00Z"), Until: mustTime(t, "2026-01-03T00:00:00Z")},
				[]string{"src/2.go", "src/1.go", "src/4.go", "src/0.go"}},
			{"limit of what matches", Query{Paths: []string{"src/[0-2].go"}, Limit: 2}, []string{"src/2.go", "src/1.go"}},
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
	})
}

// Each field of a query keeps items by itself, and text is compared to the letter.
func TestListFilters(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		var items []NewItem
		for i, n := range []NewItem{
			{Path: "docs/a.md", Kind: "doc", Reason: "legacy", By: "ann", Tags: []string{"v1", "hot"}},
			{Path: "docs/deep/b.md", Kind: "doc", Reason: "dead", By: "Ann", Tags: []string{"v1"}},
			{Path: "Docs/c.md", Kind: "doc", Reason: "dead", By: "ann ", Tags: []string{"V1", "hot"}},
			{Path: "100%_!/d.go", Kind: "code", Reason: "dead", By: "bob", Tags: []string{"' OR 1=1 --"}},
			{Path: "100xy!/e.go", Kind: "code", Reason: "pruned", By: "bob"},
			{Path: "naïve-日本/f.txt", Kind: "asset", Reason: "replaced", By: "bob"},
			{Path: "there/g", Kind: "asset", Reason: "replaced", By: "bob"},
			{Path: "lost/h", Kind: "asset", Reason: "replaced", By: "bob"},
			{Path: "lost/i", Kind: "asset", Reason: "replaced", By: "bob"},
		} {
			n.Repo, n.Commit, n.Content = "acme/app", "c0ffee", []byte{byte(i)}
			items = append(items, n)
		}
		items[2].Repo, items[3].Repo = "ACME/app", "acme/app "
		storeAll(t, createWriter(t, url), items...)
		of := func(path string) string {
			return `storage_driver = 'object' WHERE id = (SELECT artifact_id FROM item WHERE path = '` + path + `')`
		}
		e.exec(t, url,
			`UPDATE artifact SET blob_bytes = NULL, object_url = 'purged://dual-control', `+of("100xy!/e.go"),
			`UPDATE artifact SET blob_bytes = NULL, object_url = 's3://b/k', `+of("there/g"),
			`UPDATE artifact SET blob_bytes = NULL, `+of("lost/h"),
			`UPDATE artifact SET blob_bytes = NULL, object_url = '', `+of("lost/i"))
		r := openReader(t, url)
		for _, tt := range []struct {
			name string
			q    Query
			want string // the last letters of the paths' names, in order
		}{
			{"all", Query{}, "abcdefghi"},
			{"repo", Query{Repo: "acme/app"}, "abefghi"},
			{"repo in upper case", Query{Repo: "ACME/app"}, "c"},
			{"repo with a blank", Query{Repo: "acme/app "}, "d"},
			{"no repo", Query{Repo: "' OR 1=1 --"}, ""},
			{"tag", Query{Tags: []string{"v1"}}, "ab"},
			{"tags", Query{Tags: []string{"hot", "v1"}}, "a"},
			{"tag in upper case", Query{Tags: []string{"V1"}}, "c"},
			{"strange tag", Query{Tags: []string{"' OR 1=1 --"}}, "d"},
			{"no tag", Query{Tags: []string{"v1", "none"}}, ""},
			{"kind", Query{Kind: "code"}, "de"},
			{"reason", Query{Reason: "legacy"}, "a"},
			{"archived by", Query{ArchivedBy: "ann"}, "a"},
			{"archived by in upper case", Query{ArchivedBy: "Ann"}, "b"},
			{"path", Query{Paths: []string{"docs/a.md"}}, "a"},
			{"below", Query{Paths: []string{"docs/**"}}, "ab"},
			{"one level", Query{Paths: []string{"docs/*"}}, "a"},
			{"any depth", Query{Paths: []string{"**/*.md"}}, "abc"},
			{"either path", Query{Paths: []string{"docs/**", "100*/?.go"}}, "abde"},
			{"signs of LIKE", Query{Paths: []string{"100%_!/**"}}, "d"},
			{"signs of LIKE as letters", Query{Paths: []string{"100xy!/*"}}, "e"},
			{"not ASCII", Query{Paths: []string{"naïve-日*/**"}}, "f"},
			{"no path", Query{Paths: []string{"docs"}}, ""},
			{"restorable", Query{Restorable: true}, "abcdfg"},
			{"all at once", Query{Repo: "acme/app", Tags: []string{"v1"}, Kind: "doc", Reason: "dead", ArchivedBy: "Ann", Restorable: true,
				Paths: []string{"docs/**"}, Since: mustTime(t, "2020-01-01T00:00:00Z"), Until: mustTime(t, "2120-01-01T00:00:00Z"), Limit: 5}, "b"},
		} {
			var got []string
			for _, item := range list(t, r, tt.q) {
				name := item.Path[strings.LastIndexByte(item.Path, '/')+1:]
				got = append(got, name[:1])
			}
			slices.Sort(got) // they are of the same second
			if strings.Join(got, "") != tt.want {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
		}
		seq := r.List(t.Context(), Query{Paths: []string{"docs/**"}, Limit: 1})
		for range 2 {
			n := 0
			for _, err := range seq {
				if err != nil {
					t.Error(err)
				}
				n++
			}
			if n != 1 {
				t.Errorf("a sequence has %d items, want 1 each time", n)
			}
		}
		for _, err := range r.List(t.Context(), Query{Paths: []string{"a/["}}) {
			if err == nil || !strings.Contains(err.Error(), `pattern "a/["`) {
				t.Errorf("a bad pattern: %v", err)
			}
		}
	})
}

func TestListFixture(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		r := openReader(t, e.fixture(t))
		got := map[string]Item{}
		for _, i := range list(t, r, Query{}) {
			got[i.Tombstone] = i
		}
		want, _ := expected(t, e.name)
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
	})
}

func TestItemKeys(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		r := openReader(t, e.fixture(t))
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
	})
}

func TestShow(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		w := createWriter(t, url)
		s := storeAll(t, w, NewItem{Repo: "r", Path: "naïve-日本/🗃.txt", Commit: "c", By: "alice", Kind: "doc", Reason: "legacy", Language: "go",
			MIME: "text/plain", Tags: []string{"b", "a", "b"}, Content: []byte("hello\n"),
			Metadata: map[string]string{"ticket": "OPS-1 <&>", "legal_hold": "Yes", "delete_after": "2027-03-01T00:00:00Z"}})[0]
		at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
		if err := w.Restored(t.Context(), []RestoreEvent{{ID: uuid.NewString(), Item: s.Item, Actor: "ops", At: at, Context: `{"batch":"b"}`}}); err != nil {
			t.Fatal(err)
		}
		r := openReader(t, url)
		d, err := r.Show(t.Context(), s.Tombstone)
		if err != nil {
			t.Fatal(err)
		}
		text := func(s string) *string { return &s }
		want := Detail{
			Item: Item{ID: s.Item, Repo: "r", Path: "naïve-日本/🗃.txt", Commit: "c", Reason: "legacy", ArchivedBy: "alice", ArchivedAt: d.ArchivedAt,
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
				{Action: "ARCHIVE", Actor: "alice", Context: json.RawMessage(`{"commit":"c","path":"naïve-日本/🗃.txt","repo":"r","tool":"exhume"}`), CreatedAt: d.ArchivedAt},
			},
		}
		if diff := cmp.Diff(want, d, sameJSON); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := time.Parse(stampLayout, d.ArchivedAt); err != nil {
			t.Error(err)
		}
		for _, unknown := range []string{"nope", "", uuid.NewString(), s.Item} {
			_, err = r.Show(t.Context(), unknown)
			wantCode(t, err, schemas.CodeTombstoneNotFound)
		}
		if _, err := r.Show(t.Context(), strings.ToUpper(s.Tombstone)); (err == nil) != e.anyCase {
			t.Errorf("Show in upper case: %v", err)
		}
		e.exec(t, url, `DROP TABLE event`)
		_, err = r.Show(t.Context(), s.Tombstone)
		wantCode(t, err, schemas.CodeArchiveCorrupt)
	})
}

// sameJSON compares what JSON means, not how it is spelled.
var sameJSON = cmp.Transformer("JSON", func(m json.RawMessage) (v any) {
	_ = json.Unmarshal(m, &v)
	return v
})

func TestLookupMissing(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		stored := storeAll(t, createWriter(t, url), newItems(2, func(i int) []byte { return []byte{byte(i)} })...)
		e.exec(t, url, `UPDATE artifact SET blob_bytes = NULL, storage_driver = 'object', object_url = 's3://b/k'`)
		r := openReader(t, url)
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
	})
}

func TestBlobsStopsAtError(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		stored := storeAll(t, createWriter(t, url), newItems(3, func(i int) []byte { return []byte{byte(i)} })...)
		r := openReader(t, url)
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
	})
}

func TestReadConcurrently(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		r := openReader(t, e.fixture(t))
		items, _ := expected(t, e.name)
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
	})
}

// offset is how many stored bytes a stream has read.
func offset(s io.ReadCloser) int64 {
	if b, ok := s.(*stream).blob.(*sliced); ok {
		return b.offset
	}
	return s.(*stream).blob.(*sqliteBlob).offset
}

// A stream must not hold the blob in memory: it reads chunk by chunk.
func TestOpenLarge(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		content := noise(16 << 20)
		stored := storeAll(t, createWriter(t, url), NewItem{Repo: "r", Path: "big", Commit: "c", By: "b",
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }})
		r := openReader(t, url)
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
		head := make([]byte, 1<<20)
		if _, err := io.ReadFull(s, head); err != nil || !bytes.Equal(head, content[:1<<20]) {
			t.Fatalf("the first MiB is wrong: %v", err)
		}
		if read := offset(s); read > mariadbPiece || e.name != MariaDB && read > 3<<20 {
			t.Errorf("after 1 MiB of content %d of %d stored bytes are read", read, a.Stored)
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
	})
}

// Thousands of items, in several groups, with every third content a duplicate.
func TestStoreMany(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		const n = 1500
		url := e.place(t)
		content := func(i int) []byte { return fmt.Appendf(nil, "content %d", i-i%3) }
		w := createWriter(t, url)
		stored := storeAll(t, w, newItems(n, content)...)
		again := storeAll(t, w, newItems(30, content)...)
		r := openReader(t, url)
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
	})
}

func TestStoreRefusesItems(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
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
		url := e.place(t)
		w := createWriter(t, url)
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
	})
}

func TestStoreColumns(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		w := createWriter(t, url)
		hold := func(word string) bool {
			s := storeAll(t, w, NewItem{Repo: "r", Path: "p", Commit: "c", By: "b", Metadata: map[string]string{"legal_hold": word}})[0]
			d, err := openReader(t, url).Show(t.Context(), s.Tombstone)
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
	})
}

func TestStorePurged(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		w := createWriter(t, url)
		item := newItems(1, func(int) []byte { return []byte("secret plans") })[0]
		first, err := storeOne(t, w, StoreOptions{}, item)
		if err != nil {
			t.Fatal(err)
		}
		e.exec(t, url, `UPDATE artifact SET blob_bytes = NULL, storage_driver = 'object', object_url = 'purged://dual-control'`)
		_, err = storeOne(t, w, StoreOptions{}, item)
		wantCode(t, err, schemas.CodeArtifactPurged)
		for _, want := range []string{first.Tombstone, first.SHA256, "--revive", "purged"} {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		}
		r := openReader(t, url)
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
	})
}

// What the consumer has not seen is not there.
func TestStoreStops(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		w := createWriter(t, url)
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
		if stats, err := openReader(t, url).Stats(t.Context()); err != nil || stats.Items != storeItems+3 {
			t.Errorf("%+v, %v", stats, err)
		}
	})
}

func TestRestored(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.fixture(t)
		w, err := OpenWriter(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		r := openReader(t, url)
		items := list(t, r, Query{})
		at := mustTime(t, "2027-01-02T03:04:05Z")
		id := func(batch string, i int) string { return uuid.NewSHA1(uuid.Nil, fmt.Append(nil, batch, i)).String() }
		var events []RestoreEvent
		for i, item := range items {
			events = append(events, RestoreEvent{ID: id("b", i), Item: item.ID, Actor: "ops", At: at})
		}
		for range 2 {
			if err := w.Restored(t.Context(), append(events, events[0])); err != nil {
				t.Fatal(err)
			}
		}
		if d, err := r.Show(t.Context(), items[7].Tombstone); err != nil || d.RestoredAt == nil || *d.RestoredAt != "2027-01-02T03:04:05Z" {
			t.Errorf("after restoring: %+v, %v", d, err)
		}
		e.exec(t, url, `UPDATE item SET restored_at = NULL`)
		later := RestoreEvent{ID: id("c", 0), Item: items[0].ID, Actor: "ops", At: at.AddDate(0, 0, 1), Context: `{"batch":"c"}`}
		if err := w.Restored(t.Context(), append(events, later)); err != nil {
			t.Fatal(err)
		}
		for i, item := range items[:9] {
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
			if diff := cmp.Diff(want, got, sameJSON); diff != "" {
				t.Errorf("events of %s (-want +got):\n%s", item.Path, diff)
			}
			// Only the event that was new sets the time again.
			if (d.RestoredAt != nil) != (i == 0) {
				t.Errorf("%s: restored_at %v", item.Path, d.RestoredAt)
			}
		}
		// Of several events that are new the last sets the time, in whatever order
		// they come, and however many others come with them.
		var more []RestoreEvent
		for i, item := range items {
			for day := range 3 {
				more = append(more, RestoreEvent{ID: id("d", 3*i+day), Item: item.ID, Actor: "ops", At: at.AddDate(1, 0, (day+i)%3)})
			}
		}
		if err := w.Restored(t.Context(), more); err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			if d, err := r.Show(t.Context(), item.Tombstone); err != nil || d.RestoredAt == nil || *d.RestoredAt != "2028-01-04T03:04:05Z" {
				t.Fatalf("%s: %+v, %v", item.Path, d, err)
			}
		}
		if err := w.Restored(t.Context(), nil); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.Restored(ctx, events); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
	})
}

func TestPingContext(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		r := openReader(t, e.fixture(t))
		if err := r.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Ping(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
		if _, err := r.Lookup(ctx, []string{uuid.NewString()}); !errors.Is(err, context.Canceled) {
			t.Errorf("Lookup with an ended context: %v", err)
		}
		for _, err := range r.List(ctx, Query{}) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("List with an ended context: %v", err)
			}
		}
	})
}

// What reading finds is not there, or belongs to something else.
func TestNoArchive(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		e.exec(t, url, `CREATE TABLE item (id CHAR(36))`)
		for what, open := range map[string]func() error{
			"OpenReader":   func() error { _, err := OpenReader(t.Context(), url); return err },
			"OpenWriter":   func() error { _, err := OpenWriter(t.Context(), url); return err },
			"CreateWriter": func() error { _, err := CreateWriter(t.Context(), url); return err },
		} {
			err := open()
			wantCode(t, err, schemas.CodeArchiveCorrupt)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: bad text %q", what, err)
			}
		}
	})
}

// Creating an archive again changes nothing, and older archives may have more
// columns than exhume knows.
func TestCreateAgain(t *testing.T) {
	everyEngine(t, func(t *testing.T, e engine) {
		url := e.place(t)
		stored := storeAll(t, createWriter(t, url), newItems(1, func(int) []byte { return []byte("x") })...)
		e.exec(t, url, `ALTER TABLE item ADD COLUMN standardization_metadata TEXT`)
		stored = append(stored, storeAll(t, createWriter(t, url), newItems(1, func(int) []byte { return []byte("y") })...)...)
		r := openReader(t, url)
		found, err := r.Lookup(t.Context(), []string{stored[0].Tombstone, stored[1].Tombstone})
		if err != nil || len(found) != 2 || len(list(t, r, Query{})) != 2 {
			t.Errorf("%v, %v", found, err)
		}
	})
}
