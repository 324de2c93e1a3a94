package worker

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// deadly is a restorer whose process dies of some items.
type deadly struct {
	slow
	of   []int64
	died chan struct{}
}

func (r *deadly) Restore(ctx context.Context, s schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	if slices.ContainsFunc(items, func(i schemas.Request) bool { return slices.Contains(r.of, i.Index) }) {
		select {
		case r.died <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return r.slow.Restore(ctx, s, items)
}

// blamed are the indexes of items that count as killers of workers.
func (s *shelf) blamed() (indexes []int64) {
	for _, r := range s.results {
		if r.Code == schemas.CodeWorkerKiller {
			indexes = append(indexes, r.Index)
		}
	}
	slices.Sort(indexes)
	return indexes
}

// marks is how many items have marks.
func (s *shelf) marks() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.retries {
		if deaths(r) > 0 {
			n++
		}
	}
	return n
}

func TestItemsThatKillWorkers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		killers    []int64
		perMessage int
		deaths     int
	}{
		{"none", nil, 10, 0},
		{"one", []int64{137}, 10, 4},
		{"one, alone in its message", []int64{137}, 1, 4},
		{"two", []int64{5, 250}, 10, 8},
		{"three together", []int64{40, 41, 42}, 10, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShelf()
				s.put(schemas.Batch{ID: "b"}, 300, c.perMessage)
				deaths := 0
				for s.done("b") < 300 {
					r := &deadly{slow: slow{took: time.Millisecond}, of: c.killers, died: make(chan struct{}, 1)}
					p := s.run(t, Config{}, r)
					select {
					case <-r.died:
						deaths++
						p.kill()
					case <-time.After(30 * time.Second):
						p.stop()
					}
					if deaths > 50 {
						t.Fatal("there is no end to it")
					}
				}
				if deaths > c.deaths {
					t.Errorf("%d workers died, want %d", deaths, c.deaths)
				}
				if diff := cmp.Diff(c.killers, s.blamed()); diff != "" {
					t.Error(diff)
				}
				for _, r := range s.results {
					want := schemas.Result{Outcome: schemas.OutcomeRestored, Attempts: 1}
					if slices.Contains(c.killers, r.Index) {
						want = schemas.Result{Outcome: schemas.OutcomeFailed, Attempts: 0}
					}
					if r.Outcome != want.Outcome || r.Attempts != want.Attempts {
						t.Errorf("item %d: %s after %d attempts", r.Index, r.Outcome, r.Attempts)
					}
				}
			})
		})
	}
}

// Workers that are killed from outside are nobody's fault, however often that is.
func TestKilledWorkersBlameNobody(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		lives func() time.Duration
	}{
		{"at once", func() time.Duration { return rand.N(20 * time.Millisecond) }},
		{"soon", func() time.Duration { return rand.N(300 * time.Millisecond) }},
		{"when calm has just come", func() time.Duration { return calm + rand.N(30*time.Millisecond) }},
		{"now and then", func() time.Duration { return rand.N(30 * time.Second) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShelf()
				r := &slow{took: 5 * time.Millisecond}
				const n = 2000
				s.put(schemas.Batch{ID: "b"}, n, 4)
				for kills := 0; kills < 100 && s.done("b") < n; kills++ {
					p := s.run(t, Config{GroupSize: 64}, r)
					time.Sleep(c.lives()) // of the bubble's clock
					p.kill()
				}
				p := s.run(t, Config{GroupSize: 64}, r)
				time.Sleep(calm + time.Minute)
				p.stop()
				if got := s.blamed(); len(got) > 0 || s.done("b") != n {
					t.Errorf("%d of %d items done, and blamed are %v", s.done("b"), n, got)
				}
				if m := s.marks(); m != 0 {
					t.Errorf("%d items are marked in the end", m)
				}
			})
		})
	}
}

// Nor do suspects pay for that each worker is killed while it tries one of them.
func TestWorkersKilledBesideSuspects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		const n, kills = 2000, 10
		s.put(schemas.Batch{ID: "b"}, n, 4)
		s.change(func() {
			for m := range s.all() {
				m.deliveries = maxDeliveries
			}
		})
		r := &slow{took: 5 * time.Millisecond}
		for range kills {
			p := s.run(t, Config{GroupSize: 64}, r)
			time.Sleep(time.Second/4 + rand.N(time.Second/4))
			p.kill()
		}
		if marks := s.marks(); marks < kills/2 {
			t.Errorf("only %d items were marked by %d kills", marks, kills)
		}
		p := s.run(t, Config{GroupSize: 64}, r)
		time.Sleep(calm + time.Minute)
		p.stop()
		if got := s.blamed(); len(got) > 0 || s.marks() > 0 || s.done("b") != n {
			t.Errorf("%d of %d done, blamed are %v, and %d marked in the end", s.done("b"), n, got, s.marks())
		}
	})
}

