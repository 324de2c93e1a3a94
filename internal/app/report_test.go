package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// noon is when the batches of these tests began.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// resultOf is the result of an item that was restored in 2 ms.
func resultOf(i int) schemas.Result {
	return schemas.Result{
		Request: schemas.Request{
			Batch: "b", Index: int64(i), Tombstone: fmt.Sprintf("00000000-0000-4000-8000-%012x", i),
			Output: fmt.Sprintf("dir-%d/file-%d.go", i/100, i), Actor: "ops",
		},
		Outcome: schemas.OutcomeRestored, Attempts: 1, Worker: fmt.Sprintf("worker-%d", i%4),
		Size: 8000, SHA256: strings.Repeat("0123456789abcdef", 4), FinishedAt: noon.Add(time.Duration(i) * time.Millisecond),
		Durations: schemas.Durations{Queue: 1, Read: 0.5, Decode: 0.25, Write: 1, Total: 2},
	}
}

// failedOf is the result of an item that failed.
func failedOf(i int, code schemas.Code, detail string) schemas.Result {
	r := resultOf(i)
	r.Outcome, r.Code, r.Detail, r.Size, r.SHA256 = schemas.OutcomeFailed, code, detail, 0, ""
	return r
}

func ended(id string, results []schemas.Result) schemas.BatchReport {
	b := schemas.BatchReport{Summary: schemas.Summary{Batch: schemas.Batch{
		ID: id, State: schemas.StatePartial, Total: int64(len(results)), Settings: schemas.Settings{Root: "/srv/out"},
		CreatedAt: noon, SealedAt: noon.Add(time.Second), EndedAt: noon.Add(4 * time.Second),
	}}}
	for _, r := range results {
		b.Counts.Add(r.Outcome, r.Size)
	}
	return b
}

