package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

func TestWhereabouts(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 10)
	held := take(t, b, 4, 0)
	must(t, held[0].Ack())
	waitInHand(t, b, 3)
	due := time.Now().Add(time.Hour).UTC().Round(0)
	for index, r := range map[int64]schemas.Retry{
		1: {NextTry: due, Causes: []schemas.Code{schemas.CodeArchiveBusy, schemas.CodeArchiveError}},
		2: {NextTry: due.Add(time.Minute), Causes: []schemas.Code{schemas.CodeArchiveError}},
		3: {NextTry: time.Now().Add(-time.Minute), Causes: []schemas.Code{schemas.CodeArchiveBusy}}, // tried meanwhile
	} {
		must(t, b.SetRetry(t.Context(), "b", index, r))
	}
	must(t, b.SetRetry(t.Context(), "b2", 1, schemas.Retry{NextTry: due}))
	must(t, b.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: "w"}))
	got, err := b.Whereabouts(t.Context(), "b")
	must(t, err)
	want := schemas.Whereabouts{
		Published: 10, Waiting: 6, InHand: 3, Retrying: 2, NextTry: due, Causes: map[schemas.Code]int64{schemas.CodeArchiveError: 2}, Unrecorded: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := b.Whereabouts(t.Context(), "missing"); err == nil || !strings.Contains(err.Error(), "a collector brings it back") {
		t.Errorf("got error %v", err)
	}
}

// What comes after a sample waits, too, although the consumer does not bring it yet.
func TestWhereaboutsInCanary(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	batch := inCanary()
	must(t, b.Activate(t.Context(), batch))
	must(t, b.PublishCanary(t.Context(), sample(batch)))
	must(t, b.Publish(t.Context(), rest(batch), 1))
	held := take(t, b, 1, 0)
	got, err := b.Whereabouts(t.Context(), "b")
	must(t, err)
	if want := (schemas.Whereabouts{Published: canaryTotal - 1, Waiting: canaryTotal - canarySize + 20 - 1, InHand: 1}); len(held) != 1 || !cmp.Equal(want, got) {
		t.Error(cmp.Diff(want, got))
	}
	if n, err := b.Left(t.Context(), "b"); err != nil || n != canaryTotal {
		t.Errorf("%d messages are left, %v", n, err)
	}
}

// Of very many records of retries only some are read, and the rest is estimated.
func TestWhereaboutsOfManyRetries(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	due := time.Now().Add(time.Hour).UTC().Round(0)
	for i := range int64(100) {
		r := schemas.Retry{NextTry: due, Attempts: 1, Causes: []schemas.Code{schemas.CodeArchiveError}}
		if i%2 == 0 {
			r.NextTry = due.Add(-2 * time.Hour) // tried meanwhile
		}
		must(t, b.SetRetry(t.Context(), "b", i, r))
	}
	for most, want := range map[int64]schemas.Whereabouts{
		10:   {Retrying: 50, NextTry: due, Causes: map[schemas.Code]int64{schemas.CodeArchiveError: 5}},
		100:  {Retrying: 50, NextTry: due, Causes: map[schemas.Code]int64{schemas.CodeArchiveError: 50}},
		1000: {Retrying: 50, NextTry: due, Causes: map[schemas.Code]int64{schemas.CodeArchiveError: 50}},
	} {
		var got schemas.Whereabouts
		must(t, b.retrying(t.Context(), "b", &got, most))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("of %d:\n%s", most, diff)
		}
	}
}

func TestRetriesOf(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	want := map[int64]schemas.Retry{}
	var all []int64
	for i := range int64(200) {
		all = append(all, i)
		if i%3 == 0 {
			want[i] = schemas.Retry{Attempts: int(i) + 1, Causes: []schemas.Code{schemas.CodeArchiveBusy}, LastError: "busy"}
			must(t, b.SetRetry(t.Context(), "b", i, want[i]))
		}
	}
	must(t, b.SetRetry(t.Context(), "b2", 1, schemas.Retry{Attempts: 1}))
	got, err := b.RetriesOf(t.Context(), "b", all)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	b.nc.Close()
	if _, err := b.RetriesOf(t.Context(), "b", all); err == nil || !strings.Contains(err.Error(), "failed attempts: EXHUME_RETRIES b.") {
		t.Errorf("got error %v", err)
	}
}

func TestSettled(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 2)
	settled := func() bool {
		t.Helper()
		ok, err := b.Settled(t.Context(), "b")
		must(t, err)
		return ok
	}
	if settled() {
		t.Error("settled while requests wait")
	}
	held := take(t, b, 2, 0)
	if settled() {
		t.Error("settled while requests are in hand")
	}
	must(t, b.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: "w"}))
	for _, d := range held {
		must(t, d.Ack())
	}
	waitInHand(t, b, 0)
	if settled() {
		t.Error("settled while results are not recorded")
	}
	must(t, b.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b2", Worker: "w"}))
	results, err := b.Results(t.Context(), 1, time.Minute)
	must(t, err)
	must(t, results[0].Ack())
	for !settled() { // until the server knows; the other batch's result does not matter
		must(t, t.Context().Err())
	}
	if _, err := b.Settled(t.Context(), "missing"); err == nil || !strings.Contains(err.Error(), "a collector brings it back") {
		t.Errorf("got error %v", err)
	}
}
