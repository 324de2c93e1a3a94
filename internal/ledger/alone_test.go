package ledger

import (
	"errors"
	"strings"
	"testing"

	"github.com/exhume/exhume/schemas"
)

// Whoever is alone in a ledger keeps others from writing, and is not let in while
// somebody writes.
func TestAlone(t *testing.T) {
	t.Parallel()
	where := kinds[1].where(t)
	l := openLedger(t, where)
	mustCreate(t, l, "b1")
	alone := func() (*Ledger, error) { return OpenWith(t.Context(), where, Options{Writer: "alone", Alone: true}) }
	_, err := l.Record(t.Context(), sampleResults("b1", 0, 1), nil, func([]schemas.Result, []schemas.Failure) (schemas.EvidencePosition, error) {
		if _, err := alone(); !errors.Is(err, ErrInUse) {
			t.Errorf("while somebody writes: %v", err)
		}
		return schemas.EvidencePosition{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := alone()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone(); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	mustCreate(t, a, "b2")
	if _, err := l.Record(t.Context(), sampleResults("b1", 1, 1), nil, nil); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "being rebuilt") {
		t.Errorf("beside it: %v", err)
	}
	if n, err := l.Writers(t.Context()); err != nil || n != 1 { // reading goes on
		t.Errorf("%d, %v", n, err)
	}

	// It is alone no more when it has lost its connection, and knows it.
	var lost bool
	err = l.db.queryRow(t.Context(), `SELECT pg_terminate_backend($1)`, int(a.db.(*postgres).alone.PgConn().PID())).Scan(&lost)
	if err != nil || !lost {
		t.Fatal(lost, err)
	}
	if _, _, err := a.Create(t.Context(), sampleBatch("b3"), nil); err == nil || !strings.Contains(err.Error(), "others can write again") {
		t.Errorf("without its connection: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Record(t.Context(), sampleResults("b1", 1, 1), nil, nil); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// A trial may stand still for as long as it takes to read what is tried out.
func TestTrialsMayStandStill(t *testing.T) {
	t.Parallel()
	where := kinds[1].where(t)
	openLedger(t, where)
	l, err := OpenTrial(t.Context(), where, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	var limit string
	if err := l.db.queryRow(t.Context(), `SHOW idle_in_transaction_session_timeout`).Scan(&limit); err != nil || limit != "0" {
		t.Errorf("%q, %v", limit, err)
	}
}

func TestRecorded(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		mustCreate(t, l, "b1", "b2")
		mustRecord(t, l, &notebook{}, sampleResults("b1", 0, 1200))
		asked := []int64{-1, 0, 1200, 1 << 50}
		for i := range int64(600) {
			asked = append(asked, i*2+1)
		}
		got, err := l.Recorded(t.Context(), "b1", asked)
		if err != nil || len(got) != 1+600 {
			t.Errorf("%d, %v", len(got), err)
		}
		if got, err := l.Recorded(t.Context(), "b2", asked); err != nil || len(got) != 0 {
			t.Errorf("%v, %v", got, err)
		}
		if _, err := l.Recorded(t.Context(), "b3", asked); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v", err)
		}
	})
}

func TestForgetWriters(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		first := openLedger(t, where)
		for _, name := range []string{"a", "b", "c", "d"} {
			l := &Ledger{&Reader{name: where, writer: name, db: first.db}}
			if err := l.SetPosition(t.Context(), schemas.EvidencePosition{Offset: 5}); err != nil {
				t.Fatal(err)
			}
		}
		l := &Ledger{&Reader{name: where, writer: "a", db: first.db}}
		for range 2 {
			if err := l.ForgetWriters(t.Context(), []string{"c", "x"}); err != nil {
				t.Fatal(err)
			}
			if n, err := l.Writers(t.Context()); err != nil || n != 2 {
				t.Errorf("%d, %v", n, err)
			}
		}
		for name, want := range map[string]bool{"a": true, "b": false, "c": true, "d": false} {
			if _, known, err := l.PositionOf(t.Context(), name); err != nil || known != want {
				t.Errorf("%s: %v, %v", name, known, err)
			}
		}
	})
}