func sequence(results []schemas.Result) iter.Seq2[schemas.Result, error] {
	return func(yield func(schemas.Result, error) bool) {
		for _, r := range results {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mixed are results of every kind, with texts that CSV has to quote.
func mixed() []schemas.Result {
	var list []schemas.Result
	for i := range 20 {
		list = append(list, resultOf(i))
	}
	list[1].Outcome = schemas.OutcomeUnchanged
	list[2] = failedOf(2, schemas.CodeTombstoneNotFound, `no item "one"`)
	list[3] = failedOf(3, schemas.CodeTombstoneNotFound, `no item "two"`)
	list[4] = failedOf(4, schemas.CodeDestinationExists, "output \"a,b\": other\ncontent")
	list[5].Outcome, list[5].Code, list[5].Worker = schemas.OutcomeSkipped, schemas.CodeItemSkipped, ""
	list[6].Outcome, list[6].Code, list[6].Worker = schemas.OutcomeCancelled, schemas.CodeItemCancelled, ""
	list[7].Output = `with "quotes", commas and spaces /file`
	list[8].Output = "ünï/=cödé"
	list[9].Durations.Total = 900
	list[10].Durations.Total = 1000
	return list
}

func TestWriteReport(t *testing.T) {
	t.Parallel()
	list := mixed()
	b := ended("b", list)
	events := []schemas.BatchEvent{{ID: "b:seal", No: 1, Batch: "b", Change: schemas.ChangeSeal, To: schemas.StateSealed, At: noon}}
	dir := filepath.Join(t.TempDir(), "reports", "b")
	must(t, WriteReport(t.Context(), dir, b, events, sequence(list)))

	var got Report
	data, err := os.ReadFile(filepath.Join(dir, reportFile))
	must(t, err)
	must(t, json.Unmarshal(data, &got))
	if got.ID != "b" || got.Settings.Root != "/srv/out" || got.Counted != b.Counts || got.SubmitSeconds != 1 || got.Seconds != 4 ||
		got.ItemsPerSecond != 5 || got.BytesPerSecond != float64(b.Counts.Bytes)/4 {
		t.Errorf("report: %s", data)
	}
	if diff := cmp.Diff(events, got.Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if len(got.Failures) != 2 || got.Failures[0].Code != schemas.CodeTombstoneNotFound || got.Failures[0].Count != 2 ||
		got.Failures[0].Message != `no item "…"` || got.Failures[0].Remedy == "" || got.Failures[0].First.Equal(got.Failures[0].Last) {
		t.Errorf("failures: %+v", got.Failures)
	}
	if diff := cmp.Diff([]schemas.Result{list[2], list[3]}, got.Failures[0].Samples); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	var slow []int64
	for _, r := range got.Slowest {
		slow = append(slow, r.Index)
	}
	if want := []int64{10, 9, 0, 1, 2}; !slices.Equal(slow, want) {
		t.Errorf("slowest are %v, want %v", slow, want)
	}
	var done schemas.Counts
	for i, w := range got.Workers {
		if w.Worker != fmt.Sprintf("worker-%d", i) {
			t.Errorf("worker %d is %q", i, w.Worker)
		}
		done.Plus(w.Counts)
	}
	done.Skipped, done.Cancelled = done.Skipped+1, done.Cancelled+1 // those nobody had in hand
	if done != b.Counts {
		t.Errorf("the workers did %+v of %+v", done, b.Counts)
	}

	for file, want := range map[string][]schemas.Result{
		restoredFile: slices.Concat(list[0:2], list[7:]), failedFile: list[2:5], skippedFile: list[5:7],
	} {
		if diff := cmp.Diff(want, readAgain(t, filepath.Join(dir, file))); diff != "" {
			t.Errorf("%s as a manifest (-want +got):\n%s", file, diff)
		}
	}
	for name, want := range map[string]fs.FileMode{"": 0o750, reportFile: 0o640, failedFile: 0o640} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if got := info.Mode().Perm(); got&^want != 0 || got&0o600 != 0o600 {
			t.Errorf("%q has mode %o, want %o or less", name, got, want)
		}
	}
}

// readAgain reads results as the producer reads a manifest, with what CSV keeps
// of them.
func readAgain(t *testing.T, path string) (list []schemas.Result) {
	t.Helper()
	m, err := producer.OpenManifest(path, nil, producer.ManifestOptions{Root: "/srv/out", Actor: "somebody"})
	must(t, err)
	defer m.Close() //nolint:errcheck // opened for reading
	check, err := m.Check(t.Context(), func(r producer.Reject) { t.Error(r) })
	must(t, err)
	for q, err := range m.Items(t.Context()) {
		must(t, err)
		var i int
		if _, err := fmt.Sscan(q.Labels["index"], &i); err != nil {
			t.Fatalf("labels %v: %v", q.Labels, err)
		}
		r := mixed()[i]
		if q.Tombstone != r.Tombstone || q.Output != r.Output || q.Actor != r.Actor || q.Labels["outcome"] != string(r.Outcome) ||
			q.Labels["code"] != string(r.Code) || q.Labels["detail"] != r.Detail || q.Labels["sha256"] != r.SHA256 {
			t.Errorf("%+v came back as %+v", r, q)
		}
		list = append(list, r)
	}
	if check.Rejected != 0 || check.Valid != int64(len(list)) {
		t.Errorf("%s: %+v", path, check)
	}
	return list
}

// A report takes the place of an earlier one as a whole, and of nothing else.
func TestWriteReportReplaces(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "b")
	one, two := mixed()[:1], mixed()[:8]
	must(t, WriteReport(t.Context(), dir, ended("b", one), nil, sequence(one)))
	broken := func(yield func(schemas.Result, error) bool) {
		_ = yield(resultOf(0), nil) && yield(schemas.Result{}, errors.New("the ledger is gone"))
	}
	if err := WriteReport(t.Context(), dir, ended("b", one), nil, broken); err == nil || !strings.Contains(err.Error(), "the ledger is gone") {
		t.Errorf("broken results: %v", err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := WriteReport(stopped, dir, ended("b", one), nil, sequence(one)); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if got := counted(t, dir); got != 1 {
		t.Errorf("after failures the report counts %d results", got)
	}
	must(t, WriteReport(t.Context(), dir, ended("b", two), nil, sequence(two)))
	if got := counted(t, dir); got != 8 {
		t.Errorf("the report counts %d results", got)
	}

	must(t, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600))
	if err := WriteReport(t.Context(), dir, ended("b", one), nil, sequence(one)); err == nil {
		t.Error("what is not a report was replaced")
	}
	if got := counted(t, dir); got != 8 {
		t.Errorf("the report counts %d results", got)
	}
	if got := names(t, top); !slices.Equal(got, []string{"b"}) {
		t.Errorf("left behind: %v", got)
	}
}

func counted(t *testing.T, dir string) int64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, reportFile))
	must(t, err)
	var r Report
	must(t, json.Unmarshal(data, &r))
	return r.Counted.Done()
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// However different failures are, a report keeps few of them, and counts all.
func TestReportIsBounded(t *testing.T) {
	t.Parallel()
	const n = 3 * maxGroups
	results := func(yield func(schemas.Result, error) bool) {
		for i := range n {
			word := strings.NewReplacer("0", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "h", "8", "i", "9", "j").Replace(fmt.Sprint(i))
			r := failedOf(i, schemas.CodeArchiveError, word)
			r.Worker = word
			if !yield(r, nil) {
				return
			}
		}
	}
	r, err := newReport(t.Context(), schemas.BatchReport{}, nil, results, func(*schemas.Result) error { return nil })
	must(t, err)
	var failed, worked int64
	for _, g := range r.Failures {
		failed += g.Count
	}
	for _, w := range r.Workers {
		worked += w.Failed
	}
	if failed != n || worked != n || len(r.Failures) != maxGroups+1 || len(r.Workers) != maxGroups+1 || r.Failures[0].Message != othersName {
		t.Errorf("%d failures in %d groups, %d of %d workers", failed, len(r.Failures), worked, len(r.Workers))
	}
}

// somebody answers about batches that are in memory.
type somebody struct {
	list    []schemas.Summary
	results map[string][]schemas.Result
	// asked, if set, is told of each question for batches, and where the answer is
	// waited for; closing that is the true answer.
	asked chan chan []schemas.Summary
}

func (s *somebody) Batch(_ context.Context, ref string) (schemas.BatchReport, error) {
	for _, b := range s.list {
		if b.ID == ref {
			return schemas.BatchReport{Summary: b}, nil
		}
	}
	return schemas.BatchReport{}, fmt.Errorf("no such batch: %q", ref)
}

func (s *somebody) Batches(_ context.Context, limit int) ([]schemas.Summary, error) {
	if s.asked != nil {
		answer := make(chan []schemas.Summary)
		s.asked <- answer
		if list, ok := <-answer; ok {
			return list, nil
		}
	}
	return s.list[:min(limit, len(s.list))], nil
}

func (s *somebody) Results(_ context.Context, id string, _ schemas.ResultFilter) iter.Seq2[schemas.Result, error] {
	return sequence(s.results[id])
}

func (s *somebody) Events(_ context.Context, ref string) (schemas.BatchEvents, error) {
	return schemas.BatchEvents{Batch: ref, Events: []schemas.BatchEvent{{ID: ref + ":complete", Batch: ref}}}, nil
}

func (s *somebody) Close() error { return nil }

func (s *somebody) add(id string, endedAt time.Time) schemas.Summary {
	list := mixed()
	b := ended(id, list).Summary
	if b.EndedAt = endedAt; endedAt.IsZero() {
		b.State = schemas.StateRunning
	}
	if s.results == nil {
		s.results = map[string][]schemas.Result{}
	}
	s.list, s.results[id] = append(s.list, b), list
	return b
}

func TestReports(t *testing.T) {
	t.Parallel()
	now := time.Now()
	dir := filepath.Join(t.TempDir(), "reports")
	from := &somebody{asked: make(chan chan []schemas.Summary)}
	from.add("lost", now.Add(-time.Hour))
	from.add("old", now.Add(-48*time.Hour))
	from.add("written", now.Add(-time.Hour))
	from.add("namesake", now.Add(-time.Hour))
	running := from.add("running", time.Time{})
	ends := from.add("ends", now)
	for _, id := range []string{"written", "namesake"} {
		must(t, WriteReport(t.Context(), filepath.Join(dir, id), ended(id, nil), nil, sequence(nil)))
	}
	must(t, os.Chtimes(filepath.Join(dir, "namesake", reportFile), now, now.Add(-2*time.Hour)))
	stale, fresh := filepath.Join(dir, reportTemp+"lost-1"), filepath.Join(dir, reportTemp+"lost-2")
	must(t, errors.Join(os.Mkdir(stale, 0o750), os.Mkdir(fresh, 0o750), os.Chtimes(stale, now, now.Add(-2*leftoverAge))))

	ctx, stop := context.WithCancel(t.Context())
	r := newReports(ctx, dir, from, zerolog.Nop())
	answer := <-from.asked
	stop()                                // what is to be written is written nevertheless
	r.Changed(running)                    // has not ended
	r.Changed(ends)                       // while somebody is slow to answer
	r.Changed(ends)                       // again
	r.Changed(ended("gone", nil).Summary) // cannot be asked for: stops nothing
	close(answer)
	r.Close()

	if got, want := names(t, dir), []string{filepath.Base(fresh), "ends", "lost", "namesake", "written"}; !slices.Equal(got, want) {
		t.Errorf("reports: %v, want %v", got, want)
	}
	for id, want := range map[string]int64{"lost": 20, "ends": 20, "namesake": 20, "written": 0} {
		if got := counted(t, filepath.Join(dir, id)); got != want {
			t.Errorf("the report on %s counts %d, want %d", id, got, want)
		}
	}
}

// A flood of batches that end is not kept in memory, and no report is lost.
func TestReportsFlood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from := &somebody{asked: make(chan chan []schemas.Summary)}
	last := from.add("last", time.Now())
	r := newReports(t.Context(), dir, from, zerolog.Nop())
	first := <-from.asked
	for i := range 2 * maxPendingReports {
		r.Changed(ended(fmt.Sprintf("gone-%d", i), nil).Summary)
	}
	r.Changed(last)
	if n := len(r.pending); n != maxPendingReports {
		t.Errorf("%d reports wait to be written", n)
	}
	first <- nil // that was what there was at the start
	close(<-from.asked)
	r.Close()
	if got := names(t, dir); !slices.Equal(got, []string{"last"}) {
		t.Errorf("reports: %v", got)
	}
}

// Without a directory there are no reports.
func TestReportsOff(t *testing.T) {
	t.Parallel()
	var r *reports
	r.Changed(ended("b", nil).Summary)
	r.Close()
}

// BenchmarkWriteReport writes the report on 20,000 items, a hundredth of which
// failed. Most of what it takes beyond the processor is waiting for the disk.
func BenchmarkWriteReport(b *testing.B) {
	var list []schemas.Result
	for i := range 20_000 {
		r := resultOf(i)
		if i%100 == 0 {
			r = failedOf(i, schemas.CodeTombstoneNotFound, fmt.Sprintf("the archive has no item %q", r.Tombstone))
		}
		list = append(list, r)
	}
	report := ended("b", list)
	dir := filepath.Join(b.TempDir(), "b")
	before := cpuTime(b)
	for b.Loop() {
		must(b, WriteReport(b.Context(), dir, report, nil, sequence(list)))
	}
	b.ReportMetric(float64((cpuTime(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	must(tb, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
