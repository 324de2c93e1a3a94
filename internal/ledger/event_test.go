package ledger

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// mustEvents gives all events of a batch. Their numbers have no gaps.
func mustEvents(t testing.TB, r *Reader, id string) []schemas.BatchEvent {
	t.Helper()
	events, err := r.Events(context.Background(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.No != int64(i+1) || e.Batch != id {
			t.Errorf("event %d of %s is %+v", i+1, id, e)
		}
	}
	return events
}

// wantEvents compares the events of a batch, each as a change and the state that
// it led to.
func wantEvents(t testing.TB, r *Reader, id string, want ...string) {
	t.Helper()
	var got []string
	for _, e := range mustEvents(t, r, id) {
		got = append(got, fmt.Sprintf("%s %s", e.Change, e.To))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events of %s: %s", id, diff)
	}
}

func TestEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "b2")
		for i := range 4 {
			mustChange(t, l, "b1", fmt.Sprint("p", i), schemas.ChangePause)
		}
		numbers := func(limit int) (all string) {
			events, err := l.Events(t.Context(), "b1", limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				all += fmt.Sprint(e.No)
			}
			return all
		}
		for limit, want := range map[int]string{0: "12345", 2: "45", 5: "12345", 9: "12345"} {
			if got := numbers(limit); got != want {
				t.Errorf("of %d events got %s, want %s", limit, got, want)
			}
		}
		wantEvents(t, l.Reader, "b2", "open open")
	})
}

func TestEventsAreToldOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		untold := func(limit int, want ...string) {
			t.Helper()
			events, err := l.Untold(t.Context(), limit)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, e := range events {
				ids = append(ids, e.ID)
			}
			if diff := cmp.Diff(want, ids); diff != "" {
				t.Error(diff)
			}
		}
		untold(10)
		mustCreate(t, l, "b0")
		if err := l.TellFromNow(t.Context(), at(1)); err != nil {
			t.Fatal(err)
		}
		untold(10)
		mustCreate(t, l, "b2", "b1")
		mustChange(t, l, "b2", "c\x00", schemas.ChangeCancel)
		untold(10, "b2:open", "b1:open", "c\x00")
		untold(2, "b2:open", "b1:open")
		for range 2 {
			if err := l.Told(t.Context(), []string{"c\x00", "b2:open", "unknown"}, at(2)); err != nil {
				t.Fatal(err)
			}
			untold(10, "b1:open")
		}
		if err := l.Told(t.Context(), nil, at(2)); err != nil {
			t.Fatal(err)
		}
		untold(10, "b1:open")
		if len(mustEvents(t, l.Reader, "b2")) != 2 {
			t.Error("what was told is gone")
		}
	})
}

// Events are looked for while batches go on: not by reading them all.
func TestEventsAreReadAlongAnIndex(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		for _, rest := range []string{`WHERE told_at IS NULL ORDER BY seq LIMIT 5`, `WHERE batch_no = 1 ORDER BY no DESC LIMIT 5`} {
			plan := explain(t, l, `SELECT body FROM event `+rest)
			if !strings.Contains(plan, "event_untold") && !strings.Contains(plan, "batch_no") || strings.Contains(plan, "Sort") || strings.Contains(plan, "TEMP") {
				t.Errorf("%s: %s", rest, plan)
			}
		}
	})
}

// explain says how the database goes about a question that is asked inOrder.
func explain(t *testing.T, l *Ledger, statement string, args ...any) (plan string) {
	t.Helper()
	_, lite := l.db.(*sqlite)
	explain := `EXPLAIN `
	if lite {
		explain = `EXPLAIN QUERY PLAN `
	}
	err := l.db.inOrder(t.Context(), func(q querier) error {
		found, err := q.query(t.Context(), explain+statement, args...)
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		for found.Next() {
			var line string
			to := []any{&line}
			if lite {
				to = []any{new(int), new(int), new(int), &line}
			}
			if err := found.Scan(to...); err != nil {
				return err
			}
			plan += line + "\n"
		}
		return found.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}
