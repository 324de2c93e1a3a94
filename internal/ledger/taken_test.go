package ledger

import (
	"testing"

	"github.com/exhume/exhume/schemas"
)

// What a copy of its batch tries again is no dead letter any more, unless all are
// asked for.
func TestTakenLetters(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l, all := someLetters(t, k)
		for _, source := range []schemas.Source{
			{Batch: "old", ResultFilter: schemas.ResultFilter{Outcomes: only(schemas.OutcomeFailed)}},
			{Batch: "large", ResultFilter: schemas.ResultFilter{Code: schemas.CodeDecodeFailed}},
			{Batch: "new", Limit: 1}, // which, is not known
			{Batch: "new", ResultFilter: schemas.ResultFilter{Outcomes: only(schemas.OutcomeCancelled)}}, // none of them
		} {
			_, _, err := l.Create(t.Context(), schemas.Batch{ID: "copy-" + source.Batch + string(source.Code) + string(rune('a'+source.Limit)), Source: &source}, nil)
			if err != nil {
				t.Fatal(err)
			}
		}
		left := 0
		for _, r := range all {
			if r.Batch == "new" || r.Batch == "large" && r.Code != schemas.CodeDecodeFailed {
				left++
			}
		}
		for everything, want := range map[bool]int{true: len(all), false: left} {
			got, q := 0, schemas.LettersQuery{All: everything, Limit: 300}
			for more := true; more; {
				page, err := l.Letters(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				got += len(page.Letters)
				q.After = page.Next
				more = q.After != ""
			}
			groups, err := l.LetterGroups(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			counted := 0
			for _, g := range groups {
				counted += int(g.Count)
			}
			if got != want || counted != want {
				t.Errorf("all %v: %d letters, %d in groups, want %d", everything, got, counted, want)
			}
		}
	})
}
