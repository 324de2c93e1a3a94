package evidence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

const foreignLine = `{"action":"ARCHIVE","actor":"alice"}` + "\n"

// tampered is a log of two foreign lines and six records, lines 1-2 and 3-8,
// after edit; the position is that of the log before.
func tampered(t *testing.T, edit func(lines []string) []string) (string, schemas.EvidencePosition) {
	t.Helper()
	dir := t.TempDir()
	writeLog(t, dir, foreignLine+strings.Replace(foreignLine, "alice", "bob", 1))
	l := openLog(t, dir)
	mustAppend(t, l, samples(0, 3)...)
	pos := mustAppend(t, l, samples(3, 3)...)
	lines := strings.SplitAfter(readLog(t, l), "\n")
	writeLog(t, dir, strings.Join(edit(lines[:8]), ""))
	return l.Path(), pos
}

func TestVerifyNamesTheBadLine(t *testing.T) {
	t.Parallel()
	replace := func(i int, from, to string) func([]string) []string {
		return func(l []string) []string {
			changed := strings.Replace(l[i], from, to, 1)
			if changed == l[i] {
				t.Errorf("line %d has no %q", i+1, from)
			}
			l[i] = changed
			return l
		}
	}
	for name, tc := range map[string]struct {
		edit func(lines []string) []string
		line int64 // 0 when it verifies
		why  string
		// anchored: only an anchor shows it.
		anchored bool
	}{
		"nothing":                {func(l []string) []string { return l }, 0, "", false},
		"a record changed":       {replace(4, `"size":8400`, `"size":8401`), 5, "changed", false},
		"one space added":        {replace(4, `,"actor"`, `, "actor"`), 5, "changed", false},
		"the first changed":      {replace(2, "restored", "failed"), 3, "changed", false},
		"prev changed":           {replace(4, `"prev":"`, `"prev":"0`), 5, "", false},
		"prev exchanged":         {func(l []string) []string { return setPrev(l, 4) }, 5, "changed", false},
		"prev of the last":       {func(l []string) []string { return setPrev(l, 7) }, 8, "one of the two", false},
		"seq changed":            {replace(4, `"seq":3`, `"seq":7`), 5, "seq is 7", false},
		"made unreadable":        {replace(4, `{`, ``), 5, "changed", false},
		"the last foreign one":   {replace(1, "bob", "eve"), 2, "changed", false},
		"one dropped":            {func(l []string) []string { return slices.Delete(l, 4, 5) }, 5, "removed", false},
		"two dropped":            {func(l []string) []string { return slices.Delete(l, 4, 6) }, 5, "removed", false},
		"the first dropped":      {func(l []string) []string { return slices.Delete(l, 2, 3) }, 3, "", false},
		"the foreign dropped":    {func(l []string) []string { return l[2:] }, 1, "removed", false},
		"swapped":                {func(l []string) []string { l[4], l[5] = l[5], l[4]; return l }, 5, "moved", false},
		"the last two swapped":   {func(l []string) []string { l[6], l[7] = l[7], l[6]; return l }, 7, "moved", false},
		"one repeated":           {func(l []string) []string { return slices.Insert(l, 5, l[4]) }, 6, "repeated", false},
		"a foreign one added":    {func(l []string) []string { return slices.Insert(l, 5, foreignLine) }, 6, "added", false},
		"the last changed":       {replace(7, `"size":8400`, `"size":8401`), 8, "noted", true},
		"the last dropped":       {func(l []string) []string { return l[:7] }, 8, "removed", true},
		"the last three dropped": {func(l []string) []string { return l[:5] }, 6, "removed", true},
		"everything dropped":     {func([]string) []string { return nil }, 1, "removed", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, pos := tampered(t, tc.edit)
			check := func(line int64, anchors ...schemas.EvidencePosition) {
				t.Helper()
				_, err := Verify(path, anchors...)
				broken, _ := errors.AsType[*BrokenError](err)
				switch {
				case line == 0 && err != nil:
					t.Errorf("got %v, want it to verify", err)
				case line != 0 && (broken == nil || broken.Line != line || broken.Path != path || !strings.Contains(broken.Why, tc.why)):
					t.Errorf("got %v, want line %d and %q", err, line, tc.why)
				}
			}
			check(tc.line, pos)
			if tc.anchored {
				check(0)
			} else {
				check(tc.line)
			}
		})
	}
}

// setPrev gives line i a prev that is well-formed but wrong.
func setPrev(l []string, i int) []string {
	s, _ := readStamp([]byte(l[i]))
	l[i] = strings.Replace(l[i], s.Prev, strings.Repeat("ab", 32), 1)
	return l
}

