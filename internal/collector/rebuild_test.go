package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// rebuildLedger is a real ledger as its rebuilding sees it.
type rebuildLedger struct{ *ledger.Ledger }

func (l rebuildLedger) Record(ctx context.Context, results []schemas.Result, failures []schemas.Failure) (Added, error) {
	rec, err := l.Ledger.Record(ctx, results, failures, nil)
	return Added{rec.Fresh, rec.FreshFailures, len(rec.Strays) + len(rec.StrayFailures)}, err
}

func (l rebuildLedger) Results(ctx context.Context, id string) iter.Seq2[schemas.Result, error] {
	return l.Ledger.Results(ctx, id, ledger.Filter{})
}

// past is a fleet that has done something: its ledger, its evidence and its broker.
type past struct {
	*testing.T
	newLedger func() string
	where     string
	dir       string
	stream    []Stored
	shown     []schemas.Batch
	steering  schemas.Steering
	known     bool
	// beside are logs beside that in dir.
	beside []string
}

var ledgers = map[string]func(t testing.TB) string{
	"SQLite":     func(t testing.TB) string { return filepath.Join(t.TempDir(), "ledger.sqlite") },
	"PostgreSQL": dbtest.PostgresURL,
}

func (p *past) open() (*ledger.Ledger, *evidence.Log) {
	p.Helper()
	l, err := ledger.OpenWith(p.Context(), p.where, ledger.Options{Migrate: true})
	must(p, err)
	e, err := evidence.Open(p.dir)
	must(p, err)
	return l, e
}

// with opens ledger and evidence for a moment.
func (p *past) with(do func(l *ledger.Ledger, e *evidence.Log)) {
	p.Helper()
	l, e := p.open()
	do(l, e)
	must(p, errors.Join(l.Close(), e.Close()))
}

// publish puts results and failures into the stream.
func (p *past) publish(results []schemas.Result, failures []schemas.Failure) {
	p.Helper()
	data, err := json.Marshal(schemas.ResultGroup{Worker: "w", Results: results, Failures: failures})
	must(p, err)
	p.stream = append(p.stream, Stored{time.Now(), data})
}

// live lets a fleet work for a while.
func live(t *testing.T, newLedger func() string) *past {
	t.Helper()
	p := &past{T: t, newLedger: newLedger, where: newLedger(), dir: t.TempDir(), known: true}
	p.with(func(l *ledger.Ledger, e *evidence.Log) {
		ctx := t.Context()
		b, err := OpenBook(ctx, realLedger{l}, e, Options{Timings: true})
		must(t, err)
		begin := func(id string) {
			_, err := b.Begin(ctx, schemas.Batch{
				ID: id, Actor: "ops", Manifest: id + ".json", Archive: "sqlite:///a", CreatedAt: time.Now().UTC(),
				ManifestSHA256: "sha of " + id, Settings: schemas.Settings{Root: "/root", Overwrite: schemas.OverwriteAlways, Mode: 0o640},
				Standing: schemas.Standing{Reason: schemas.ReasonSubmitting, By: "ops", Note: "please"},
			})
			must(t, err)
		}
		seal := func(id string, total int64) {
			_, err := b.Seal(ctx, id, total, "sha of "+id)
			must(t, err)
		}
		record := func(results []schemas.Result, failures []schemas.Failure) {
			for i := range results {
				results[i].Target, results[i].Output, results[i].Actor = "/root/out", "out", "ops"
			}
			p.publish(results, failures)
			_, err := b.Record(ctx, results, failures)
			must(t, err)
		}
		change := func(id, event string, on schemas.Change) {
			_, _, err := b.Change(ctx, id, event, func(s *schemas.Summary) (*schemas.BatchEvent, error) {
				e, ok := s.Apply(on, schemas.Standing{By: "ops", Note: "because"}, time.Now().UTC())
				if !ok {
					t.Fatalf("%s %s", on, s.State)
				}
				return &e, nil
			})
			must(t, err)
		}
		end := func(id string) {
			ended, err := b.End(ctx, []string{id})
			must(t, err)
			if len(ended) != 1 {
				t.Fatalf("%s did not end", id)
			}
		}
		show := func(id string) {
			s, _, err := b.Find(ctx, id)
			must(t, err)
			p.shown = append(p.shown, s.Batch)
		}
		for _, id := range []string{"done", "cancelled", "aborted", "paused", "open", "partial", schemas.Single} {
			begin(id)
		}
		seal("done", 5)
		record(nil, failures("done", 2, 1, 2))
		record(results("done", 0, 1, 2, 3, 4), failures("done", 4, 1))
		end("done")
		seal("cancelled", 4)
		record(results("cancelled", 0), nil)
		change("cancelled", "by-ops", schemas.ChangeCancel)
		rest := results("cancelled", 1, 2, 3)
		for i := range rest {
			rest[i].Outcome, rest[i].Code, rest[i].Size = schemas.OutcomeCancelled, schemas.CodeItemCancelled, 0
		}
		record(rest, nil)
		end("cancelled")
		change("aborted", "", schemas.ChangePause)
		change("aborted", "", schemas.ChangeResume)
		change("aborted", "by-ops-2", schemas.ChangeAbort)
		seal("aborted", 1)
		record(results("aborted", 0), nil)
		end("aborted")
		seal("partial", 2)
		part := results("partial", 0, 1)
		part[1].Outcome, part[1].Code, part[1].Detail, part[1].Size = schemas.OutcomeFailed, schemas.CodeInternal, "why", 0
		record(part, nil)
		end("partial")
		seal("paused", 10)
		record(results("paused", 0, 1, 7), failures("paused", 8, 1))
		change("paused", "by-ops-3", schemas.ChangePause)
		record(results("open", 3, 4), nil)
		record(results(schemas.Single, 1<<50+3, 1<<50+4), nil)
		for _, id := range []string{"paused", "open", schemas.Single} {
			show(id)
		}
		p.steering = schemas.Steering{Pause: &schemas.Standing{By: "ops", Note: "night"}}
		_, err = b.Steer(ctx, schemas.Command{ID: "steer", Actor: "ops"}, func(s *schemas.Steering) error { *s = p.steering; return nil })
		must(t, err)
	})
	return p
}

