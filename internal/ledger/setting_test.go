package ledger

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/exhume/exhume/schemas"
)

func TestSettings(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		notes := 0
		note := func() (schemas.EvidencePosition, error) {
			notes++
			return schemas.EvidencePosition{Seq: int64(notes)}, nil
		}
		wrong := errors.New("wrong")
		for i, tc := range []struct {
			old, value string
			err, noted error
			notes      int
		}{
			{"", "", nil, nil, 0},
			{"", "", wrong, nil, 0},
			{"", "x", nil, wrong, 0},
			{"", `{"a":"\u0000<"}`, nil, nil, 1},
			{`{"a":"\u0000<"}`, `{"a":"\u0000<"}`, nil, nil, 1},
			{`{"a":"\u0000<"}`, "a\x00b", nil, nil, 2},
			{"a\x00b", "", nil, nil, 3},
		} {
			got, err := l.ChangeSetting(t.Context(), "s", func(old string) (string, error) {
				if old != tc.old {
					t.Errorf("%d: was %q, want %q", i, old, tc.old)
				}
				return tc.value, tc.err
			}, func() (schemas.EvidencePosition, error) {
				if tc.noted != nil {
					return schemas.EvidencePosition{}, tc.noted
				}
				return note()
			})
			want := tc.value
			if failed := errors.Join(tc.err, tc.noted); failed != nil {
				want = tc.old
				if !errors.Is(err, wrong) || got != "" {
					t.Errorf("%d: got %q, %v; want the error", i, got, err)
				}
			} else if err != nil || got != want {
				t.Errorf("%d: got %q, %v", i, got, err)
			}
			value, found, err := l.Setting(t.Context(), "s")
			if err != nil || value != want || found != (want != "") || notes != tc.notes {
				t.Errorf("%d: set is %q, %v, %v, noted %d times", i, value, found, err, notes)
			}
		}
		if _, found, err := l.Setting(t.Context(), "other"); found || err != nil {
			t.Error(found, err)
		}
		if pos, _, err := l.Position(t.Context()); err != nil || pos.Seq != 3 {
			t.Errorf("position %+v, %v", pos, err)
		}
	})
}

// Collectors that change a setting at once lose nothing of each other.
func TestManyChangeOneSetting(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		first := openLedger(t, where)
		const collectors, times = 4, 20
		var all sync.WaitGroup
		for c := range collectors {
			l, err := OpenWith(t.Context(), where, Options{Writer: fmt.Sprint("c", c)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			all.Go(func() {
				for range times {
					_, err := l.ChangeSetting(t.Context(), "n", func(old string) (string, error) {
						n, _ := strconv.Atoi(old)
						return strconv.Itoa(n + 1), nil
					}, nil)
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if got, _, err := first.Setting(t.Context(), "n"); err != nil || got != strconv.Itoa(collectors*times) {
			t.Errorf("got %s, %v", got, err)
		}
	})
}