func TestVerifyReportsATornLine(t *testing.T) {
	t.Parallel()
	path, pos := tampered(t, func(l []string) []string { return append(l, `{"action":"RES`) })
	got, err := Verify(path, pos)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339, got.First); err != nil || got.First > got.Last {
		t.Errorf("written from %q to %q", got.First, got.Last)
	}
	got.First, got.Last = "", ""
	want := Report{Lines: 8, Records: 6, Foreign: 2, Batches: 1, Torn: 14, End: pos}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestVerifyOfWhatIsNoLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Verify(filepath.Join(dir, FileName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that says the file is missing", err)
	}
	writeLog(t, dir, strings.Repeat("x", maxLine+1))
	if _, err := Verify(filepath.Join(dir, FileName)); err == nil || !strings.Contains(err.Error(), "line 1 is longer") {
		t.Errorf("got %v, want an error about the line's length", err)
	}
	if _, err := openLog(t, dir).Append(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "is longer") {
		t.Errorf("got %v, want an error about the line's length", err)
	}
}

// After the highest number there is none, and what has none could not be read again.
func TestNoNumberIsLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeLog(t, dir, `{"action":"ARCHIVE","prev":"`+noLine+`","seq":9223372036854775806}`+"\n")
	l := openLog(t, dir)
	if _, err := l.Append(t.Context(), samples(0, 2)); err == nil || !strings.Contains(err.Error(), "9223372036854775806") {
		t.Errorf("got %v", err)
	}
	mustAppend(t, l, samples(0, 1)...)
}

func TestSince(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeLog(t, dir, foreignLine)
	l := openLog(t, dir)
	start := mustAppend(t, l)
	first := mustAppend(t, l, samples(0, 2)...)
	writeLog(t, dir, readLog(t, l)+foreignLine+"not JSON\n")
	mustAppend(t, l, samples(2, 3)...)
	// A torn last line says nothing. One that lacks only its newline does: the next
	// append keeps it.
	whole := strings.TrimSuffix(readLog(t, l), "\n")
	writeLog(t, dir, whole[:len(whole)-1])
	wantSince(t, l, map[schemas.EvidencePosition][]int64{{}: {0, 1, 2, 3}, start: {0, 1, 2, 3}, first: {2, 3}})
	writeLog(t, dir, whole)
	wantSince(t, l, map[schemas.EvidencePosition][]int64{{}: {0, 1, 2, 3, 4}, start: {0, 1, 2, 3, 4}, first: {2, 3, 4}})
	for _, err := range l.Since(t.Context(), start) {
		if err != nil {
			t.Error(err)
		}
		break // must not go on
	}
}

// wantSince compares the indexes of the records since positions.
func wantSince(t *testing.T, l *Log, all map[schemas.EvidencePosition][]int64) {
	t.Helper()
	for from, want := range all {
		var got []int64
		for r, err := range l.Since(t.Context(), from) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, *r.Index)
			if wantRecord := sample(*r.Index); r.Path != wantRecord.Path || r.Seq != *r.Index+1 {
				t.Errorf("got %+v", r)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("from %+v: %s", from, diff)
		}
	}
}

func TestSinceRefusesAPositionOfAnotherLog(t *testing.T) {
	t.Parallel()
	l := openLog(t, t.TempDir())
	pos := mustAppend(t, l, samples(0, 3)...)
	for name, tc := range map[string]struct {
		pos schemas.EvidencePosition
		why string
	}{
		"after the end": {schemas.EvidencePosition{Offset: pos.Offset + 1, Seq: 3, Prev: pos.Prev}, "cut short"},
		"inside a line": {schemas.EvidencePosition{Offset: pos.Offset - 1, Seq: 3, Prev: pos.Prev}, "inside a line"},
		"another line":  {schemas.EvidencePosition{Offset: pos.Offset, Seq: 3, Prev: noLine}, "not the one noted"},
		"negative":      {schemas.EvidencePosition{Offset: -1}, "cut short"},
	} {
		if err := sinceError(t, l, tc.pos); err == nil || !strings.Contains(err.Error(), tc.why) || !strings.Contains(err.Error(), l.Path()) {
			t.Errorf("%s: got %v, want %q", name, err, tc.why)
		}
	}
	if err := os.Remove(l.Path()); err != nil {
		t.Fatal(err)
	}
	if err := sinceError(t, l, pos); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that says the file is missing", err)
	}
}

// sinceError is the one thing that Since gives.
func sinceError(t *testing.T, l *Log, pos schemas.EvidencePosition) (last error) {
	t.Helper()
	for r, err := range l.Since(t.Context(), pos) {
		if err == nil || last != nil {
			t.Errorf("got %+v, %v after %v", r, err, last)
		}
		last = err
	}
	return last
}