func (p *past) log() string { return filepath.Join(p.dir, evidence.FileName) }

// rebuild rebuilds; change may spoil it.
func (p *past) rebuild(l RebuildLedger, e Evidence) (Rebuilt, error) {
	logs := []iter.Seq2[schemas.Record, error]{evidence.Records(p.Context(), p.log())}
	for _, path := range p.beside {
		logs = append(logs, evidence.Records(p.Context(), path))
	}
	r := Rebuild{
		Ledger: l, Evidence: e, Logs: logs,
		Options: Options{Timings: true}, Shown: p.shown, Steering: p.steering, Known: p.known, Actor: "ops", Reason: "the disk died",
		Results: func(yield func(Stored, error) bool) {
			for _, m := range p.stream {
				if !yield(m, nil) {
					return
				}
			}
		},
	}
	return r.Run(p.Context())
}

func (p *past) mustRebuild() (out Rebuilt) {
	p.Helper()
	p.with(func(l *ledger.Ledger, e *evidence.Log) {
		var err error
		out, err = p.rebuild(rebuildLedger{l}, e)
		must(p, err)
	})
	return out
}

// told is all that ledger and evidence say.
type told struct {
	Batches  []schemas.Summary
	Results  map[string][]schemas.Result
	Failures map[string][]schemas.Failure
	Changes  map[string][]schemas.BatchEvent
	Steering string
	Lines    []string
}

