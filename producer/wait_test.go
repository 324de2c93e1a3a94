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

// fullQueue has room for so many requests, and for as many again every so often
// since it began.
type fullQueue struct {
	*fakeFleet
	room  int
	every time.Duration
	began time.Time
	calls int
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
