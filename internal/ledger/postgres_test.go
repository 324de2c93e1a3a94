package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/schemas"
)

// Collectors that record the same results of the same batches, in whatever
// order, count each of them once and wait for each other in no circle.
func TestManyCollectorsOnOneLedger(t *testing.T) {
	t.Parallel()
	const collectors, batches, groups, size = 4, 3, 15, 40
	where := kinds[1].where(t)
	first := openLedger(t, where)
	var ids []string
	for b := range batches {
		ids = append(ids, fmt.Sprintf("b%d", b))
	}
	mustCreate(t, first, ids...)
	books := make([]notebook, collectors)
	var fresh [collectors]int
	var all sync.WaitGroup
	for c := range collectors {
		all.Go(func() {
			l, err := OpenWith(t.Context(), where, Options{Writer: fmt.Sprintf("c%d", c)})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = l.Close() }()
			for _, g := range rand.Perm(groups) {
				var results []schemas.Result
				for _, b := range rand.Perm(batches) {
					results = append(results, sampleResults(ids[b], int64(g*size), size)...)
				}
				rand.Shuffle(len(results), func(i, j int) { results[i], results[j] = results[j], results[i] })
				rec, err := l.Record(t.Context(), results, nil, books[c].note)
				if err != nil {
					t.Error(err)
					return
				}
				fresh[c] += rec.Fresh
				for _, b := range rec.Batches { // what stands there now is what was counted
					if b.Counts.Restored < int64(size) || b.Counts.Restored > groups*size {
						t.Errorf("%+v", b.Counts)
					}
				}
			}
		})
	}
	all.Wait()
	var total int
	for c := range collectors {
		total += fresh[c]
		if fresh[c] != len(books[c].taken) {
			t.Errorf("collector %d: %d fresh, %d noted", c, fresh[c], len(books[c].taken))
		}
		l, err := OpenWith(t.Context(), where, Options{Writer: fmt.Sprintf("c%d", c)})
		if err != nil {
			t.Fatal(err)
		}
		if pos, _, err := l.Position(t.Context()); err != nil || fresh[c] > 0 && pos != books[c].position() {
			t.Errorf("collector %d: position %+v, %v; want %+v", c, pos, err, books[c].position())
		}
		_ = l.Close()
	}
	if total != batches*groups*size {
		t.Errorf("%d fresh in all, want %d", total, batches*groups*size)
	}
	for _, id := range ids {
		if got := mustAudit(t, first.Reader, id).Restored; got != groups*size {
			t.Errorf("%s: %d results, want %d", id, got, groups*size)
		}
	}
}