func (p *past) told() (all told) {
	p.Helper()
	p.with(func(l *ledger.Ledger, e *evidence.Log) {
		ctx := p.Context()
		all = told{Results: map[string][]schemas.Result{}, Failures: map[string][]schemas.Failure{}, Changes: map[string][]schemas.BatchEvent{}}
		var err error
		all.Batches, err = l.Batches(ctx, 0)
		must(p, err)
		slices.SortFunc(all.Batches, func(a, b schemas.Summary) int { return strings.Compare(a.ID, b.ID) })
		for _, s := range all.Batches {
			for r, err := range l.Results(ctx, s.ID, ledger.Filter{}) {
				must(p, err)
				all.Results[s.ID] = append(all.Results[s.ID], r)
			}
			for f, err := range l.Failures(ctx, s.ID) {
				must(p, err)
				all.Failures[s.ID] = append(all.Failures[s.ID], f)
			}
			events, err := l.Events(ctx, s.ID, 0)
			must(p, err)
			for _, e := range events {
				if e.Change != schemas.ChangeSeal && e.Change != schemas.ChangeBegin {
					all.Changes[s.ID] = append(all.Changes[s.ID], e)
				}
			}
			kept, counted, err := l.Audit(ctx, s.ID)
			if must(p, err); kept != counted {
				p.Errorf("%s has counts %+v and results %+v", s.ID, kept, counted)
			}
		}
		all.Steering, _, err = l.Setting(ctx, schemas.KeySteering)
		must(p, err)
		pos, known, err := l.Position(ctx)
		if must(p, err); !known {
			p.Error("there is no position")
		}
		end, err := e.Append(ctx, nil)
		if must(p, err); end != pos {
			p.Errorf("the position is %+v, the log ends at %+v", pos, end)
		}
		_, err = OpenBook(ctx, realLedger{l}, e, Options{})
		must(p, err)
	})
	for r, err := range evidence.Records(p.Context(), p.log()) {
		must(p, err)
		r.Prev, r.Seq, r.TS = "", 0, ""
		switch r.Action {
		case schemas.ActionBatchControl:
			r.Counts, r.Total = nil, nil
		case schemas.ActionEvidenceRebuild:
			r.Total = nil
		}
		text, err := json.Marshal(r)
		must(p, err)
		all.Lines = append(all.Lines, string(text))
	}
	slices.Sort(all.Lines)
	_, err := evidence.Verify(p.log())
	must(p, err)
	return all
}

// likeBefore compares what is told with what was told before. Times of what is only
// known from evidence have its precision.
func (p *past) likeBefore(before, after told, opts ...cmp.Option) {
	p.Helper()
	opts = append(opts, cmpopts.IgnoreFields(schemas.Batch{}, "SealedAt"), cmpopts.IgnoreFields(schemas.BatchEvent{}, "No"),
		cmpopts.EquateApproxTime(2*time.Second), cmpopts.EquateEmpty(),
		cmp.FilterPath(func(path cmp.Path) bool { return path.Last().String() == ".From" }, cmp.Ignore()))
	if diff := cmp.Diff(before, after, opts...); diff != "" {
		p.Error(diff)
	}
}

// mark is the line before those that were added.
const mark = `{"action":"EVIDENCE_REBUILD","actor":"ops","prev":"","reason":"the disk died","seq":0,"ts":""}`

// untold says whether the only problem is that so many batches have no line.
func untold(problems []string, n int) bool {
	return len(problems) == 1 && strings.HasPrefix(problems[0], fmt.Sprintf("of %d batches that have ended the evidence had no line", n))
}

// again rebuilds once more, which adds nothing.
func (p *past) again() {
	p.Helper()
	text, err := os.ReadFile(p.log())
	must(p, err)
	if out := p.mustRebuild(); out.Batches+out.Results+out.Attempts+out.Ended+out.Lines != 0 || out.Problems != nil {
		p.Errorf("once more: %+v", out)
	}
	if now, err := os.ReadFile(p.log()); err != nil || string(now) != string(text) {
		p.Errorf("the log has changed (%v)", err)
	}
}

func onBothLedgers(t *testing.T, test func(t *testing.T, p *past, before told)) {
	t.Helper()
	t.Parallel()
	for name, where := range ledgers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := live(t, func() string { return where(t) })
			before := p.told()
			test(t, p, before)
		})
	}
}

