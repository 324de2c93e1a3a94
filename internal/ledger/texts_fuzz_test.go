package ledger

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// PostgreSQL can store every text, and gives it back.
func FuzzStorable(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		text := storableText(s)
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			t.Errorf("%q is stored as %q", s, text)
		}
		if back := stored(text); back != s {
			t.Errorf("%q is stored as %q and comes back as %q", s, text, back)
		}
		_ = stored(s) // what somebody else has stored
	})
}

// A page of letters begins where the page before said.
func FuzzPlace(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, no, index int64) {
		if p, err := parsePlace(text); err == nil && p.String() != text {
			t.Errorf("%q is %v", text, p)
		}
		want := place{no, index}
		if got, err := parsePlace(want.String()); err != nil || got != want {
			t.Errorf("%v is read as %v, %v", want, got, err)
		}
	})
}

// How a batch is worked on is kept as it was.
func FuzzControl(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		var b, again schemas.Batch
		var c control
		if setControl(&b, text) != nil || json.Unmarshal([]byte(text), &c) != nil {
			return
		}
		kept, err := controlText(&b)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := json.Marshal(c); err != nil || kept != strings.TrimPrefix(string(want), "{}") {
			t.Errorf("%q is kept as %q, want %q, %v", text, kept, want, err)
		}
		if err := setControl(&again, kept); err != nil {
			t.Fatal(err)
		}
		if twice, err := controlText(&again); err != nil || twice != kept {
			t.Errorf("%q is kept as %q, and that as %q, %v", text, kept, twice, err)
		}
	})
}

// The ledger chooses the results that are meant, whatever the filter holds.
func FuzzFilter(f *testing.F) {
	ctx := context.Background()
	l := openLedger(f, f.TempDir()+"/ledger.db")
	mustCreate(f, l, "b1", "b2")
	all := sampleResults("b1", 0, 60)
	for i := range all {
		switch r := &all[i]; i % 5 {
		case 0:
			r.Outcome, r.Code, r.Detail = schemas.OutcomeFailed, schemas.CodePathRefused, `output "x": refused`
		case 1:
			r.Outcome, r.Code, r.Detail = schemas.OutcomeFailed, schemas.CodeTooLarge, "has 5 bytes"
		case 2:
			r.Outcome = schemas.OutcomeSkipped
		case 3:
			r.Outcome, r.Detail = schemas.OutcomeUnchanged, "it's \x00 %"
		}
		r := &all[i]
		r.FinishedAt = at(int64(i) * int64(time.Second))
	}
	mustRecord(f, l, &notebook{}, append(sampleResults("b2", 0, 5), all...))
	f.Fuzz(func(t *testing.T, query []byte, from int64) {
		q := Filter{From: from}
		if json.Unmarshal(query, &q.ResultFilter) != nil || len(q.Outcomes) > 100 || q.Since.Year() < 1700 && !q.Since.IsZero() || q.Since.Year() > 2200 {
			return
		}
		var want []schemas.Result
		for _, r := range all {
			switch {
			case r.Index < from, len(q.Outcomes) > 0 && !slices.Contains(q.Outcomes, r.Outcome), q.Code != "" && r.Code != q.Code,
				!q.Since.IsZero() && r.FinishedAt.Before(q.Since), q.Message != "" && schemas.Normalise(r.Detail) != q.Message:
			default:
				want = append(want, r)
			}
		}
		if diff := cmp.Diff(want, collect(t, l.Reader, "b1", q)); diff != "" {
			t.Errorf("%s from %d (-want +got):\n%s", query, from, diff)
		}
		if n, err := l.Count(ctx, "b1", q); err != nil || n != int64(len(want)) {
			t.Errorf("%s from %d: %d are counted, want %d: %v", query, from, n, len(want), err)
		}
	})
}
