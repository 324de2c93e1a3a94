package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// world is a book and a queue in memory that write down what is done to them.
type world struct {
	batches map[string]schemas.Summary
	shown   map[string]bool
	did     []string
	fail    string // the step that fails
	away    bool   // the broker is
	// onActivate happens while a batch is activated, onRepublish while requests are
	// published again.
	onActivate  func(id string)
	onRepublish func()

	mu       sync.Mutex
	as       map[string]schemas.Batch // what workers are shown
	events   []schemas.BatchEvent
	steering schemas.Steering
	seen     schemas.Steering // by workers
	settled  bool
	results  []schemas.Result
	copied   map[string][]schemas.Request

	// left are batches that workers are not shown, and of which something is here.
	left []string
	// lost batches have no consumer; idle ones have nothing that waits or is in hand.
	lost, idle  map[string]bool
	looks       int
	made        int    // how often streams were made
	incarnation string // gone, or of what there is
	kept        []schemas.Kept
	keptTo      int64
	republished []republished
	failures    []schemas.Failure
	retries     map[int64]schemas.Retry
}

func (w *world) FailuresBetween(_ context.Context, _ string, first, last int64) (found []schemas.Failure, err error) {
	for _, f := range w.failures {
		if first <= f.Index && f.Index <= last {
			found = append(found, f)
		}
	}
	return found, nil
}

func (w *world) RetriesOf(context.Context, string, []int64) (map[int64]schemas.Retry, error) {
	return w.retries, nil
}

func (w *world) SetRetry(_ context.Context, _ string, index int64, r schemas.Retry) error {
	w.retries[index] = r
	return nil
}

// republished is one call of Republish.
type republished struct {
	Indexes    []int64
	PerMessage int
	Sample     bool
}

func (w *world) Look(_ context.Context, id string) (shown *schemas.Batch, idle bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if w.away {
		return nil, false, errStep
	}
	if b := w.as[id]; w.shown[id] && !w.lost[id] {
		shown = &b
	}
	return shown, w.idle[id], w.do("look " + id)
}

// workers are a world's queue, which has a method by a name that its book has, too.
type workers struct{ *world }

// Steering is what workers are shown.
func (w workers) Steering(context.Context) (schemas.Steering, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return schemas.Steering{}, errStep
	}
	return w.seen, nil
}

func (w *world) Republish(_ context.Context, requests []schemas.Request, perMessage int, sample bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := republished{PerMessage: perMessage, Sample: sample}
	for _, q := range requests {
		r.Indexes = append(r.Indexes, q.Index)
		w.idle[q.Batch] = false
	}
	w.republished = append(w.republished, r)
	if w.onRepublish != nil {
		w.onRepublish()
	}
	return w.do(fmt.Sprint("republish ", len(w.republished)))
}

// gone is the incarnation of streams of which some are missing.
const gone = "gone"

func (w *world) Setup(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.do("setup"); err != nil || w.incarnation != gone {
		return err
	}
	w.made++
	w.incarnation = fmt.Sprint(w.made)
	return nil
}

func (w *world) Incarnation(context.Context) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.incarnation, nil
}

func (w *world) Keep(_ context.Context, k schemas.Kept) error {
	w.kept = append(w.kept, k)
	return nil
}

func (w *world) KeptTo(context.Context, string) (int64, error) { return w.keptTo, nil }

func (w *world) DropKept(context.Context) error { return nil }

// OpenKept finds that the first items have results.
func (w *world) OpenKept(_ context.Context, id string, visit func(schemas.Kept, []int64) error) error {
	w.mu.Lock()
	done := w.batches[id].Counts.Done()
	w.mu.Unlock()
	for _, k := range w.kept {
		var open []int64
		for i := max(k.First, done); i <= k.Last; i++ {
			open = append(open, i)
		}
		if len(open) == 0 {
			continue
		}
		if err := visit(k, open); err != nil {
			return err
		}
	}
	return nil
}

func newWorld(batches ...schemas.Summary) *world {
	w := &world{batches: map[string]schemas.Summary{}, shown: map[string]bool{}, as: map[string]schemas.Batch{}, copied: map[string][]schemas.Request{},
		lost: map[string]bool{}, idle: map[string]bool{}}
	for _, s := range batches {
		w.batches[s.ID] = s
	}
	return w
}

