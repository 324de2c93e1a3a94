package main

import (
	"bytes"
	"encoding/json"
	"iter"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/producer"
)

// How many items may fail is shown as it can be given, and is what was given.
func FuzzThreshold(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, total int64) {
		if got, err := parseThreshold(text); err == nil && got != nil {
			again, err := parseThreshold(got.String())
			if err != nil || again.String() != got.String() || (again.Count == nil) != (got.Count == nil) || again.MinSample != got.MinSample {
				t.Errorf("%q is %v, and that %v, %v", text, got, again, err)
			}
			if got.Percent != nil && !(*got.Percent >= 0 && *got.Percent <= 100) || got.Count != nil && *got.Count < 0 {
				t.Errorf("%q is %v", text, got)
			}
		}
		if n, err := sampleSize(text, total); err == nil && text != "" && (n < 1 || n > max(total, 1)) {
			t.Errorf("a sample %q of %d has %d items", text, total, n)
		}
	})
}

// Times of flags are times, and what is to come is still to come.
func FuzzTimes(f *testing.F) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if at, err := parseTime("since", text); err == nil && text != "" {
			if again, err := parseTime("since", at.Format(time.RFC3339Nano)); err != nil || !again.Equal(at) {
				t.Errorf("%q is %v, and that %v, %v", text, at, again, err)
			}
		}
		until, err := untilTime(text, now)
		if _, derr := time.ParseDuration(text); err == nil && derr == nil && !until.After(now) {
			t.Errorf("%q is %v", text, until)
		}
	})
}

// What a template makes of an item without its help stays below the root, however
// the item is called.
func FuzzTemplate(f *testing.F) {
	f.Fuzz(func(t *testing.T, text, repo, path, other string) {
		made, err := parseTemplate(text)
		if err != nil {
			return
		}
		item := &archive.Item{Repo: repo, Path: path, Commit: other, Tombstone: other, SHA256: other, Kind: other, Reason: other, ArchivedAt: other}
		output := made.output(item)
		if rest := strings.NewReplacer("{", "", "}", "").Replace(text); !strings.Contains(rest, ".") && !filepath.IsAbs(text) {
			if rel := strings.TrimLeft(output, "/"); rel != "" && !filepath.IsLocal(rel) {
				t.Errorf("%q of %+v leads to %q", text, item, output)
			}
		}
		row, err := producer.CheckRow(producer.ManifestOptions{Root: "/dest", Actor: "a"}, small, output, "")
		if err == nil && !filepath.IsLocal(row.Output) {
			t.Errorf("%q of %+v is restored to %q", text, item, row.Output)
		}
	})
}

// A manifest that is written is read as it was, in whatever format.
func FuzzRows(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		var rows []manifestRow
		if json.Unmarshal(text, &rows) != nil || len(rows) == 0 || len(rows) > 20 {
			return
		}
		o := producer.ManifestOptions{Root: "/", TempDir: t.TempDir()}
		for _, r := range rows {
			q, err := producer.CheckRow(o, r.Tombstone, r.Output, r.Actor)
			if err != nil || q.Tombstone != r.Tombstone || q.Output != r.Output || q.Actor != r.Actor {
				return // nobody writes it
			}
		}
		var first []manifestRow
		for _, format := range []string{"jsonl", "json", "csv"} {
			got := readRows(t, o, format, rows)
			if first == nil {
				first = got
			}
			if len(got) == 0 || !equalRows(got, first) {
				t.Errorf("%s has %q, jsonl %q, of %q", format, got, first, rows)
			}
		}
		for i, r := range first { // all but those that collide
			if first[i] != rows[i] && len(first) == len(rows) {
				t.Errorf("row %d is %q, want %q", i, r, rows[i])
			}
		}
	})
}

func readRows(t *testing.T, o producer.ManifestOptions, format string, rows []manifestRow) (got []manifestRow) {
	t.Helper()
	var b bytes.Buffer
	if err := writeRows(&b, format, iter.Seq2[manifestRow, error](func(yield func(manifestRow, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	})); err != nil {
		t.Fatal(err)
	}
	m, err := producer.OpenManifest("-", &b, o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close() //nolint:errcheck // only read
	c, err := m.Check(t.Context(), nil)
	if err != nil || c.Rows != int64(len(rows)) {
		t.Fatalf("%s: %+v, %v", format, c, err)
	}
	for item, err := range m.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, manifestRow{item.Tombstone, item.Output, item.Actor})
	}
	return got
}

func equalRows(a, b []manifestRow) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// What others have named cannot steer a terminal.
func FuzzPrintable(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		if got := printable(text); strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q is printed as %q", text, got)
		}
	})
}
