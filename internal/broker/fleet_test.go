package broker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

func TestWatchFleet(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{})
	other := connect(t, Options{URL: b.Address()})
	watch := func() (shown chan schemas.Steering, stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		shown, done := make(chan schemas.Steering, 10), make(chan error, 1)
		go func() { done <- other.WatchFleet(ctx, func(s schemas.Steering) { shown <- s }) }()
		return shown, func() {
			t.Helper()
			cancel()
			must(t, <-done)
		}
	}
	want := func(shown chan schemas.Steering, want schemas.Steering) {
		t.Helper()
		if diff := cmp.Diff(want, <-shown); diff != "" {
			t.Error(diff)
		}
	}
	shown, stop := watch()
	want(shown, schemas.Steering{})
	paused := schemas.Steering{
		Pause:  &schemas.Standing{Reason: schemas.ReasonFleetPaused, By: "ops", Until: time.Now().Add(time.Hour).UTC().Round(0)},
		Limits: []schemas.Limit{{Scope: schemas.ScopeFleet, Items: 5}},
	}
	must(t, b.SetSteering(t.Context(), paused))
	want(shown, paused)
	_, err := b.Reserve(t.Context(), "fleet.items", 1, 1) // is not shown
	must(t, err)
	must(t, b.SetSteering(t.Context(), schemas.Steering{}))
	want(shown, schemas.Steering{})
	stop()
	must(t, b.SetSteering(t.Context(), paused))
	shown, stop = watch()
	want(shown, paused)
	must(t, b.SetSteering(t.Context(), schemas.Steering{}))
	want(shown, schemas.Steering{})
	stop()
}

func TestWatchFleetEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	shown, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- b.WatchFleet(t.Context(), func(schemas.Steering) { close(shown) }) }()
	<-shown
	b.nc.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("got error %v", err)
	}
}

// A watch that ends while more is there than anybody has looked at leaves nothing
// behind.
func TestWatchEndsInTheMiddle(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	const n = 400 // more than a watch keeps for who is slow
	for i := range int64(n) {
		must(t, b.SetRetry(t.Context(), "b", i, schemas.Retry{Attempts: 1}))
	}
	before := b.nc.Stats().InMsgs
	must(t, b.watch(t.Context(), schemas.BucketRetries, "b.*", func(jetstream.KeyValueEntry) (done bool, err error) {
		for b.nc.Stats().InMsgs < before+n { // until all have come
			pause(t.Context(), time.Millisecond)
		}
		return true, nil
	}))
	must(t, b.Ping(t.Context()))
}
