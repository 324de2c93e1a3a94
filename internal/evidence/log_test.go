package evidence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// sample is a record as a restore leaves it.
func sample(index int64) schemas.Record {
	size, decode, total, write := int64(8400), 0.034512, 5.678901, 4.567812
	return schemas.Record{
		Action: schemas.ActionRestore, Actor: "ops", Attempt: 1, Batch: "b-20260102-0001",
		DecompressionMS: &decode, DurationMS: &total, Index: &index, Outcome: schemas.OutcomeRestored,
		Path: fmt.Sprintf("/data/restore/src/pkg/file_%d.go", index), Repo: "golang/go",
		SHA256: strings.Repeat("0123456789abcdef", 4), Size: &size,
		Tombstone: "2841586a-97ab-428d-bb47-6e64d6e28c95", Worker: "worker-1", WriteMS: &write,
	}
}

func samples(from, n int64) []schemas.Record {
	records := make([]schemas.Record, 0, n)
	for i := range n {
		records = append(records, sample(from+i))
	}
	return records
}

func openLog(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Log, records ...schemas.Record) schemas.EvidencePosition {
	t.Helper()
	pos, err := l.Append(t.Context(), records)
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

// mustVerify checks the log and that it holds n of exhume's records.
func mustVerify(t testing.TB, l *Log, n int64, anchors ...schemas.EvidencePosition) Report {
	t.Helper()
	report, err := Verify(l.Path(), anchors...)
	if err != nil {
		t.Fatal(err)
	}
	if report.Records != n {
		t.Fatalf("the log has %d records, want %d", report.Records, n)
	}
	return report
}

func readLog(t testing.TB, l *Log) string {
	t.Helper()
	text, err := os.ReadFile(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeLog(t testing.TB, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestAppendFillsInTheChain(t *testing.T) {
	t.Parallel()
	l := openLog(t, filepath.Join(t.TempDir(), "a", "b"))
	l.now = func() time.Time { return time.Date(2026, 1, 2, 4, 4, 5, 999, time.FixedZone("", 3600)) }
	records := samples(0, 2)
	first := mustAppend(t, l, records...)
	last := mustAppend(t, l, sample(2))

	text := strings.SplitAfter(readLog(t, l), "\n")
	want := samples(0, 3)
	prev := noLine
	for i := range want {
		want[i].Prev, want[i].Seq, want[i].TS = prev, int64(i+1), "2026-01-02T03:04:05Z"
		prev = hashLine([]byte(strings.TrimSuffix(text[i], "\n")))
		var got schemas.Record
		if err := json.Unmarshal([]byte(text[i]), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Error(diff)
		}
		checkForm(t, []byte(strings.TrimSuffix(text[i], "\n")))
	}
	wantFirst := schemas.EvidencePosition{Offset: int64(len(text[0] + text[1])), Seq: 2, Prev: want[2].Prev}
	wantLast := schemas.EvidencePosition{Offset: int64(len(readLog(t, l))), Seq: 3, Prev: prev}
	if diff := cmp.Diff([]schemas.EvidencePosition{wantFirst, wantLast}, []schemas.EvidencePosition{first, last}); diff != "" {
		t.Error(diff)
	}
	if records[0].Seq != 0 || records[0].Prev != "" || records[0].TS != "" {
		t.Error("the caller's records were changed")
	}
	if report := mustVerify(t, l, 3, first, last); report.End != last {
		t.Errorf("end %+v, want %+v", report.End, last)
	}
}

func TestAppendOfNothingGivesThePosition(t *testing.T) {
	t.Parallel()
	l := openLog(t, t.TempDir())
	if got, want := mustAppend(t, l), (schemas.EvidencePosition{Prev: noLine}); got != want {
		t.Errorf("empty log: got %+v, want %+v", got, want)
	}
	want := mustAppend(t, l, sample(0))
	if got := mustAppend(t, l); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	mustVerify(t, l, 1)
}

func TestFilesAreReadableByOthers(t *testing.T) {
	t.Parallel()
	l := openLog(t, filepath.Join(t.TempDir(), "evidence"))
	mustAppend(t, l, sample(0))
	umask := fs.FileMode(0o022)
	for path, want := range map[string]fs.FileMode{filepath.Dir(l.Path()): 0o755, l.Path(): 0o644} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got|umask != want|umask || got&^want != 0 {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
}

func TestThePredecessorsLogIsContinued(t *testing.T) {
	t.Parallel()
	old, err := os.ReadFile("../../integration/testdata/sqlite/evidence.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeLog(t, dir, string(old))
	l := openLog(t, dir)
	mustAppend(t, l, samples(0, 3)...)
	// The predecessor comes back for one line.
	f, err := os.OpenFile(l.Path(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(old[:bytes.IndexByte(old, '\n')+1]); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	last := mustAppend(t, l, samples(3, 2)...)

	report := mustVerify(t, l, 5, last)
	foreign := int64(bytes.Count(old, []byte{'\n'})) + 1
	if report.Foreign != foreign || report.Lines != foreign+5 {
		t.Errorf("got %+v, want %d foreign lines", report, foreign)
	}
	if !strings.HasPrefix(readLog(t, l), string(old)) {
		t.Error("the predecessor's lines were changed")
	}
	// A fresh Log finds the sequence behind foreign lines.
	if pos := mustAppend(t, openLog(t, dir), sample(5)); pos.Seq != 6 {
		t.Errorf("seq %d, want 6", pos.Seq)
	}
}

func TestATornLastLineIsMended(t *testing.T) {
	t.Parallel()
	whole := `{"action":"ARCHIVE","actor":"alice"}` + "\n"
	for name, tc := range map[string]struct{ torn, kept string }{
		"half a line":           {`{"action":"RESTORE","act`, ""},
		"zeros":                 {strings.Repeat("\x00", 5000), ""},
		"longer than one block": {`{"path":"` + strings.Repeat("x", 300_000), ""},
		"only a newline is off": {`{"action":"RESTORE"}`, `{"action":"RESTORE"}` + "\n"},
	} {
		for _, before := range []string{"", whole, strings.Repeat(whole, 3)} {
			t.Run(fmt.Sprintf("%s after %d bytes", name, len(before)), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				writeLog(t, dir, before+tc.torn)
				l := openLog(t, dir)
				mustAppend(t, l, sample(0))
				if !strings.HasPrefix(readLog(t, l), before+tc.kept+`{"action":"RESTORE","actor":"ops"`) {
					t.Errorf("got %.200s", readLog(t, l))
				}
				mustVerify(t, l, 1)
				// The same while the log is open.
				writeLog(t, dir, readLog(t, l)+tc.torn)
				if pos := mustAppend(t, l, sample(1)); pos.Seq != 2 {
					t.Errorf("seq %d, want 2", pos.Seq)
				}
				mustVerify(t, l, 2)
			})
		}
	}
}

func TestALogThatIsTakenAwayIsBegunAnew(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(path string) error{
		"renamed":   func(path string) error { return os.Rename(path, path+".1") },
		"removed":   os.Remove,
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"exchanged": func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o644)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := openLog(t, t.TempDir())
			mustAppend(t, l, samples(0, 3)...)
			if err := take(l.Path()); err != nil {
				t.Fatal(err)
			}
			if pos := mustAppend(t, l, samples(0, 2)...); pos.Seq != 2 {
				t.Errorf("seq %d, want 2", pos.Seq)
			}
			mustVerify(t, l, 2)
			if name == "renamed" {
				if _, err := Verify(l.Path() + ".1"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestALogThatShrankIsReadAgain(t *testing.T) {
	t.Parallel()
	l := openLog(t, t.TempDir())
	mustAppend(t, l, samples(0, 2)...)
	short := readLog(t, l) + foreignLine
	mustAppend(t, l, samples(2, 3)...)
	writeLog(t, filepath.Dir(l.Path()), short)
	if pos := mustAppend(t, l, sample(2)); pos.Seq != 3 {
		t.Errorf("seq %d, want 3", pos.Seq)
	}
	mustVerify(t, l, 3)
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	t.Parallel()
	l := openLog(t, t.TempDir())
	lock := flock.New(filepath.Join(filepath.Dir(l.Path()), lockName))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.Append(ctx, samples(0, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, sample(0))
	mustVerify(t, l, 1)
}

func TestOpenNamesWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "evidence")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want an error that names %s", err, file)
	}
}

func BenchmarkAppend(b *testing.B) {
	l := openLog(b, b.TempDir())
	records := samples(0, 1000)
	for b.Loop() {
		mustAppend(b, l, records...)
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "lines/s")
}

func BenchmarkVerify(b *testing.B) {
	l := openLog(b, b.TempDir())
	for range 100 {
		mustAppend(b, l, samples(0, 1000)...)
	}
	for b.Loop() {
		mustVerify(b, l, 100_000)
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "lines/s")
}
