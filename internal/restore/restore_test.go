package restore

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/schemas"
)

const testdata = "../../integration/testdata"

func TestArchiveOfThePredecessor(t *testing.T) {
	t.Parallel()
	type item struct {
		Tombstone, Repo, Path, SHA256, State string
		Size                                 int64
	}
	var doc struct{ Items, Unknown []item }
	data, err := os.ReadFile(filepath.Join(testdata, "sqlite", "expected.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &doc))
	data, err = os.ReadFile(filepath.Join(testdata, "sqlite", "archive.sqlite"))
	must(t, err)
	path := filepath.Join(t.TempDir(), "archive.sqlite")
	must(t, os.WriteFile(path, data, 0o644))

	all := slices.Concat(doc.Items, doc.Unknown)
	var tombstones []string
	for _, it := range all {
		tombstones = append(tombstones, it.Tombstone)
	}
	root := t.TempDir()
	r := New(openArchive(t, path), archive.Decode, into(t, root), Config{})
	results, err := r.Restore(t.Context(), schemas.Settings{Root: root}, requests(tombstones))
	must(t, err)
	found := tree(t, root)
	for i, it := range all {
		got := results[i]
		want := restored // in the other states the bytes are still there
		if it.State == "purged" {
			want = failed(schemas.CodeArtifactPurged)
		}
		if i >= len(doc.Items) {
			want = failed(schemas.CodeTombstoneNotFound)
		}
		if v := verdicts(results[i : i+1])[0]; v != want || got.Tombstone != it.Tombstone || got.Index != int64(i) {
			t.Errorf("%s (%s): %+v", it.Tombstone, it.State, got)
		}
		content, there := found[got.Output]
		if there != (want == restored) || there && (sum([]byte(content)) != it.SHA256 || got.SHA256 != it.SHA256 || got.Size != it.Size) {
			t.Errorf("%s: file there %v, %d bytes, result %+v", got.Output, there, len(content), got)
		}
		if got.Target != filepath.Join(root, got.Output) {
			t.Errorf("target %s", got.Target)
		}
	}
}

// Small and streamed ones, one content several times, empty ones, in one group
// and with the least memory.
func TestMixedSizes(t *testing.T) {
	t.Parallel()
	var contents [][]byte
	for i, n := range []int{0, 1, 8 << 10, 127 << 10, 128 << 10, 128<<10 + 1, 1 << 20, 5 << 20, 0, 8 << 10} {
		contents = append(contents, noise(i, n))
	}
	contents = append(contents, make([]byte, 3<<20)) // stored in few bytes
	contents = append(contents, contents[7], contents[2])
	for i := range 60 { // more than one chunk
		contents = append(contents, noise(100+i, 100<<10))
	}
	path, tombstones := newArchive(t, contents...)
	tombstones = append(tombstones, tombstones[2], tombstones[7])
	contents = append(contents, contents[2], contents[7])
	root := t.TempDir()
	r := New(openArchive(t, path), archive.Decode, into(t, root), Config{Memory: MinMemory, Threads: 4})
	results, err := r.Restore(t.Context(), schemas.Settings{Root: root}, requests(tombstones))
	must(t, err)
	found := tree(t, root)
	for i, v := range verdicts(results) {
		if v != restored || found[results[i].Output] != string(contents[i]) {
			t.Errorf("item %d of %d bytes: %+v", i, len(contents[i]), results[i])
		}
	}
	if len(found) != len(contents) {
		t.Errorf("%d files, want %d", len(found), len(contents))
	}
}

func TestWhatStandsThere(t *testing.T) {
	t.Parallel()
	ours := []byte("the artifact's content")
	path, tombstones := newArchive(t, ours)
	source := openArchive(t, path)
	published := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	before, after := published.Add(-time.Minute), published.Add(time.Minute)
	exists, unchanged := failed(schemas.CodeDestinationExists), verdict{Outcome: schemas.OutcomeUnchanged}
	for _, tt := range []struct {
		name      string
		content   string
		modified  time.Time
		published time.Time
		want      map[schemas.Overwrite]verdict
	}{
		{"same, older", string(ours), before, published, map[schemas.Overwrite]verdict{
			"": unchanged, schemas.OverwriteNever: unchanged, schemas.OverwriteIfDifferent: unchanged, schemas.OverwriteAlways: restored}},
		{"same, younger", string(ours), after, published, map[schemas.Overwrite]verdict{
			"": restored, schemas.OverwriteNever: restored, schemas.OverwriteIfDifferent: restored, schemas.OverwriteAlways: restored}},
		{"same, at the very time", string(ours), published, published, map[schemas.Overwrite]verdict{"": restored}},
		{"same, request of no known time", string(ours), before, time.Time{}, map[schemas.Overwrite]verdict{"": restored}},
		{"other, older", "other", before, published, map[schemas.Overwrite]verdict{
			"": exists, schemas.OverwriteNever: exists, schemas.OverwriteIfDifferent: restored, schemas.OverwriteAlways: restored}},
		{"other, younger", "other", after, published, map[schemas.Overwrite]verdict{
			"": exists, schemas.OverwriteIfDifferent: restored, schemas.OverwriteAlways: restored}},
	} {
		for policy, want := range tt.want {
			root := t.TempDir()
			target := filepath.Join(root, "out/0")
			must(t, os.Mkdir(filepath.Dir(target), 0o755))
			must(t, os.WriteFile(target, []byte(tt.content), 0o644))
			must(t, os.Chtimes(target, tt.modified, tt.modified))
			items := requests(tombstones)
			items[0].Published = tt.published
			results, err := New(source, archive.Decode, into(t, root), Config{}).
				Restore(t.Context(), schemas.Settings{Root: root, Overwrite: policy}, items)
			must(t, err)
			if diff := cmp.Diff([]verdict{want}, verdicts(results)); diff != "" {
				t.Errorf("%s, %q (-want +got):\n%s", tt.name, policy, diff)
			}
			content := tt.content
			if want == restored {
				content = string(ours)
			}
			if diff := cmp.Diff(map[string]string{"out/0": content}, tree(t, root)); diff != "" {
				t.Errorf("%s, %q: files (-want +got):\n%s", tt.name, policy, diff)
			}
			info, err := os.Stat(target)
			must(t, err)
			if rewritten := !info.ModTime().Equal(tt.modified); rewritten != (want == restored && (policy == schemas.OverwriteAlways || tt.content == "other")) {
				t.Errorf("%s, %q: written anew: %v", tt.name, policy, rewritten)
			}
		}
	}
}

// Damage in the archive fails its own item and no other.
func TestDamage(t *testing.T) {
	t.Parallel()
	damage := map[string]schemas.Code{
		`blob_bytes = x'00112233'`:                                 schemas.CodeDecodeFailed,
		`blob_bytes = x''`:                                         schemas.CodeDecodeFailed,
		`blob_bytes = substr(blob_bytes, 1, 60)`:                   schemas.CodeDecodeFailed,
		`size_bytes = size_bytes + 1`:                              schemas.CodeIntegrityMismatch,
		`size_bytes = size_bytes - 1`:                              schemas.CodeIntegrityMismatch,
		`size_bytes = 0`:                                           schemas.CodeIntegrityMismatch,
		`size_bytes = -5`:                                          schemas.CodeIntegrityMismatch,
		`content_sha256 = 'ab' || substr(content_sha256, 3)`:       schemas.CodeIntegrityMismatch,
		`content_sha256 = ''`:                                      schemas.CodeIntegrityMismatch,
		`compression = 'lz4'`:                                      schemas.CodeCodecUnsupported,
		`blob_bytes = NULL`:                                        schemas.CodeArtifactMissing,
		`blob_bytes = NULL, object_url = 'purged://dual-control/'`: schemas.CodeArtifactPurged,
	}
	statements := slices.Sorted(maps.Keys(damage))
	for _, size := range []int{4 << 10, 400 << 10} { // the second are streamed
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			contents := make([][]byte, len(statements)+1)
			for i := range contents {
				contents[i] = noise(i, size)
			}
			path, tombstones := newArchive(t, contents...)
			want := []verdict{}
			for i, s := range statements {
				execSQL(t, path, `UPDATE artifact SET `+s+` WHERE id = (SELECT artifact_id FROM item WHERE tombstone_id = ?)`, tombstones[i])
				want = append(want, failed(damage[s]))
			}
			want = append(want, restored)
			root := t.TempDir()
			results, err := New(openArchive(t, path), archive.Decode, into(t, root), Config{Memory: MinMemory}).
				Restore(t.Context(), schemas.Settings{Root: root}, requests(tombstones))
			must(t, err)
			for i, v := range verdicts(results) {
				if v != want[i] {
					t.Errorf("%v: %+v, want %+v: %s", append(statements, "none")[i], v, want[i], results[i].Detail)
				}
			}
			last := len(contents) - 1
			if diff := cmp.Diff(map[string]string{fmt.Sprintf("out/%d", last): string(contents[last])}, tree(t, root)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// Without its bytes an item cannot be restored, whatever stands there.
func TestPurgedAndStillThere(t *testing.T) {
	t.Parallel()
	s := newShelf(tiny)
	a := s.artifacts["t0"]
	a.Stored, a.URL = -1, "purged://dual-control"
	s.artifacts["t0"] = a
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "out"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "out/0"), tiny, 0o644))
	results, err := New(s, plain, into(t, root), Config{}).Restore(t.Context(), schemas.Settings{Root: root}, s.requests())
	must(t, err)
	if diff := cmp.Diff([]verdict{failed(schemas.CodeArtifactPurged)}, verdicts(results)); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestResultsSayWhatTheDestinationSaid(t *testing.T) {
	t.Parallel()
	s := newShelf([]byte("a"), []byte("b"), []byte("c"))
	items := s.requests()
	items[1].Output = "../escape"
	items[2].Output = "out/0/below"
	root := t.TempDir()
	results, err := New(s, plain, into(t, root), Config{}).Restore(t.Context(), schemas.Settings{Root: root, Overwrite: schemas.OverwriteAlways}, items)
	must(t, err)
	if v := verdicts(results); v[1] != failed(schemas.CodePathRefused) || (v[0] == restored) == (v[2] == restored) {
		t.Errorf("verdicts %+v", v)
	}
}