func (w *world) control(t *testing.T) (*Control, error) {
	t.Helper()
	return New(t.Context(), w, workers{w}, w, w, w.finish, w.submit, zerolog.Nop())
}

func mustControl(t *testing.T, w *world) *Control {
	t.Helper()
	c, err := w.control(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.copies.wait)
	return c
}

func (w *world) submit(ctx context.Context, c *Control, b schemas.Batch, items iter.Seq2[schemas.Request, error], total int64) error {
	var all []schemas.Request
	for r, err := range items {
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	w.mu.Lock()
	w.copied[b.ID] = all
	w.mu.Unlock()
	_, err := c.Seal(ctx, b.ID, total, "")
	return err
}

func (w *world) Change(
	_ context.Context, id, eventID string, decide func(*schemas.Summary) (*schemas.BatchEvent, error),
) (schemas.Summary, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.batches[id]
	for _, e := range w.events {
		if eventID != "" && e.ID == eventID {
			return s, false, nil
		}
	}
	e, err := decide(&s)
	if err != nil || e == nil {
		return w.batches[id], false, err
	}
	e.ID = eventID
	w.events = append(w.events, *e)
	w.batches[id] = s
	return s, true, w.do("change " + id)
}

func (w *world) Steer(_ context.Context, _ schemas.Command, change func(*schemas.Steering) error) (schemas.Steering, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := change(&w.steering)
	return w.steering, err
}

func (w *world) Steering(context.Context) (schemas.Steering, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.steering, nil
}

func (w *world) SetSteering(_ context.Context, s schemas.Steering) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail == "steer" || w.away {
		return errStep
	}
	w.seen = s
	return nil
}

func (w *world) Settled(context.Context, string) (bool, error) { return w.settled, nil }

var errStep = errors.New("step failed")

func (w *world) do(step string) error {
	w.did = append(w.did, step)
	if step == w.fail {
		return errStep
	}
	return nil
}

func (w *world) Begin(_ context.Context, b schemas.Batch) (schemas.Summary, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.batches[b.ID]; ok {
		return s, nil
	}
	w.batches[b.ID] = schemas.Summary{Batch: b}
	return w.batches[b.ID], w.do("begin " + b.ID)
}

func (w *world) Seal(_ context.Context, id string, total int64, _ string) (schemas.Summary, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.batches[id]
	if !s.State.Final() {
		s.Total, s.SealedAt = total, time.Unix(1, 0)
		s.Apply(schemas.ChangeSeal, schemas.Standing{}, time.Unix(1, 0))
		w.batches[id] = s
	}
	return s, w.do("seal " + id)
}

func (w *world) Active(context.Context) (out []schemas.Summary, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(w.batches)) {
		if !w.batches[id].State.Final() {
			out = append(out, w.batches[id])
		}
	}
	return out, nil
}

func (w *world) Find(_ context.Context, id string) (schemas.Summary, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.batches[id]
	return s, ok, nil
}

func (w *world) Activate(_ context.Context, b schemas.Batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.onActivate != nil {
		w.onActivate(b.ID)
	}
	if w.away {
		return errStep
	}
	w.shown[b.ID], w.as[b.ID], w.lost[b.ID] = true, b, false
	return w.do("activate " + b.ID)
}

func (w *world) Activated(context.Context) (shown, others []string, err error) {
	return slices.Sorted(maps.Keys(w.shown)), w.left, nil
}

func (w *world) Retire(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.shown, id)
	return w.do("retire " + id)
}

func (w *world) finish(_ context.Context, s schemas.Summary) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Complete() {
		s.Apply(schemas.ChangeComplete, schemas.Standing{}, time.Unix(2, 0))
		w.batches[s.ID] = s
		delete(w.shown, s.ID)
		return w.do("finish " + s.ID)
	}
	return nil
}

func summary(id string, state schemas.State, total, done int64) schemas.Summary {
	s := schemas.Summary{Batch: schemas.Batch{ID: id, State: state, Total: total}, Counts: schemas.Counts{Restored: done}}
	if state != schemas.StateOpen {
		s.SealedAt = time.Unix(1, 0)
	}
	return s
}

