package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// replayed reads the names of the workers in a replay, up to a number of messages.
func replayed(t *testing.T, b *Broker, limit int, each func(n int)) (workers []string) {
	t.Helper()
	for m, err := range b.ReplayResults(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		var g schemas.ResultGroup
		must(t, json.Unmarshal(m.Data, &g))
		if m.At.IsZero() {
			t.Error("a message has no time")
		}
		workers = append(workers, g.Worker)
		each(len(workers))
		if len(workers) == limit {
			break
		}
	}
	return workers
}

func publishResults(t *testing.T, b *Broker, from, n int) (workers []string) {
	t.Helper()
	for i := range n {
		w := fmt.Sprintf("w%d", from+i)
		if err := b.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: w, Results: []schemas.Result{{}}}); err != nil {
			t.Fatal(err)
		}
		workers = append(workers, w)
	}
	return workers
}

func TestReplayResults(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	nothing := func(int) {}
	if got := replayed(t, b, 0, nothing); got != nil {
		t.Errorf("got %v of an empty stream", got)
	}
	want := publishResults(t, b, 0, 1203)
	// What was taken, and what is in hand, comes as well, and stays as it was.
	taken, err := b.Results(t.Context(), 8, 0)
	if err != nil || len(taken) != 8 {
		t.Fatal(len(taken), err)
	}
	for _, m := range taken[:5] {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	// What comes in meanwhile is left out.
	later := func(n int) {
		if n == 3 {
			publishResults(t, b, 5000, 2)
		}
	}
	if diff := cmp.Diff(want, replayed(t, b, 0, later)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[:700], replayed(t, b, 700, nothing)); diff != "" {
		t.Error(diff)
	}
	next, err := b.Results(t.Context(), 1, 0)
	if err != nil || len(next) != 1 {
		t.Fatal(len(next), err)
	}
	var g schemas.ResultGroup
	if must(t, json.Unmarshal(next[0].Data(), &g)); g.Worker != "w8" {
		t.Errorf("the collector got %s next, want w8", g.Worker)
	}
}

func TestReplayWithoutStreams(t *testing.T) {
	t.Parallel()
	b, err := Embed(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	for m, err := range b.ReplayResults(t.Context()) {
		t.Error(m, err)
	}
	if batches, known, err := b.Shown(t.Context()); batches != nil || known || err != nil {
		t.Errorf("got %v, %v, %v", batches, known, err)
	}
	if s, err := b.Steering(t.Context()); err != nil || s.Pause != nil {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestReplayEndsWithTheContext(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	publishResults(t, b, 0, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, last = range b.ReplayResults(ctx) {
		cancel()
	}
	if last == nil {
		t.Error("no error")
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	if batches, known, err := b.Shown(t.Context()); batches != nil || !known || err != nil {
		t.Errorf("got %v, %v, %v", batches, known, err)
	}
	pause := schemas.Steering{Pause: &schemas.Standing{By: "ops"}}
	if err := b.SetSteering(t.Context(), pause); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "two", "three"} {
		if err := b.Activate(t.Context(), schemas.Batch{ID: id, State: schemas.StateOpen}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Retire(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	got, known, err := b.Shown(t.Context())
	if err != nil || !known || len(got) != 2 || got[0].ID == "two" || got[1].ID == "two" {
		t.Errorf("got %+v, %v, %v", got, known, err)
	}
	s, err := b.Steering(t.Context())
	if diff := cmp.Diff(pause, s); err != nil || diff != "" {
		t.Error(diff, err)
	}
}
