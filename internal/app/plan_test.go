package app

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// planned is a manifest in a copy of the predecessor's archive, to be planned.
type planned struct {
	dir string
	cfg *Config
}

func newPlanned(t *testing.T) *planned {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../integration/testdata/sqlite")); err != nil {
		t.Fatal(err)
	}
	cfg, err := LocalConfig(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &planned{dir, cfg}
}

func (p *planned) path(name string) string { return filepath.Join(p.dir, name) }

func (p *planned) write(t *testing.T, name, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(p.path(name)), 0o755)
	if err := errors.Join(err, os.WriteFile(p.path(name), []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (p *planned) options(manifest string, items *[]restore.PlanItem) PlanOptions {
	return PlanOptions{
		BatchOptions: BatchOptions{
			Manifest: p.path(manifest), Actor: "tester", Progress: silent{}, Rejected: func(producer.Reject) {},
		},
		Item: func(d restore.PlanItem) error {
			*items = append(*items, d)
			return nil
		},
		Planned: func(_, _ int64) {},
	}
}

// plan plans a manifest, which must succeed, and checks that the plan adds up
// and leaves everything as it is.
func (p *planned) plan(t *testing.T, manifest string, change func(*PlanOptions)) (PlanTotals, []restore.PlanItem) {
	t.Helper()
	var items []restore.PlanItem
	o := p.options(manifest, &items)
	change(&o)
	before := below(t, p.dir)
	totals, err := Plan(t.Context(), p.cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, below(t, p.dir)); diff != "" {
		t.Errorf("the plan changed something (-want +got):\n%s", diff)
	}
	if totals.Rows != totals.Items+totals.Invalid || totals.Items != totals.Restore+totals.Replace+totals.Unchanged+totals.Fail ||
		totals.Items != int64(len(items)) {
		t.Errorf("the totals of %d items do not add up: %+v", len(items), totals)
	}
	for i, d := range items {
		if d.Index != int64(i) {
			t.Fatalf("item %d is the manifest's %d", i, d.Index)
		}
	}
	return totals, items
}

func asItIs(*PlanOptions) {}

// silent is told only how the manifest is checked.
type silent struct{ Progress }

func (silent) Checking(int64) {}

// below is what stands below dir, with sizes and times of change.
func below(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err == nil && path != dir { // where SQLite's own files come and go
			found[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// The ten items that cannot be restored are named with their codes, under each
// policy, and what stands there already is told from what does not.
func TestPlanFixture(t *testing.T) {
	t.Parallel()
	p := newPlanned(t)
	_, items := p.plan(t, "manifest_all.json", asItIs)
	if n := restored(t, p, items[0], items[1]); n != 2 {
		t.Fatalf("%d files made ready, want 2", n)
	}
	p.write(t, items[2].Output, "something else")
	for policy, want := range map[schemas.Overwrite]PlanTotals{
		schemas.OverwriteNever:       {Restore: 291, Unchanged: 2, Fail: 11},
		schemas.OverwriteIfDifferent: {Restore: 291, Replace: 1, Unchanged: 2, Fail: 10},
		schemas.OverwriteAlways:      {Restore: 291, Replace: 3, Fail: 10},
	} {
		p.cfg.Exhume.Overwrite = policy
		got, items := p.plan(t, "manifest_all.json", asItIs)
		if got.Restore != want.Restore || got.Replace != want.Replace || got.Unchanged != want.Unchanged || got.Fail != want.Fail {
			t.Errorf("%s: %+v, want %+v", policy, got, want)
		}
		codes := map[schemas.Code]int64{schemas.CodeArtifactPurged: 7, schemas.CodeTombstoneNotFound: 3}
		if policy == schemas.OverwriteNever {
			codes[schemas.CodeDestinationExists] = 1
		}
		if diff := cmp.Diff(codes, got.FailedByCode); diff != "" {
			t.Errorf("%s: failures by code (-want +got):\n%s", policy, diff)
		}
		bytes := int64(0)
		for _, d := range items {
			if d.Verdict == restore.VerdictRestore || d.Verdict == restore.VerdictReplace {
				bytes += d.Size
			}
		}
		if got.Bytes != bytes || got.Overwrite != policy || got.Root != p.dir || got.FreeBytes == nil || *got.FreeBytes <= 0 {
			t.Errorf("%s: %+v, want %d bytes", policy, got, bytes)
		}
	}
}

// restored writes the contents of items from the archive to where they belong.
func restored(t *testing.T, p *planned, items ...restore.PlanItem) (n int) {
	t.Helper()
	from, err := openSource(t.Context(), p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close() //nolint:errcheck // opened for reading
	targets := newTargets(p.cfg)
	defer targets.close() //nolint:errcheck // what matters is checked by who calls
	r := restore.New(from, archive.Decode, targets.group, restore.Config{})
	for _, d := range items {
		q := schemas.Request{Tombstone: d.Tombstone, Output: d.Output}
		done, err := r.Restore(t.Context(), schemas.Settings{Root: p.dir}, []schemas.Request{q})
		if err != nil {
			t.Fatal(err)
		}
		if done[0].Outcome == schemas.OutcomeRestored {
			n++
		}
	}
	return n
}

// content is the content of an item.
func content(t *testing.T, p *planned, d restore.PlanItem) string {
	t.Helper()
	if restored(t, p, d) != 1 {
		t.Fatalf("%s could not be restored", d.Output)
	}
	b, err := os.ReadFile(p.path(d.Output))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sha256Of(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// moveOut takes the stored bytes of an item out of the archive, to where its URL
// points, or away if there is no store.
func moveOut(t *testing.T, p *planned, store *objects.Store, d restore.PlanItem, url string) {
	t.Helper()
	db, err := sql.Open("sqlite", p.path("archive.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // what matters is checked below
	var blob []byte
	if err := db.QueryRow(`SELECT blob_bytes FROM artifact WHERE content_sha256 = ?`, d.SHA256).Scan(&blob); err != nil {
		t.Fatal(err)
	}
	if store != nil {
		bucket, key, err := objects.ParseURL(url)
		if err := errors.Join(err, store.Put(t.Context(), bucket, key, blob, sha256Of(string(blob)), false)); err != nil {
			t.Fatal(err)
		}
	}
	p.exec(t, `UPDATE artifact SET blob_bytes = NULL, storage_driver = 'object', object_url = ? WHERE content_sha256 = ?`, url, d.SHA256)
}

// exec changes the archive behind everybody's back.
func (p *planned) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", p.path("archive.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // the statement has its own result
	if _, err := db.Exec(statement, args...); err != nil {
		t.Fatal(err)
	}
}

// Items of many groups come in their order, progress is told, and whoever wants
// no more of them gets none.
func TestPlanOrder(t *testing.T) {
	t.Parallel()
	p := newPlanned(t)
	var m strings.Builder
	m.WriteString("tombstone,output\n")
	const rows = 10*planGroup + 7
	for i := range rows {
		fmt.Fprintf(&m, "00000000-0000-4000-8000-%012d,f%d\n", i, i)
	}
	p.write(t, "many.csv", m.String())
	var told []int64
	got, items := p.plan(t, "many.csv", func(o *PlanOptions) {
		o.Planned = func(done, total int64) {
			if told = append(told, done); total != rows {
				t.Errorf("of %d items, want %d", total, rows)
			}
		}
	})
	if got.Fail != rows || len(told) != 10 || told[9] != 10*planGroup || items[rows-1].Tombstone != fmt.Sprintf("00000000-0000-4000-8000-%012d", rows-1) {
		t.Errorf("%+v, told %v", got, told)
	}
	enough := errors.New("enough")
	o := p.options("many.csv", &items)
	n := 0
	o.Item = func(restore.PlanItem) error {
		if n++; n == planGroup+1 {
			return enough
		}
		return nil
	}
	if _, err := Plan(t.Context(), p.cfg, o); !errors.Is(err, enough) || n != planGroup+1 {
		t.Errorf("after %d items: %v", n, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	o.Item = func(restore.PlanItem) error { stop(); return nil }
	if _, err := Plan(ctx, p.cfg, o); !errors.Is(err, ErrInterrupted) {
		t.Errorf("interrupted: %v", err)
	}
}

// Invalid rows do not keep the others from being planned.
func TestPlanInvalidRows(t *testing.T) {
	t.Parallel()
	p := newPlanned(t)
	p.write(t, "bad.csv", "tombstone,output\nnope,a\n9039c97b-1acb-4124-a066-1c30c7ed65f4,b\n9039c97b-1acb-4124-a066-1c30c7ed65f4,../c\n")
	var items []restore.PlanItem
	o := p.options("bad.csv", &items)
	got, err := Plan(t.Context(), p.cfg, o)
	if invalid, ok := errors.AsType[*InvalidManifestError](err); !ok || invalid.Rejected != 2 || got.Restore != 1 || got.Invalid != 2 {
		t.Errorf("%+v: %v", got, err)
	}
	o.SkipInvalid = true
	if got, err := Plan(t.Context(), p.cfg, o); err != nil || got.Restore != 1 || got.Invalid != 2 {
		t.Errorf("left out: %+v: %v", got, err)
	}
	// What is known of the manifest is told even where there is no archive.
	p.cfg.Backend.URL = p.path("away.sqlite")
	if got, err := Plan(t.Context(), p.cfg, o); !fault.Is(err, schemas.CodeArchiveDown) || got.Items != 1 {
		t.Errorf("without an archive: %+v: %v", got, err)
	}
	if _, err := os.Lstat(p.path("away.sqlite")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an archive was made (%v)", err)
	}
}

// Bytes outside the archive, and a bucket as the destination.
func TestPlanObjectStorage(t *testing.T) {
	t.Parallel()
	p := newPlanned(t)
	s3 := s3test.StartServer(t)
	from, to := s3.Bucket(t), s3.Bucket(t)
	p.cfg.S3.Endpoint, p.cfg.S3.AccessKey, p.cfg.S3.SecretKey = s3.Endpoint(), s3test.AccessKey, s3test.SecretKey
	p.cfg.S3.Sources = "s3://" + from + "/artifacts"
	store, err := objects.Open(objects.Config{Endpoint: s3.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	toBucket := func(o *PlanOptions) { o.Root = "s3://" + to + "/restored" }
	got, items := p.plan(t, "manifest_all.json", toBucket)
	if got.Restore != 294 || got.Fail != 10 || got.FreeBytes != nil || items[0].Target != "s3://"+to+"/restored/"+items[0].Output {
		t.Errorf("%+v, first %+v", got, items[0])
	}
	for i, content := range []string{"something else", content(t, p, items[1])} {
		if err := store.Put(t.Context(), to, "restored/"+items[i].Output, []byte(content), sha256Of(content), false); err != nil {
			t.Fatal(err)
		}
	}
	moveOut(t, p, store, items[3], "s3://"+from+"/artifacts/there")
	moveOut(t, p, store, items[4], "s3://"+from+"/elsewhere/denied")
	moveOut(t, p, nil, items[5], "s3://"+from+"/artifacts/gone")
	got, items = p.plan(t, "manifest_all.json", toBucket)
	want := map[schemas.Code]int64{
		schemas.CodeArtifactPurged: 7, schemas.CodeTombstoneNotFound: 3, schemas.CodeDestinationExists: 1,
		schemas.CodeArtifactDenied: 1, schemas.CodeArtifactMissing: 1,
	}
	if diff := cmp.Diff(want, got.FailedByCode); diff != "" || got.Unchanged != 1 {
		t.Errorf("%+v (-want +got):\n%s", got, diff)
	}
	for i, want := range map[int]restore.Verdict{
		0: restore.VerdictFail, 1: restore.VerdictUnchanged, 3: restore.VerdictRestore, 4: restore.VerdictFail, 5: restore.VerdictFail,
	} {
		if d := items[i]; d.Verdict != want || (d.BytesState == restore.BytesElsewhere) != (i >= 3) {
			t.Errorf("item %d: %+v, want %s", i, d, want)
		}
	}
	for o := range s3.Client().ListIncompleteUploads(t.Context(), to, "", true) {
		t.Errorf("an upload was begun: %+v", o)
	}
	// A bucket that is not there fails every item that is.
	got, _ = p.plan(t, "manifest_all.json", func(o *PlanOptions) { o.Root = "s3://nowhere" })
	if got.FailedByCode[schemas.CodeDestinationMissing] != 294 {
		t.Errorf("no bucket: %+v", got)
	}
	s3Away := *p.cfg
	s3Away.S3.Endpoint = "http://127.0.0.1:1"
	o := p.options("manifest.json", &items)
	toBucket(&o)
	if _, err := Plan(t.Context(), &s3Away, o); !fault.Is(err, schemas.CodeDestinationDown) {
		t.Errorf("the server is away: %v", err)
	}
}

// A directory of a fleet's workers is judged only as far as it is here, and
// never by what this process may write.
func TestPlanAfar(t *testing.T) {
	t.Parallel()
	p := newPlanned(t)
	_, items := p.plan(t, "manifest.json", asItIs)
	p.exec(t, `UPDATE artifact SET compression = 'lz4' WHERE content_sha256 = ?`, items[0].SHA256)
	if err := os.Symlink("nowhere", p.path("dangling")); err != nil {
		t.Fatal(err)
	}
	p.write(t, "two.csv", "tombstone,output\n"+items[0].Tombstone+",a\n"+items[1].Tombstone+",dangling/b\n")
	codec, refused := schemas.CodeCodecUnsupported, schemas.CodePathRefused
	for _, tt := range []struct {
		nats, root, note string
		target           restore.TargetState
		codes            [2]schemas.Code
	}{
		{"", "", "no batch", restore.TargetNew, [2]schemas.Code{codec, refused}},
		{"nats://nowhere:4222", "", "may see another", restore.TargetNew, [2]schemas.Code{codec, ""}},
		{"nats://nowhere:4222", p.path("workers/root"), "is not known", "", [2]schemas.Code{codec, ""}},
	} {
		p.cfg.NATS.URL = tt.nats
		got, items := p.plan(t, "two.csv", func(o *PlanOptions) { o.Root = tt.root })
		if !strings.Contains(got.Notes[0], tt.note) || (got.FreeBytes == nil) != (tt.nats != "") {
			t.Errorf("%s %s: %+v", tt.nats, tt.root, got)
		}
		for i, d := range items {
			if d.Code != tt.codes[i] || d.TargetState != tt.target {
				t.Errorf("%s %s: %+v", tt.nats, tt.root, d)
			}
		}
	}
}

func TestSpeedOf(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	batch := func(state schemas.State, seconds int, restored, bytes int64) schemas.Summary {
		s := schemas.Summary{Counts: schemas.Counts{Restored: restored, Bytes: bytes}}
		s.State, s.CreatedAt, s.EndedAt = state, start, start.Add(time.Duration(seconds)*time.Second)
		return s
	}
	ended := batch(schemas.StateSucceeded, 10, 1000, 50_000)
	running := batch(schemas.StateRunning, 10, 1000, 1)
	for _, tt := range []struct {
		name    string
		batches []schemas.Summary
		want    *PlanEstimate
	}{
		{"none", nil, nil},
		{"none that counts", []schemas.Summary{running, batch(schemas.StateSucceeded, 1, 99, 1), batch(schemas.StateFailed, 0, 100, 1)}, nil},
		{"one", []schemas.Summary{running, ended}, &PlanEstimate{Batches: 1, ItemsPerSecond: 100, BytesPerSecond: 5000}},
		{
			"two", []schemas.Summary{batch(schemas.StatePartial, 10, 3000, 150_000), ended},
			&PlanEstimate{Batches: 2, ItemsPerSecond: 200, BytesPerSecond: 10_000},
		},
		{
			"the newest", []schemas.Summary{ended, ended, ended, ended, ended, batch(schemas.StateSucceeded, 1, 9999, 1)},
			&PlanEstimate{Batches: 5, ItemsPerSecond: 100, BytesPerSecond: 5000},
		},
	} {
		if diff := cmp.Diff(tt.want, speedOf(tt.batches)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