func TestRebuildOfWhatIsThere(t *testing.T) {
	onBothLedgers(t, func(t *testing.T, p *past, before told) {
		p.again()
		if diff := cmp.Diff(before, p.told()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRebuildTheLedger(t *testing.T) {
	onBothLedgers(t, func(t *testing.T, p *past, before told) {
		p.where = p.newLedger()
		out := p.mustRebuild()
		if want := (Rebuilt{Messages: 9, Records: out.Records, Batches: 7, Results: 19, Attempts: 4, Ended: 4}); !cmp.Equal(want, out) {
			t.Error(cmp.Diff(want, out))
		}
		p.likeBefore(before, p.told())
		p.again()
	})
}

func TestRebuildTheEvidence(t *testing.T) {
	onBothLedgers(t, func(t *testing.T, p *past, before told) {
		must(t, os.Remove(p.log()))
		out := p.mustRebuild()
		// All but what was done to the fleet.
		if n := int64(len(before.Lines)); out.Lines != n || out.Results != 0 || !untold(out.Problems, 4) {
			t.Errorf("%+v, want %d lines", out, n)
		}
		data, err := os.ReadFile(p.log())
		must(t, err)
		if !strings.HasPrefix(string(data), `{"action":"EVIDENCE_REBUILD","actor":"ops","prev":"0000`) {
			t.Errorf("the log begins with %.100s", data)
		}
		after := p.told()
		after.Lines = slices.DeleteFunc(after.Lines, func(l string) bool { return l == mark })
		before.Lines = slices.DeleteFunc(before.Lines, func(l string) bool { return strings.Contains(l, `"steering"`) })
		p.likeBefore(before, after)
		p.again()
	})
}

// Both are lost: what the broker has is all there is.
func TestRebuildBoth(t *testing.T) {
	onBothLedgers(t, func(t *testing.T, p *past, before told) {
		p.where = p.newLedger()
		must(t, os.Remove(p.log()))
		// This one has lost results, so that its end cannot be told.
		p.stream = slices.DeleteFunc(p.stream, func(m Stored) bool { return strings.Contains(string(m.Data), `"partial","index":0`) })
		p.publish(results("partial", 1), nil)
		out := p.mustRebuild()
		if len(out.Problems) != 2 || !strings.Contains(out.Problems[0], "batch partial: 1 results were found, up to item 1") || !untold(out.Problems[1:], 3) {
			t.Errorf("problems %q", out.Problems)
		}
		after := p.told()
		for i, want := range before.Batches {
			got := after.Batches[i]
			switch want.ID {
			case "partial":
				if got.State != schemas.StateOpen || got.Counts.Restored != 1 || got.Note != fromResults {
					t.Errorf("%+v", got)
				}
			case "cancelled", "aborted", "done":
				// That somebody stopped it is not known, nor a root where a failed attempt comes first.
				if got.Counts != want.Counts || got.Total != want.Total || !got.State.Final() || (got.Settings.Root == "") != (want.ID == "done") || got.Note != fromResults {
					t.Errorf("%+v", got)
				}
			default:
				if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(2*time.Second)); diff != "" {
					t.Error(diff)
				}
			}
		}
		if after.Steering != before.Steering || !slices.Contains(after.Lines, mark) {
			t.Errorf("steering %q, lines %q", after.Steering, after.Lines)
		}
		delete(before.Results, "partial")
		delete(after.Results, "partial")
		if diff := cmp.Diff(before.Results, after.Results); diff != "" {
			t.Error(diff)
		}
		p.stream = nil // so that it says nothing of what it has said
		if again := p.mustRebuild(); again.Lines+again.Results != 0 {
			t.Errorf("%+v", again)
		}
	})
}

// Where the broker does not know its batches, one that may go on is not ended.
func TestRebuildEndsNothingThatMayGoOn(t *testing.T) {
	t.Parallel()
	p := live(t, func() string { return ledgers["SQLite"](t) })
	p.where, p.shown, p.known = p.newLedger(), nil, false
	must(t, os.Remove(p.log()))
	if out := p.mustRebuild(); out.Ended != 0 || len(out.Problems) != 6 {
		t.Errorf("%+v", out)
	}
}

// The broker is lost as well: evidence tells what is to be known.
func TestRebuildTheLedgerFromEvidence(t *testing.T) {
	onBothLedgers(t, func(t *testing.T, p *past, before told) {
		p.where, p.stream, p.shown, p.known = p.newLedger(), nil, nil, false
		out := p.mustRebuild()
		if out.Results != 19 || out.Attempts != 4 || out.Lines != 0 {
			t.Errorf("%+v", out)
		}
		if len(out.Problems) != 2 || !strings.Contains(out.Problems[0]+out.Problems[1], "batch open: how many") ||
			!strings.Contains(out.Problems[0]+out.Problems[1], "batch paused: 7 of its 10") {
			t.Errorf("problems %q", out.Problems)
		}
		p.likeBefore(before, p.told(), cmpopts.IgnoreFields(schemas.Result{}, "Item", "FinishedAt"), cmpopts.IgnoreFields(schemas.Failure{}, "Output"),
			cmpopts.IgnoreFields(schemas.Attempt{}, "At"),
			cmpopts.IgnoreFields(schemas.Standing{}, "Since"), cmpopts.IgnoreFields(schemas.BatchEvent{}, "At"))
	})
}

// The end of the log is lost, or the ledger is an old one.
func TestRebuildAPart(t *testing.T) {
	onBothLedgers(t, func(t *testing.T, p *past, before told) {
		data, err := os.ReadFile(p.log())
		must(t, err)
		lines := strings.SplitAfter(string(data), "\n")
		must(t, os.WriteFile(p.log(), []byte(strings.Join(lines[:9], "")), 0o600))
		if out := p.mustRebuild(); out.Lines != int64(len(before.Lines)-9) {
			t.Errorf("%+v, want %d lines", out, len(before.Lines)-9)
		}
		p.again()

		p.publish(results("paused", 3, 4), failures("paused", 3, 1)) // not recorded yet
		if out := p.mustRebuild(); out.Results != 2 || out.Attempts != 1 || out.Lines != 4 {
			t.Errorf("%+v", out)
		}
		p.again()
		p.publish(append(results("paused", 77), results("../x", 1)...), nil)
		p.stream = append(p.stream, Stored{time.Now(), []byte("{")})
		out := p.mustRebuild()
		if got := strings.Join(out.Problems, "\n"); len(out.Problems) != 2 || !strings.Contains(got, "2 results or failed attempts are of no known item") ||
			!strings.Contains(got, "1 messages of results cannot be understood") {
			t.Errorf("problems %q", out.Problems)
		}
	})
}

// What is older than the batch is of an earlier one of the same name.
func TestRebuildTellsBatchesOfOneNameApart(t *testing.T) {
	t.Parallel()
	p := live(t, func() string { return ledgers["SQLite"](t) })
	old := results("open", 0, 1, 2)
	p.publish(old, failures("open", 0, 1))
	p.stream[len(p.stream)-1].At = time.Now().Add(-time.Hour)
	p.where = p.newLedger()
	if out := p.mustRebuild(); len(out.Problems) != 1 || !strings.HasPrefix(out.Problems[0], "4 results or failed attempts are older than the batches") {
		t.Errorf("%+v", out)
	}
	if got := p.told().Results["open"]; len(got) != 2 || got[0].Index != 3 {
		t.Errorf("%+v", got)
	}

	// A log with the end of one and the beginning of the next.
	p.with(func(_ *ledger.Ledger, e *evidence.Log) {
		_, err := e.Append(t.Context(), []schemas.Record{
			startRecord(schemas.Batch{ID: "done", Actor: "other", Settings: schemas.Settings{Root: "/other"}}), ItemRecord(Options{}, &results("done", 0)[0]),
		})
		must(t, err)
	})
	p.where, p.stream = p.newLedger(), nil
	p.mustRebuild()
	for _, s := range p.told().Batches {
		if s.ID == "done" && (s.State != schemas.StateOpen || s.Actor != "other" || s.Settings.Root != "/other") {
			t.Errorf("%+v", s)
		}
	}
}

// rebuildLater loses the evidence, rebuilds it hours after everything has happened,
// and then loses the ledger.
func (p *past) rebuildLater() {
	p.Helper()
	must(p, os.Remove(p.log()))
	p.mustRebuild()
	for i := range p.stream {
		p.stream[i].At = p.stream[i].At.Add(-2 * time.Hour)
	}
	for i := range p.shown {
		p.shown[i].CreatedAt = p.shown[i].CreatedAt.Add(-2 * time.Hour)
	}
	p.where = p.newLedger()
}

// Lines that were rebuilt do not tell when a batch began, nor do ends.
func TestRebuildFromWhatWasRebuilt(t *testing.T) {
	onBothLedgers(t, func(t *testing.T, p *past, before told) {
		p.rebuildLater()
		data, err := os.ReadFile(p.log())
		must(t, err)
		lines := strings.SplitAfter(string(data), "\n")
		for _, left := range []int{len(lines), 3} {
			must(t, os.WriteFile(p.log(), []byte(strings.Join(lines[:left], "")), 0o600))
			p.where = p.newLedger()
			if out := p.mustRebuild(); left == len(lines) && (out.Problems != nil || out.Lines != 0) {
				t.Errorf("%+v", out)
			}
			if out := p.mustRebuild(); out.Batches+out.Results+out.Attempts+out.Ended+out.Lines != 0 {
				t.Errorf("once more: %+v", out)
			}
			after := p.told()
			if diff := cmp.Diff(before.Results, after.Results) + cmp.Diff(before.Failures, after.Failures); diff != "" {
				t.Errorf("of %d lines: %s", left, diff)
			}
		}
	})
	t.Run("ends", func(t *testing.T) {
		s := story{id: "b"}
		end := schemas.Record{Phase: schemas.PhaseEnd, TS: "2026-01-01T12:00:00Z"}
		s.tell(end, false)
		if b, known := s.batch(); !known || !s.bornAt(b).IsZero() {
			t.Errorf("%+v", b)
		}
	})
}

// twoCollectors are a ledger and two logs with one batch in them, which one collector
// has begun and the other ended.
func twoCollectors(t *testing.T) *past {
	t.Helper()
	p := &past{T: t, newLedger: func() string { return ledgers["SQLite"](t) }, dir: t.TempDir(), known: true}
	p.where = p.newLedger()
	other := newStore(t)
	p.beside = []string{other.e.Path()}
	p.with(func(l *ledger.Ledger, e *evidence.Log) {
		ctx := t.Context()
		there, err := OpenBook(ctx, realLedger{mustOpen(t, l.Path(), "other")}, other.e, Options{Timings: true})
		must(t, err)
		here, err := OpenBook(ctx, realLedger{l}, e, Options{Timings: true})
		must(t, err)
		_, err = there.Begin(ctx, schemas.Batch{ID: "b", Actor: "ops", CreatedAt: time.Now().UTC()})
		must(t, err)
		_, err = here.Seal(ctx, "b", 5, "")
		must(t, err)
		all := results("b", 0, 1, 2, 3, 4)
		p.publish(all, nil)
		_, err = here.Record(ctx, all, nil)
		must(t, err)
		pauseAndGoOn(t, here, there)
		_, err = here.End(ctx, []string{"b"})
		must(t, err)
	})
	return p
}

// pauseAndGoOn pauses the fleet with one book and lets it go on with another, which
// is a second later.
func pauseAndGoOn(t *testing.T, one, other *Book) {
	t.Helper()
	for i, b := range []*Book{one, other} {
		_, err := b.Steer(t.Context(), schemas.Command{ID: fmt.Sprint("steer-", i)}, func(s *schemas.Steering) error {
			if *s = (schemas.Steering{}); i == 0 {
				s.Pause = &schemas.Standing{By: "ops"}
			}
			return nil
		})
		must(t, err)
	}
}

// Logs have no order among themselves.
func TestRebuildABatchInTwoLogs(t *testing.T) {
	t.Parallel()
	p := twoCollectors(t)
	for range 2 {
		p.again()
	}
	p.where = p.newLedger()
	out := p.mustRebuild()
	after := p.told()
	if s := after.Batches[0]; out.Lines != 0 || out.Problems != nil || s.State != schemas.StateSucceeded || s.Counts.Restored != 5 {
		t.Errorf("%+v, %+v", out, s)
	}
	p.again()
}

// What is told of changes is in order whatever the order of the logs is.
func TestRebuildOrdersWhatSeveralLogsTell(t *testing.T) {
	t.Parallel()
	line := func(second int, r schemas.Record) schemas.Record {
		r.Action, r.TS = schemas.ActionBatchControl, time.Unix(int64(second), 0).UTC().Format(time.RFC3339)
		return r
	}
	change := func(second int, id string, to schemas.State) schemas.Record {
		return line(second, schemas.Record{Batch: "b", ChangeID: id, State: to, StateReason: schemas.ReasonPaused})
	}
	log := func(lines ...schemas.Record) iter.Seq2[schemas.Record, error] {
		return func(yield func(schemas.Record, error) bool) {
			for _, r := range lines {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
	r := rebuilding{Rebuild: &Rebuild{Logs: []iter.Seq2[schemas.Record, error]{
		log(change(12, "resume", schemas.StateRunning), line(14, schemas.Record{ChangeID: "s2", Steering: "{}"}), change(20, "pause", schemas.StatePaused)),
		log(change(11, "pause", schemas.StatePaused), line(13, schemas.Record{ChangeID: "s1", Steering: `{"pause":{}}`})),
	}}, logged: newAhead(), stories: map[string]*story{}}
	must(t, r.readLogs(t.Context()))
	if b, known := r.stories["b"].batch(); !known || b.State != schemas.StateRunning || len(r.stories["b"].changes) != 2 {
		t.Errorf("%+v", r.stories["b"].changes)
	}
	if r.steered.Steering != "{}" {
		t.Errorf("%+v", r.steered)
	}
}

// A log that was moved away is not lost, and a rebuilding that does not know of it
// writes its lines again once only.
func TestRebuildWithALogThatWasMovedAway(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{true, false} {
		p := &past{T: t, newLedger: func() string { return ledgers["SQLite"](t) }, dir: t.TempDir(), known: true}
		p.where = p.newLedger()
		moved := filepath.Join(t.TempDir(), "moved.jsonl")
		p.with(func(l *ledger.Ledger, e *evidence.Log) {
			ctx := t.Context()
			b, err := OpenBook(ctx, realLedger{l}, e, Options{Timings: true})
			must(t, err)
			_, err = b.Begin(ctx, schemas.Batch{ID: "b", Actor: "ops", CreatedAt: time.Now().UTC()})
			must(t, err)
			_, err = b.Seal(ctx, "b", 5, "")
			must(t, err)
			record := func(b *Book, all []schemas.Result) {
				p.publish(all, nil)
				_, err = b.Record(ctx, all, nil)
				must(t, err)
			}
			record(b, results("b", 0, 1, 2))
			must(t, os.Rename(p.log(), moved))
			b, err = OpenBook(ctx, realLedger{l}, e, Options{Timings: true, AcceptEvidence: true})
			must(t, err)
			record(b, results("b", 3, 4))
			_, err = b.End(ctx, []string{"b"})
			must(t, err)
		})
		if named {
			p.beside = []string{moved}
		} else if out := p.mustRebuild(); out.Lines != 1+1+3 { // that they are rebuilt, start, items
			t.Errorf("%+v", out)
		}
		for range 2 {
			p.again()
		}
		p.where = p.newLedger()
		out := p.mustRebuild()
		if s := p.told().Batches[0]; out.Lines != 0 || out.Problems != nil || s.State != schemas.StateSucceeded || s.Counts.Restored != 5 {
			t.Errorf("%+v, %+v", out, s)
		}
	}
}

// A broker that is new has nothing to say against the evidence.
func TestRebuildThePauseWithANewBroker(t *testing.T) {
	t.Parallel()
	p := live(t, func() string { return ledgers["SQLite"](t) })
	want := p.told().Steering
	p.where, p.steering, p.shown, p.stream = p.newLedger(), schemas.Steering{}, nil, nil
	p.mustRebuild()
	if got := p.told().Steering; got != want || got == "" {
		t.Errorf("%q, want %q", got, want)
	}
}

// dying is a ledger and a log of a process that dies at one of its writes.
type dying struct {
	RebuildLedger
	Evidence
	left  int
	after bool
	// last says that what it did last was to note that it has ended.
	last bool
}

func (d *dying) do(write func() error) error {
	if d.left--; d.left > 0 || d.left == 0 && d.after {
		if err := write(); err != nil {
			return err
		}
	}
	if d.left <= 0 {
		return errCrash
	}
	return nil
}

func (d *dying) Reinstate(ctx context.Context, b schemas.Batch, events []schemas.BatchEvent) (s schemas.Summary, created bool, err error) {
	err = d.do(func() (err error) { s, created, err = d.RebuildLedger.Reinstate(ctx, b, events); return err })
	return s, created, err
}

func (d *dying) Record(ctx context.Context, r []schemas.Result, f []schemas.Failure) (a Added, err error) {
	err = d.do(func() (err error) { a, err = d.RebuildLedger.Record(ctx, r, f); return err })
	return a, err
}

func (d *dying) Conclude(ctx context.Context, id string, to schemas.State, total int64, sha string, at time.Time) (s schemas.Summary, err error) {
	err = d.do(func() (err error) { s, err = d.RebuildLedger.Conclude(ctx, id, to, total, sha, at); return err })
	return s, err
}

func (d *dying) SetPosition(ctx context.Context, pos schemas.EvidencePosition) error {
	return d.do(func() error { return d.RebuildLedger.SetPosition(ctx, pos) })
}

func (d *dying) ChangeSetting(ctx context.Context, name string, change func(string) (string, error),
	note func() (schemas.EvidencePosition, error)) (value string, err error) {
	err = d.do(func() (err error) { value, err = d.RebuildLedger.ChangeSetting(ctx, name, change, note); return err })
	d.last = name == keyRebuilding && value == ""
	return value, err
}

func (d *dying) Append(ctx context.Context, r []schemas.Record) (pos schemas.EvidencePosition, err error) {
	err = d.do(func() (err error) { pos, err = d.Evidence.Append(ctx, r); return err })
	return pos, err
}

// A rebuilding that is broken off anywhere is finished by the next.
func TestRebuildIsBrokenOff(t *testing.T) {
	t.Parallel()
	const again = "ledger, after the evidence"
	for _, lost := range []string{"ledger", "evidence", "both", again} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			for at, done := 1, false; !done; at++ {
				p := live(t, func() string { return ledgers["SQLite"](t) })
				before := p.told()
				if lost != "evidence" {
					p.where = p.newLedger()
				}
				if lost == "evidence" || lost == "both" {
					must(t, os.Remove(p.log()))
				}
				if lost == again {
					p.rebuildLater()
				}
				p.with(func(l *ledger.Ledger, e *evidence.Log) {
					d := &dying{RebuildLedger: rebuildLedger{l}, Evidence: e, left: at, after: at%2 == 0}
					if _, err := p.rebuild(d, d); err == nil {
						done = true
					} else if !errors.Is(err, errCrash) {
						t.Fatal(err)
					}
					// Nobody goes on with the half of it.
					_, err := OpenBook(t.Context(), realLedger{mustOpen(t, l.Path(), "other")}, newStore(t).e, Options{AcceptEvidence: true})
					if whole := done || d.left == 0 && d.after && d.last; !whole && at > 1 && fault.CodeOf(err) != schemas.CodeLedgerLost {
						t.Errorf("died at %d: %v", at, err)
					}
				})
				p.mustRebuild()
				after := p.told()
				seen := map[string]int{}
				for _, l := range after.Lines {
					if seen[l]++; seen[l] > 1 && l != mark {
						t.Errorf("died at %d: %s stands twice", at, l)
					}
				}
				if diff := cmp.Diff(before.Results, after.Results); diff != "" {
					t.Errorf("died at %d: %s", at, diff)
				}
				p.again()
			}
		})
	}
}

// A trial says what there is to do, and does nothing.
func TestRebuildAsATrial(t *testing.T) {
	onBothLedgers(t, func(t *testing.T, p *past, before told) {
		trial := func(where string) (out Rebuilt) {
			l, err := ledger.OpenTrial(t.Context(), where, ledger.Options{})
			must(t, err)
			out, err = p.rebuild(rebuildLedger{l}, nil)
			must(t, err)
			must(t, l.Close())
			return out
		}
		p.publish(results("paused", 3, 4), nil)
		if out := trial(p.where); out.Results != 2 || out.Lines != 3 || out.Batches != 0 {
			t.Errorf("%+v", out)
		}
		if diff := cmp.Diff(before, p.told()); diff != "" {
			t.Error(diff)
		}

		empty := p.newLedger()
		if out := trial(empty); out.Results != 21 || out.Batches != 7 || out.Ended != 4 {
			t.Errorf("%+v", out)
		}
		if all, err := ledger.Migrations(t.Context(), empty); err != nil || !all[0].Applied.IsZero() {
			t.Errorf("the trial has left %+v (%v)", all, err)
		}
	})
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	var s indexes
	var none *indexes
	all := []int64{0, 1, 63, 64, 2047, 2048, 1 << 50, 1<<50 + 1, -1, -2048, -2049}
	for range 2 {
		for _, i := range all {
			s.add(i)
		}
	}
	for _, i := range all {
		if !s.has(i) || none.has(i) || s.has(i+2) != slices.Contains(all, i+2) {
			t.Errorf("%d", i)
		}
	}
	if s.n != len(all) {
		t.Errorf("%d, want %d", s.n, len(all))
	}
	if got := s.all(); !cmp.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(all))) || none.all() != nil {
		t.Errorf("%v, want %v", got, all)
	}
	for _, i := range append(all, 5, 1<<40) {
		s.remove(i)
		s.remove(i)
		if s.has(i) {
			t.Errorf("%d is still there", i)
		}
	}
	if s.n != 0 {
		t.Errorf("%d are left", s.n)
	}
}
