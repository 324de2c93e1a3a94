package producer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// restarting is a control API whose collector is away now and then.
type restarting struct {
	*fakeFleet
	// away says of a call whether it finds nobody, then for how long.
	away  map[string]time.Duration
	since map[string]time.Time
}

func (r *restarting) gone(call string) error {
	for name, d := range r.away {
		if name == call && r.since[name].IsZero() {
			r.since[name] = time.Now() // from now on everybody finds nobody
		}
		if at := r.since[name]; !at.IsZero() && time.Since(at) < d {
			return fault.New(schemas.CodeNoCollector, "no collector answers")
		}
	}
	return nil
}

func (r *restarting) Open(ctx context.Context, b schemas.Batch) (schemas.Summary, error) {
	if err := r.gone("open"); err != nil {
		return schemas.Summary{}, err
	}
	return r.fakeFleet.Open(ctx, b)
}

func (r *restarting) Kept(ctx context.Context, id string) (int64, error) {
	if err := r.gone("kept"); err != nil {
		return 0, err
	}
	return r.fakeFleet.Kept(ctx, id)
}

func (r *restarting) Keep(ctx context.Context, k schemas.Kept) error {
	if err := r.gone("keep"); err != nil {
		return err
	}
	return r.fakeFleet.Keep(ctx, k)
}

func (r *restarting) Seal(ctx context.Context, id string, total int64, sha string) (schemas.Summary, error) {
	if err := r.gone("seal"); err != nil {
		return schemas.Summary{}, err
	}
	return r.fakeFleet.Seal(ctx, id, total, sha)
}

// A collector that restarts holds a submission up, whatever it was about to do, and
// everything is kept.
func TestSubmitWhileTheCollectorRestarts(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"open", "kept", "keep", "seal"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &restarting{fakeFleet: &fakeFleet{}, since: map[string]time.Time{}, away: map[string]time.Duration{call: 30 * time.Second}}
				var told []string
				s := submission(3000, 3000)
				s.Waiting = func(reason error) { told = append(told, reasonText(reason)) }
				start := time.Now()
				_, err := Submit(t.Context(), r, r.fakeFleet, s)
				if call == "open" { // whoever begins is told at once
					if !fault.Is(err, schemas.CodeNoCollector) || time.Since(start) > 0 {
						t.Errorf("%v after %s", err, time.Since(start))
					}
					return
				}
				if err != nil || r.sealed != 3000 || len(r.stored) != 3000 {
					t.Fatalf("%v: sealed %d, %d are published", err, r.sealed, len(r.stored))
				}
				r.checkKept(t, 3000)
				if n := len(told); n < 4 || n > 8 || told[0] != "no collector answers" || told[n-1] != "on" {
					t.Errorf("told %q", told)
				}
			})
		})
	}
}

// One that stays away is not waited for for ever.
func TestSubmitWithoutACollector(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"kept", "keep", "seal"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &restarting{fakeFleet: &fakeFleet{}, since: map[string]time.Time{}, away: map[string]time.Duration{call: time.Hour}}
				start := time.Now()
				_, err := Submit(t.Context(), r, r.fakeFleet, submission(3000, 3000))
				if took := time.Since(start); !fault.Is(err, schemas.CodeNoCollector) || took < awayFor || took > awayFor+2*maxWait {
					t.Errorf("%v after %s", err, took)
				}
			})
		})
	}
}

// fullQueue has room for so many requests, and for as many again every so often
// since it began.
type fullQueue struct {
	*fakeFleet
	room  int
	every time.Duration
	began time.Time
	calls int
	// silent is how often it does not tell what is stored.
	silent int
}

var errFull = fault.New(schemas.CodeBrokerFull, "the queue is full")

func (q *fullQueue) publish(requests []schemas.Request, stored *[]int64) error {
	q.calls++
	n := min(len(requests), q.room*(1+int(time.Since(q.began)/q.every))-len(q.stored)-len(q.sample))
	for _, r := range requests[:n] {
		*stored = append(*stored, r.Index)
	}
	if n < len(requests) {
		return errFull
	}
	return nil
}

func (q *fullQueue) LastIndex(context.Context, string) (int64, error) {
	if q.silent > 0 && q.calls > 0 {
		q.silent--
		return 0, errors.New("no responders available for request")
	}
	return slices.Max(append(q.stored, -1)), nil
}

func (q *fullQueue) Publish(_ context.Context, requests []schemas.Request, _ int) error {
	return q.publish(requests, &q.stored)
}