// A result beyond the end may not slip in while its batch is being sealed.
func TestSealingWhileAnotherCollectorRecords(t *testing.T) {
	t.Parallel()
	where := kinds[1].where(t)
	one, two := openLedger(t, where), openLedger(t, where)
	mustCreate(t, one, "b1")
	sealed := make(chan error, 1)
	_, err := one.Record(t.Context(), sampleResults("b1", 5, 1), nil, func([]schemas.Result, []schemas.Failure) (schemas.EvidencePosition, error) {
		go func() {
			_, err := two.Seal(context.WithoutCancel(t.Context()), "b1", 3, "", at(1))
			sealed <- err
		}()
		return schemas.EvidencePosition{}, waitUntilLocked(t, one)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sealed; err == nil || !strings.Contains(err.Error(), "result of item 5") {
		t.Errorf("sealed without the result that came in meanwhile: %v", err)
	}
}

// waitUntilLocked waits until somebody waits for a row.
func waitUntilLocked(t *testing.T, l *Ledger) error {
	for t.Context().Err() == nil {
		var waiting bool
		err := l.db.queryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting)
		if err != nil || waiting {
			return err
		}
	}
	return t.Context().Err()
}

func TestAServerThatIsAway(t *testing.T) {
	t.Parallel()
	server := dbtest.StartPostgres(t)
	t.Cleanup(server.Close)
	where := server.Database(t)
	l := openLedger(t, where)
	l.db.(*postgres).timeout = 5 * time.Second
	mustCreate(t, l, "b1")
	var n notebook
	mustRecord(t, l, &n, sampleResults("b1", 0, 10))
	ask := map[string]func(context.Context) error{
		"Find":        func(ctx context.Context) error { _, _, err := l.Find(ctx, "b1"); return err },
		"Audit":       func(ctx context.Context) error { _, _, err := l.Audit(ctx, "b1"); return err },
		"SetPosition": func(ctx context.Context) error { return l.SetPosition(ctx, n.position()) },
		"Record": func(ctx context.Context) error {
			_, err := l.Record(ctx, sampleResults("b1", 5, 10), nil, n.note)
			return err
		},
		"Open": func(ctx context.Context) error {
			_, err := Open(ctx, where)
			return err
		},
	}
	for name, take := range map[string]func(){"stopped": server.Stop, "killed": server.Kill} {
		take()
		for what, ask := range ask {
			if err := ask(t.Context()); !errors.Is(err, ErrAway) {
				t.Errorf("%s: %s: got %v, want ErrAway", name, what, err)
			}
		}
		server.Start(t)
		if err := ask["Find"](t.Context()); err != nil {
			t.Errorf("after it was %s: %v", name, err)
		}
	}

	// It goes away while results are being noted: they were not recorded.
	_, err := l.Record(t.Context(), sampleResults("b1", 10, 10), nil, func([]schemas.Result, []schemas.Failure) (schemas.EvidencePosition, error) {
		server.Kill()
		return schemas.EvidencePosition{}, nil
	})
	if !errors.Is(err, ErrAway) {
		t.Errorf("got %v, want ErrAway", err)
	}
	server.Start(t)
	if rec := mustRecord(t, l, &n, sampleResults("b1", 0, 20)); rec.Fresh != 10 {
		t.Errorf("%d fresh, want 10", rec.Fresh)
	}
	mustAudit(t, l.Reader, "b1")

	// It takes connections and says nothing.
	l.db.(*postgres).timeout = 300 * time.Millisecond
	server.Freeze()
	l.db.(*postgres).pool.Reset()
	for _, what := range []string{"Find", "Record"} {
		if err := ask[what](t.Context()); !errors.Is(err, ErrAway) {
			t.Errorf("frozen: %s: got %v, want ErrAway", what, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ask["Find"](ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrAway) {
		t.Errorf("frozen, and the caller gave up: %v", err)
	}
	server.Thaw()
}

// Without statistics PostgreSQL would sort the whole batch for each page.
func TestPagesAreReadAlongAnIndex(t *testing.T) {
	t.Parallel()
	l := kinds[1].open(t)
	mustCreate(t, l, "b1")
	for from := range int64(5) {
		results := sampleResults("b1", 2000*from, 2000)
		for i := range results {
			results[i].Outcome = []schemas.Outcome{schemas.OutcomeRestored, schemas.OutcomeFailed}[i%2]
		}
		mustRecord(t, l, &notebook{}, results)
	}
	for _, f := range []schemas.ResultFilter{
		{}, {Outcomes: only(schemas.OutcomeFailed)}, {Outcomes: only(schemas.OutcomeUnchanged)}, {Code: schemas.CodeInternal},
		{Outcomes: []schemas.Outcome{schemas.OutcomeFailed, schemas.OutcomeSkipped}, Since: at(1), Message: "m"},
	} {
		statement, args := Filter{ResultFilter: f}.query(l.db.dialect())
		err := l.db.inOrder(t.Context(), func(q querier) error {
			found, err := q.query(t.Context(), `EXPLAIN `+statement, append([]any{int64(1), int64(0)}, args...)...)
			if err != nil {
				return err
			}
			defer func() { _ = found.Close() }()
			for found.Next() {
				var line string
				if err := found.Scan(&line); err != nil {
					return err
				}
				if strings.Contains(line, "Sort") || strings.Contains(line, "Seq Scan") || strings.Contains(line, "Bitmap") {
					t.Errorf("%+v: %s", f, line)
				}
			}
			return found.Err()
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestAServerThatRefusesIsNotAway(t *testing.T) {
	t.Parallel()
	where := kinds[1].where(t)
	for _, wrong := range []string{
		where[:strings.LastIndexByte(where, '/')] + "/nowhere?sslmode=disable",
		strings.Replace(where, "exhume@", "nobody@", 1),
		where + "&sslmode=sometimes",
	} {
		if _, err := Open(t.Context(), wrong); err == nil || errors.Is(err, ErrAway) {
			t.Errorf("%s: got %v", wrong, err)
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	for where, want := range map[string]string{
		"postgres://me:geheim@db.example:5433/led?password=geheim": "postgres://db.example:5433/led",
		"postgresql://me:ge%zzheim@db/led":                         "postgresql://…",
		"postgresql://db/led?sslkey=/k":                            "postgresql://db/led",
		"some/postgres://file":                                     "some/postgres://file",
	} {
		if got := shown(where); got != want {
			t.Errorf("%s is shown as %s, want %s", where, got, want)
		}
	}
	_, err := Open(t.Context(), "postgres://me:geheim@127.0.0.1:1/led")
	if err == nil || strings.Contains(err.Error(), "geheim") || !errors.Is(err, ErrAway) {
		t.Errorf("got %v", err)
	}
}

func TestTextsAreStoredWhole(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":           "",
		"plain ünï":  "plain ünï",
		"a\x00b":     "a\x1a00b",
		"\xff\x1a":   "\x1aff\x1a1a",
		"\x1a00":     "\x1a1a00",
		"日\xe6\x97x": "日\x1ae6\x1a97x",
		"\ufffd":     "\ufffd",
	} {
		got := storableText(text)
		if got != want || stored(got) != text {
			t.Errorf("%q is stored as %q, want %q; and comes back as %q", text, got, want, stored(got))
		}
	}
	// What another wrote comes back somehow.
	for _, odd := range []string{"\x1a", "a\x1az", "\x1a1", "x\x1a\x1a00"} {
		_ = stored(odd)
	}
}

// What PostgreSQL's texts do not hold can stand in batches too, and a name that
// it could not even be asked for is that of no batch.
func TestOddTexts(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		l := k.open(t)
		want := sampleBatch("b1")
		want.Actor, want.Settings.Root, want.Manifest = "a\x00b", "/r\xff", "m\x1a00"
		s, _, err := l.Create(t.Context(), want, nil)
		if diff := cmp.Diff(schemas.Summary{Batch: want}, s); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		odd := sampleResult("a\x00b\xff", 0)
		rec := mustRecord(t, l, &notebook{}, []schemas.Result{odd})
		if diff := cmp.Diff([]schemas.Result{odd}, rec.Strays); diff != "" {
			t.Error(diff)
		}
	})
}

// Each writer has an evidence log of its own.
func TestWritersHavePositionsOfTheirOwn(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		mustCreate(t, openLedger(t, where), "b1")
		want := map[string]schemas.EvidencePosition{}
		for i, writer := range []string{"", "c1", "c2"} {
			l, err := OpenWith(t.Context(), where, Options{Writer: writer})
			if err != nil {
				t.Fatal(err)
			}
			if pos, ok, err := l.Position(t.Context()); ok || err != nil {
				t.Errorf("%q has the position %+v of somebody else (%v)", writer, pos, err)
			}
			want[writer] = schemas.EvidencePosition{Offset: int64(i + 1), Seq: int64(i), Prev: "ab"}
			if err := l.SetPosition(t.Context(), want[writer]); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		for writer, pos := range want {
			l, err := OpenWith(t.Context(), where, Options{Writer: writer})
			if err != nil {
				t.Fatal(err)
			}
			if got, ok, err := l.Position(t.Context()); got != pos || !ok || err != nil {
				t.Errorf("%q: position %+v, %v, %v; want %+v", writer, got, ok, err, pos)
			}
			_ = l.Close()
		}
	})
}