// A suspect has its mark only while it is tried: who is stopped while what it
// needs is away leaves none.
func TestMarksDuringAnOutage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		items  int
		marked bool
	}{{"several suspects", 3, false}, {"one that was marked", 1, true}} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShelf()
				s.put(schemas.Batch{ID: "b"}, c.items, 1)
				s.change(func() {
					for m := range s.all() {
						m.deliveries = 7
					}
					if c.marked {
						s.retries["b:0"] = marked(schemas.Retry{})
					}
				})
				var mu sync.Mutex
				away := true
				r := restorerFunc(func(context.Context, schemas.Request) error {
					mu.Lock()
					defer mu.Unlock()
					if n := s.marks(); n != 1 {
						t.Errorf("%d items are marked during a try", n)
					}
					if away {
						return fault.New(schemas.CodeArchiveDown, "refused")
					}
					return nil
				})
				down := func(context.Context) error { return fault.New(schemas.CodeArchiveDown, "refused") }
				p := s.run(t, Config{Prober: probes{archive: down}}, r)
				time.Sleep(calm + time.Minute)
				synctest.Wait()
				if n := s.marks(); n != 0 {
					t.Errorf("%d items are marked during an outage", n)
				}
				st := p.Status(schemas.WorkerQuestion{})
				if b := st.Breakers[0]; st.Items == 0 || b.State == schemas.BreakerClosed || b.Reason != "refused" || time.Since(b.Since) < 50*time.Second {
					t.Errorf("status %+v", st)
				}
				p.kill()
				mu.Lock()
				away = false
				mu.Unlock()
				p = s.run(t, Config{}, r)
				time.Sleep(calm + time.Minute)
				p.stop()
				if s.done("b") != c.items || len(s.blamed()) > 0 || s.marks() > 0 {
					t.Errorf("%d done, blamed %v, marked %d", s.done("b"), s.blamed(), s.marks())
				}
			})
		})
	}
}

// Once a worker has survived an item, what was there before does not count.
func TestMarksAreForgotten(t *testing.T) {
	t.Parallel()
	h := &hold{shelf: newShelf()}
	var marks []int
	w, err := New(Config{Name: "w"}, h, h, restorerFunc(func(context.Context, schemas.Request) error {
		past, err := h.Retry(t.Context(), "b", 0)
		marks = append(marks, past.Deaths)
		return err
	}), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	a := newAlone(t.Context(), w, []held{{request: group(1)[0], past: &schemas.Retry{Deaths: 1}}})
	for range 2 {
		if _, err := a.Restore(t.Context(), schemas.Settings{}, group(1)); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]int{2, 1}, marks); diff != "" || h.marks() != 0 {
		t.Errorf("%s; %d marked in the end", diff, h.marks())
	}
}

// Nothing else is tried beside a suspect, so that it pays for nobody else.
func TestSuspectsAreTriedAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShelf()
		s.put(schemas.Batch{ID: "b"}, 5, 1)
		s.change(func() {
			for m := range s.all() {
				m.deliveries = 2
			}
		})
		s.put(schemas.Batch{ID: "other"}, 20_000, 50)
		var mu sync.Mutex
		running := map[string]int{}
		r := restoreFunc(func(ctx context.Context, items []schemas.Request) {
			b := items[0].Batch
			mu.Lock()
			running[b]++
			if b == "b" && len(items) > 1 || running["b"] > 1 || running["b"] > 0 && running["other"] > 0 {
				t.Errorf("%d items of %s at once: %v", len(items), b, running)
			}
			mu.Unlock()
			_ = lasts(ctx, 20*time.Millisecond+rand.N(time.Second))
			mu.Lock()
			running[b]--
			mu.Unlock()
		})
		p := s.run(t, Config{GroupSize: 100}, r)
		time.Sleep(5 * time.Minute)
		p.stop()
		if s.done("b") != 5 || s.done("other") != 20_000 || s.repeated > 0 {
			t.Errorf("%d and %d done, %d repeated", s.done("b"), s.done("other"), s.repeated)
		}
	})
}

// restoreFunc is a restorer made of one function for each group.
type restoreFunc func(ctx context.Context, items []schemas.Request)

func (f restoreFunc) Restore(ctx context.Context, _ schemas.Settings, items []schemas.Request) ([]schemas.Result, error) {
	f(ctx, items)
	return restored(items), ctx.Err()
}

// restored are the results of items that were restored.
func restored(items []schemas.Request) []schemas.Result {
	out := make([]schemas.Result, len(items))
	for i := range items {
		out[i] = schemas.Result{Request: items[i], Outcome: schemas.OutcomeRestored}
	}
	return out
}

// Retries bring a message again, too, and cast no suspicion on it.
func TestWhoIsASuspect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		deliveries, items, attempts int
		want                        bool
	}{
		{1, 1, 0, false}, {2, 1, 0, false}, {3, 1, 0, true}, {5, 1, 4, false}, {5, 1, 3, false}, {6, 1, 3, true},
		{2, 50, 0, false}, {3, 50, 0, true}, {3, 50, 2, true},
	} {
		h := held{of: &taken{Message: &delivered{deliveries: c.deliveries}, items: c.items}, past: &schemas.Retry{Attempts: c.attempts}}
		if got := h.suspect(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// Records of earlier versions tell of deaths among the causes.
func TestDeathsInOldRecords(t *testing.T) {
	t.Parallel()
	old := schemas.Retry{Attempts: 1, Causes: []schemas.Code{schemas.CodeArchiveBusy, schemas.CodeWorkerKiller}}
	if n := deaths(old); n != 1 {
		t.Errorf("%d deaths", n)
	}
	want := schemas.Retry{Attempts: 1, Causes: []schemas.Code{schemas.CodeArchiveBusy}, Deaths: 2}
	if diff := cmp.Diff(want, marked(old)); diff != "" {
		t.Error(diff)
	}
	want.Deaths = 0
	if diff := cmp.Diff(want, cleared(marked(old))); diff != "" {
		t.Error(diff)
	}
	if n := len(old.Causes); n != 2 {
		t.Errorf("the record itself was changed: %v", old.Causes)
	}
}