func (q *fullQueue) PublishCanary(_ context.Context, requests []schemas.Request) error {
	return q.publish(requests, &q.sample)
}

// While the queue is full publication waits, says why now and then, does not spin,
// and publishes nothing twice.
func TestSubmitWaitsForRoom(t *testing.T) {
	t.Parallel()
	for name, canary := range map[string]*schemas.Canary{"all": nil, "sample": {Size: 700}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := &fullQueue{fakeFleet: &fakeFleet{}, room: 500, every: 20 * time.Second, began: time.Now()}
				var told []string
				start := time.Now()
				s := Submission{
					Batch: schemas.Batch{ID: "b", Terms: schemas.Terms{Canary: canary}}, Items: itemsTo(2000), Total: 2000,
					Waiting: func(reason error) {
						told = append(told, time.Since(start).Round(5*time.Second).String()+" "+reasonText(reason))
					},
				}
				got, err := Submit(t.Context(), q.fakeFleet, q, s)
				if err != nil || got.Published != 2000 || q.sealed != 2000 {
					t.Fatalf("published %d, sealed %d, %v", got.Published, q.sealed, err)
				}
				all := slices.Sorted(slices.Values(append(q.stored, q.sample...)))
				for i, index := range all {
					if index != int64(i) {
						t.Fatalf("request %d stands where %d should", index, i)
					}
				}
				if took := time.Since(start); took < 60*time.Second || took > 70*time.Second || q.calls > 80 {
					t.Errorf("took %s, with %d calls", took, q.calls)
				}
				if n := len(told); n < 12 || n > 18 || told[0] != "0s full" || !slices.ContainsFunc(told, func(s string) bool { return strings.HasSuffix(s, " on") }) {
					t.Errorf("told %d times: %v", n, told)
				}
			})
		})
	}
}

func reasonText(reason error) string {
	switch {
	case reason == nil:
		return "on"
	case errors.Is(reason, errFull):
		return "full"
	}
	return reason.Error()
}

// Waiting ends with the context, and the same call goes on where it stopped.
func TestSubmitStopsWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := &fullQueue{fakeFleet: &fakeFleet{}, room: 100, every: time.Hour, began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		s := Submission{Batch: schemas.Batch{ID: "b"}, Items: itemsTo(300), Total: 300, Waiting: func(error) { cancel() }}
		if _, err := Submit(ctx, q.fakeFleet, q, s); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v", err)
		}
		q.room = 1000
		s.Waiting = nil
		got, err := Submit(t.Context(), q.fakeFleet, q, s)
		if diff := cmp.Diff(int64(200), got.Published); err != nil || diff != "" || len(q.stored) != 300 {
			t.Errorf("%v, %d stored\n%s", err, len(q.stored), diff)
		}
	})
}

// A broker that restarts while room is waited for ends nothing. What is stored again
// is harmless.
func TestSubmitWaitsForTheBroker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := &fullQueue{fakeFleet: &fakeFleet{}, room: 300, every: time.Minute, began: time.Now(), silent: 3}
		if _, err := Submit(t.Context(), q.fakeFleet, q, Submission{Batch: schemas.Batch{ID: "b"}, Items: itemsTo(500), Total: 500}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(q.stored)
		if all := slices.Compact(q.stored); q.silent != 0 || len(all) != 500 || q.sealed != 500 {
			t.Errorf("%d stored, sealed %d", len(all), q.sealed)
		}
	})
}

// stumbling fails the questions for what is kept, one after the other.
type stumbling struct {
	*fakeFleet
	with []schemas.Code
}

func (s *stumbling) Kept(ctx context.Context, id string) (int64, error) {
	if len(s.with) == 0 {
		return s.fakeFleet.Kept(ctx, id)
	}
	code := s.with[0]
	s.with = s.with[1:]
	return 0, fault.New(code, "not now")
}

// A collector that stumbles at that question is not taken for one that keeps nothing.
func TestSubmitWhileTheCollectorStumbles(t *testing.T) {
	t.Parallel()
	for _, with := range [][]schemas.Code{
		{schemas.CodeLedgerDown, schemas.CodeLedgerDown},
		{schemas.CodeNoCollector, schemas.CodeNoCollector},
		{schemas.CodeNoCollector, schemas.CodeLedgerDown, schemas.CodeNoCollector},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &stumbling{&fakeFleet{}, with}
			if _, err := Submit(t.Context(), f, f.fakeFleet, submission(3000, 3000)); err != nil {
				t.Errorf("%v: %v", with, err)
			}
			f.checkKept(t, 3000)
		})
	}
}