func (w *world) show(ids []string) {
	for _, id := range ids {
		if left, ok := strings.CutPrefix(id, "left "); ok {
			w.left = append(w.left, left)
		} else {
			w.shown[id] = true
		}
	}
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		batches []schemas.Summary
		shown   []string
		want    []string
	}{
		{"nothing", nil, nil, nil},
		{"open and not shown", []schemas.Summary{summary("b", schemas.StateOpen, 0, 0)}, nil, []string{"activate b"}},
		{"running and shown", []schemas.Summary{summary("b", schemas.StateRunning, 5, 2)}, []string{"b"}, []string{"activate b"}},
		{"complete and not ended", []schemas.Summary{summary("b", schemas.StateRunning, 5, 5)}, []string{"b"}, []string{"activate b", "finish b"}},
		{"open with all results", []schemas.Summary{summary("b", schemas.StateOpen, 0, 5)}, nil, []string{"activate b"}},
		{"ended and shown", []schemas.Summary{summary("b", schemas.StatePartial, 5, 4)}, []string{"b"}, []string{"retire b"}},
		{"ended", []schemas.Summary{summary("b", schemas.StateSucceeded, 5, 5)}, nil, nil},
		{"unknown and left behind", nil, []string{"left b"}, []string{"retire b"}},
		{"single requests of before the first Stand", nil, []string{schemas.Single}, nil},
		{"all at once", []schemas.Summary{
			summary("a", schemas.StateOpen, 0, 0), summary("b", schemas.StateFailed, 1, 0), summary("c", schemas.StateRunning, 0, 0),
		}, []string{"a", "b", "left d"}, []string{"retire b", "retire d", "activate a", "activate c", "finish c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(c.batches...)
			w.show(c.shown)
			if _, err := w.control(t); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, w.did); diff != "" {
				t.Error(diff)
			}
			for _, step := range c.want { // every failure comes out
				fw := newWorld(c.batches...)
				fw.fail = step
				fw.show(c.shown)
				if _, err := fw.control(t); !errors.Is(err, errStep) {
					t.Errorf("%s fails: got error %v", step, err)
				}
			}
		})
	}
}

// Batches that workers are shown and the ledger does not know are left alone: it is
// the ledger that was lost.
func TestLedgerThatWasLost(t *testing.T) {
	t.Parallel()
	w := newWorld(summary("a", schemas.StateRunning, 5, 2))
	w.show([]string{"a", "b", "c", schemas.Single, "left d"})
	_, err := w.control(t)
	if !fault.Is(err, schemas.CodeLedgerLost) || !strings.Contains(err.Error(), "2 batches that the ledger does not know (b, c)") ||
		!strings.Contains(err.Error(), "exhume ledger rebuild") {
		t.Errorf("%v", err)
	}
	if len(w.did) > 0 {
		t.Errorf("did %v", w.did)
	}
}

func TestOpenAndSeal(t *testing.T) {
	t.Parallel()
	w := newWorld()
	c, err := w.control(t)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Open(t.Context(), schemas.Batch{ID: "b", State: schemas.StateFailed})
	if err != nil || s.State != schemas.StateOpen || s.CreatedAt.IsZero() || !w.shown["b"] {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err = c.Seal(t.Context(), "b", 0, ""); err != nil || w.shown["b"] {
		t.Errorf("an empty batch does not end: %v, %v", err, w.did)
	}
	before := len(w.did)
	if s, err = c.Open(t.Context(), schemas.Batch{ID: "b"}); err != nil || !s.State.Final() {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = c.Seal(t.Context(), "b", 0, ""); err != nil || !s.State.Final() {
		t.Errorf("%+v, %v", s, err)
	}
	if did := strings.Join(w.did[before:], ","); did != "seal b,retire b" {
		t.Errorf("an ended batch: %s", did)
	}
}

// A batch that ends while it is shown again does not stay.
func TestBatchEndsWhileItIsOpened(t *testing.T) {
	t.Parallel()
	w := newWorld(summary("b", schemas.StateRunning, 2, 1))
	c, err := w.control(t)
	if err != nil {
		t.Fatal(err)
	}
	w.onActivate = func(id string) { w.batches[id] = summary(id, schemas.StateSucceeded, 2, 2) }
	if _, err := c.Open(t.Context(), schemas.Batch{ID: "b"}); err != nil || w.shown["b"] {
		t.Errorf("%v, shown %v", err, w.shown)
	}
}
