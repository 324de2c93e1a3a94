package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// shelved is an archive as a planner sees it, without bytes elsewhere.
type shelved struct{ Source }

func (shelved) Readable(_ context.Context, a schemas.Artifact) error {
	return archive.CheckCodec(a)
}

// A plan says of each item what restoring it then does, under each policy, and
// changes nothing.
func TestPlanIsWhatRestoreDoes(t *testing.T) {
	t.Parallel()
	for _, policy := range []schemas.Overwrite{"", schemas.OverwriteNever, schemas.OverwriteIfDifferent, schemas.OverwriteAlways} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			outputs := []string{
				"new", "deep/er/new", "same", "other", "dir", "link", "same2", "loop/f", "out/f", "dangling/f", "file/f",
				"purged", "missing", "codec", "codec-same", "../escape", "unknown",
			}
			var contents [][]byte
			for i := range outputs {
				contents = append(contents, noise(i, 1000+i))
			}
			path, tombstones := newArchive(t, contents...)
			execSQL(t, path, `UPDATE artifact SET blob_bytes = NULL, object_url = 'purged://dual-control' WHERE content_sha256 = ?`, sum(contents[11]))
			execSQL(t, path, `UPDATE artifact SET blob_bytes = NULL WHERE content_sha256 = ?`, sum(contents[12]))
			execSQL(t, path, `UPDATE artifact SET compression = 'lz4' WHERE content_sha256 = ?`, sum(contents[13]))
			execSQL(t, path, `UPDATE artifact SET compression = 'lz4' WHERE content_sha256 = ?`, sum(contents[14]))
			tombstones[16] = "00000000-0000-4000-8000-000000000000"
			root := t.TempDir()
			at := func(name string) string { return filepath.Join(root, name) }
			for name, content := range map[string][]byte{
				"same": contents[2], "other": contents[2], "same2": contents[6], "file": nil, "codec-same": contents[14],
			} {
				must(t, os.WriteFile(at(name), content, 0o644))
			}
			must(t, os.Mkdir(at("dir"), 0o755))
			must(t, os.Symlink("same", at("link")))
			must(t, os.Symlink("loop", at("loop")))
			must(t, os.Symlink("..", at("out")))
			must(t, os.Symlink("nowhere", at("dangling")))
			items := requests(tombstones)
			for i := range items {
				items[i].Output = outputs[i]
			}

			source := openArchive(t, path)
			view, err := destination.ViewTree(root)
			must(t, err)
			defer func() { must(t, view.Close()) }()
			settings := schemas.Settings{Root: root, Overwrite: policy}
			before := everything(t, root)
			planner := NewPlanner(shelved{source}, func() (Look, error) { return view.Look(), nil }, settings, 4)
			plan, err := planner.Plan(t.Context(), items)
			must(t, err)
			if diff := cmp.Diff(before, everything(t, root)); diff != "" {
				t.Errorf("the plan changed something (-want +got):\n%s", diff)
			}

			results, err := New(source, archive.Decode, into(t, root), Config{}).Restore(t.Context(), settings, items)
			must(t, err)
			outcome := map[Verdict]schemas.Outcome{
				VerdictRestore: schemas.OutcomeRestored, VerdictReplace: schemas.OutcomeRestored,
				VerdictUnchanged: schemas.OutcomeUnchanged, VerdictFail: schemas.OutcomeFailed,
			}
			for i, d := range plan {
				r := results[i]
				if outcome[d.Verdict] != r.Outcome || d.Code != r.Code || d.Target != r.Target || d.Size != r.Size || d.SHA256 != r.SHA256 {
					t.Errorf("%s: planned %+v, became %s %s: %s", d.Output, d, r.Outcome, r.Code, r.Detail)
				}
				if (d.Verdict == VerdictFail) != (d.Reason != "") {
					t.Errorf("%s: %s for the reason %q", d.Output, d.Verdict, d.Reason)
				}
			}
			states := map[string]TargetState{
				"new": TargetNew, "same": TargetIdentical, "other": TargetDiffers, "link": TargetDiffers, "codec-same": TargetIdentical,
			}
			for i, d := range plan {
				if want, ok := states[outputs[i]]; ok && d.TargetState != want {
					t.Errorf("%s: target %q, want %q", d.Output, d.TargetState, want)
				}
			}
			for i, want := range map[int]BytesState{0: BytesPresent, 11: BytesPurged, 12: BytesMissing, 16: ""} {
				if got := plan[i]; got.BytesState != want || got.Found != (i != 16) {
					t.Errorf("%s: found %v, bytes %q, want %q", got.Output, got.Found, got.BytesState, want)
				}
			}
		})
	}
}

// everything is what stands below root, with the times of change.
func everything(t testing.TB, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		found[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
		return err
	}))
	return found
}

// glance is a Look made of functions.
type glance struct{ compare, writable error }

func (g glance) Compare(context.Context, string, int64, string) (bool, error) {
	return false, g.compare
}
func (g glance) Writable(string) error { return g.writable }
func (glance) Close()                  {}

// What is no fault of an item ends the plan; what is, does not.
func TestPlanTrouble(t *testing.T) {
	t.Parallel()
	down := fault.New(schemas.CodeDestinationDown, "away")
	denied := fault.New(schemas.CodeDestinationDenied, "denied")
	missing := fault.New(schemas.CodeDestinationMissing, "no bucket")
	for _, tt := range []struct {
		name   string
		open   error
		look   glance
		policy schemas.Overwrite
		want   PlanItem // what matters of it
		err    error
	}{
		{name: "no bucket", open: missing, want: PlanItem{Verdict: VerdictFail, Code: schemas.CodeDestinationMissing}},
		{name: "away when opened", open: down, err: down},
		{name: "away when compared", look: glance{compare: down}, err: down},
		{name: "away when asked", look: glance{compare: fs.ErrNotExist, writable: down}, err: down},
		{name: "unseen", look: glance{compare: ErrUnseen, writable: denied}, want: PlanItem{Verdict: VerdictRestore}},
		{
			name: "unreadable", look: glance{compare: denied}, policy: schemas.OverwriteIfDifferent,
			want: PlanItem{Verdict: VerdictFail, Code: schemas.CodeDestinationDenied},
		},
		{name: "unreadable, written anyway", look: glance{compare: denied}, policy: schemas.OverwriteAlways, want: PlanItem{Verdict: VerdictReplace}},
		{
			name: "not writable", look: glance{compare: fs.ErrNotExist, writable: denied},
			want: PlanItem{TargetState: TargetNew, Verdict: VerdictFail, Code: schemas.CodeDestinationDenied},
		},
	} {
		s := newShelf([]byte("content"))
		p := NewPlanner(shelved{s}, func() (Look, error) { return tt.look, tt.open }, schemas.Settings{Root: "/r", Overwrite: tt.policy}, 2)
		plan, err := p.Plan(t.Context(), s.requests())
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		if err != nil {
			continue
		}
		got := PlanItem{TargetState: plan[0].TargetState, Verdict: plan[0].Verdict, Code: plan[0].Code}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	s := newShelf([]byte("content"))
	s.lookup = func(context.Context, []string) (map[string]schemas.Artifact, error) { return nil, down }
	if _, err := NewPlanner(shelved{s}, nil, schemas.Settings{}, 1).Plan(t.Context(), s.requests()); !errors.Is(err, down) {
		t.Errorf("an archive that is away: %v", err)
	}
}
