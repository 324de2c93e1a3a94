package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// atOnce is less than anything here waits for.
const atOnce = 10 * time.Millisecond

// pass lets time of the bubble pass.
func pass(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestTells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add("a-1", "forgotten-1")
		stop := w.run(t)
		pass(atOnce)
		for _, p := range w.got() {
			switch batch := p.body.Data.Batch; {
			case p.body.Type != "batch.seal" || !p.body.Timestamp.Equal(p.body.Data.Event.At):
				t.Errorf("got %+v", p.body)
			case p.id == "forgotten-1" && batch != nil:
				t.Errorf("got batch %+v", batch)
			case p.id == "a-1" && (batch == nil || batch.ID != "a" || batch.Counts.Restored != 5 || batch.Skips != nil):
				t.Errorf("got batch %+v", batch)
			}
		}
		if n := len(w.done()); n != 2 {
			t.Errorf("%d told", n)
		}

		// New events are told when somebody says so, or with the next look.
		w.add("a-2")
		pass(atOnce)
		if n := len(w.done()); n != 2 {
			t.Errorf("%d told before anybody could know", n)
		}
		w.wake <- struct{}{}
		pass(atOnce)
		if n := len(w.done()); n != 3 {
			t.Errorf("%d told after waking", n)
		}
		w.add("a-3")
		pass(lookEvery)
		equal(t, "told in the end", w.done()[2:], []string{"a-2", "a-3"})
		equal(t, "log", w.log.lines(t), nil)

		stop()
		synctest.Wait()
		if n := w.open.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// An event that is not accepted comes again with the same id, at another time and
// signed anew (the receiver checks that), after delays that double.
func TestBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const refused = 14
		w := newWorld(t)
		w.answer = func(n int, _ post, rw http.ResponseWriter) {
			if n <= refused {
				rw.WriteHeader(http.StatusInternalServerError)
			}
		}
		w.add("a-1", "a-2")
		stop := w.run(t)
		defer stop()
		pass(time.Hour)
		got := w.got()
		if len(got) != refused+2 {
			t.Fatalf("%d posts", len(got))
		}
		most := time.Second
		for i := 1; i <= refused; i++ {
			if got[i].id != "a-1" || got[i].sent <= got[i-1].sent || got[i].signed == got[i-1].signed {
				t.Errorf("after %+v came %+v", got[i-1], got[i])
			}
			if gap := got[i].at.Sub(got[i-1].at); gap < max(most/2, time.Second) || gap > most+atOnce {
				t.Errorf("try %d came after %v, want up to %v", i+1, gap, most)
			}
			most = min(2*most, 5*time.Minute)
		}
		equal(t, "told", w.done(), []string{"a-1", "a-2"})
		equal(t, "log", w.log.lines(t), []string{
			"warn: cannot tell the webhook of an event; trying again: webhook http://localhost: answered 500 Internal Server Error",
			"info: the webhook accepts events again: ",
		})
	})
}

// The events of a batch wait for the one before them, those of others don't.
func TestOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var refuse atomic.Bool
		refuse.Store(true)
		w.answer = func(_ int, p post, rw http.ResponseWriter) {
			if p.id == "a-2" && refuse.Load() {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		}
		w.add("a-1", "a-2", "b-1", "a-3", "b-2", "c-1", "b-3")
		stop := w.run(t)
		defer stop()
		pass(atOnce)
		told := w.done()
		slices.Sort(told)
		equal(t, "told while a-2 is refused", told, []string{"a-1", "b-1", "b-2", "b-3", "c-1"})
		refuse.Store(false)
		pass(time.Minute)

		at := map[string]int64{}
		for _, p := range w.got() {
			e := p.body.Data.Event
			if e.No < at[e.Batch] || e.No > at[e.Batch]+1 {
				t.Errorf("%s came after number %d", e.ID, at[e.Batch])
			}
			at[e.Batch] = e.No
		}
		if diff := cmp.Diff(map[string]int64{"a": 3, "b": 3, "c": 1}, at); diff != "" {
			t.Errorf("last events (-want +got):\n%s", diff)
		}
	})
}

// Batches that wait don't hide the events of others, however many they have.
func TestManyWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.answer = func(_ int, p post, rw http.ResponseWriter) {
			if p.body.Data.Event.Batch == "a" {
				rw.WriteHeader(http.StatusBadRequest)
			}
		}
		for i := range 3 * ahead {
			w.add(fmt.Sprintf("a-%d", i+1))
		}
		for i := range 2 * ahead {
			w.add(fmt.Sprintf("b-%d", i+1))
		}
		stop := w.run(t)
		defer stop()
		pass(time.Minute)
		told := w.done()
		if len(told) != 2*ahead || slices.ContainsFunc(told, func(id string) bool { return id[0] == 'a' }) {
			t.Errorf("%d told", len(told))
		}
	})
}

// No more than four batches' events are under way at a time.
func TestTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.answer = func(int, post, http.ResponseWriter) { <-release }
		for batch := 'a'; batch < 'i'; batch++ {
			w.add(string(batch)+"-1", string(batch)+"-2")
		}
		stop := w.run(t)
		defer stop()
		pass(atOnce)
		ids := w.ids()
		slices.Sort(ids)
		equal(t, "under way", ids, []string{"a-1", "b-1", "c-1", "d-1"})
		close(release)
		pass(time.Minute)
		if n := len(w.done()); n != 16 {
			t.Errorf("%d told", n)
		}
	})
}

// While a receiver wants to be left alone nothing is sent, of no batch.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.answer = func(n int, _ post, rw http.ResponseWriter) {
			if n == 1 {
				rw.Header().Set("Retry-After", "600")
				rw.WriteHeader(http.StatusTooManyRequests)
			}
		}
		w.add("a-1")
		stop := w.run(t)
		defer stop()
		pass(atOnce)
		w.add("b-1")
		w.wake <- struct{}{}
		pass(599 * time.Second)
		equal(t, "posts before", w.ids(), []string{"a-1"})
		pass(2 * time.Second)
		told := w.done()
		slices.Sort(told)
		equal(t, "told after", told, []string{"a-1", "b-1"})
	})
}

// A receiver that is gone is told nothing more, until the next start.
func TestGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.answer = func(n int, _ post, rw http.ResponseWriter) {
			if n == 1 {
				rw.WriteHeader(http.StatusGone)
			}
		}
		w.add("a-1", "a-2")
		stop := w.run(t)
		pass(24 * time.Hour)
		equal(t, "posts", w.ids(), []string{"a-1"})
		equal(t, "log", w.log.lines(t), []string{"error: the webhook answered 410 Gone; it is told nothing more until the next start: "})
		stop()

		stop = w.run(t)
		defer stop()
		pass(atOnce)
		equal(t, "told after the next start", w.done(), []string{"a-1", "a-2"})
	})
}

// After three days an event is given up, and those after it get their turn.
func TestGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.answer = func(_ int, p post, rw http.ResponseWriter) {
			if p.id == "a-1" {
				rw.WriteHeader(http.StatusBadRequest)
			}
		}
		w.add("a-1", "a-2")
		stop := w.run(t)
		pass(72*time.Hour - time.Minute)
		equal(t, "told before", w.done(), nil)
		pass(10 * time.Minute)
		equal(t, "told after", w.done(), []string{"a-1", "a-2"})
		stop()
		lines := w.log.lines(t)
		if len(lines) != 3 || !strings.HasPrefix(lines[1], "error: the webhook has not accepted an event in time; it is given up: webhook http://localhost: answered 400") {
			t.Errorf("log: %q", lines)
		}

		// What has become too old while nobody ran is tried once all the same,
		// also if at first nobody knows how the batch stands.
		w.summaryErr = errors.New("the ledger is away")
		w.add("b-1")
		pass(100 * time.Hour)
		stop = w.run(t)
		defer stop()
		pass(atOnce)
		equal(t, "told without a try", w.done()[2:], []string{})
		w.outbox.mu.Lock()
		w.summaryErr = nil
		w.outbox.mu.Unlock()
		pass(10 * time.Second)
		if last := w.ids(); last[len(last)-1] != "b-1" {
			t.Error("an old event was not tried")
		}
	})
}

// An event that was accepted, but could not be noted as told, is not posted again
// by the process that knows.
func TestCannotNote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var failures atomic.Int64
		failures.Store(1 << 40)
		w.noteErr = func() error {
			if failures.Add(-1) >= 0 {
				return errors.New("disk full")
			}
			return nil
		}
		w.add("a-1", "a-2")
		stop := w.run(t)
		defer stop()
		pass(100 * time.Hour) // longer than anything is tried that is not accepted
		failures.Store(1)
		pass(10 * time.Minute)
		equal(t, "posts", w.ids(), []string{"a-1", "a-2"})
		equal(t, "told", w.done(), []string{"a-1", "a-2"})
		equal(t, "log", w.log.lines(t), []string{
			"warn: cannot tell the webhook of an event; trying again: disk full", "info: the webhook accepts events again: ",
		})
	})
}

// While the source cannot be read that is said once.
func TestCannotLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lookErr = func() error {
			if w.looks <= 5 {
				return errors.New("the ledger is away")
			}
			return nil
		}
		w.add("a-1")
		stop := w.run(t)
		defer stop()
		pass(4*lookEvery + atOnce)
		equal(t, "told while it is away", w.done(), nil)
		pass(lookEvery)
		equal(t, "told when it is back", w.done(), []string{"a-1"})
		equal(t, "log", w.log.lines(t), []string{"warn: cannot look for events to tell the webhook; trying again: the ledger is away"})
	})
}

// An outage is one line in the log, however many batches wait.
func TestOutageIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var up atomic.Bool
		w.answer = func(_ int, _ post, rw http.ResponseWriter) {
			if !up.Load() {
				rw.WriteHeader(http.StatusBadGateway)
			}
		}
		for i := range 50 {
			w.add(fmt.Sprintf("b%d-1", i))
		}
		stop := w.run(t)
		defer stop()
		pass(time.Hour)
		up.Store(true)
		pass(time.Hour)
		if n := len(w.done()); n != 50 {
			t.Errorf("%d told", n)
		}
		if lines := w.log.lines(t); len(lines) != 2 {
			t.Errorf("log: %q", lines)
		}

		// The next one is another line.
		up.Store(false)
		w.add("c-1")
		pass(time.Hour)
		if lines := w.log.lines(t); len(lines) != 3 {
			t.Errorf("log after the next outage: %q", lines)
		}
	})
}

// A process that ends between the POST and the note of it tells the event again,
// with the same id, when it comes back. The receiver is one on the network.
func TestCrashBeforeTheNote(t *testing.T) {
	t.Parallel()
	r := &receiver{t: t}
	server := httptest.NewServer(r)
	defer server.Close()
	box := &outbox{}
	box.add("a-1")
	// live runs a sender until it notes an event, and fails that with the error.
	live := func(noteErr error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		s := newSender(t, Config{URL: server.URL})
		box.noteErr = func() error {
			cancel()
			return noteErr
		}
		go func() { ended <- s.Run(ctx, box, nil) }()
		must(t, <-ended)
	}
	live(errors.New("killed"))
	equal(t, "told by the first", box.done(), nil)
	live(nil)
	equal(t, "posts", r.ids(), []string{"a-1", "a-1"})
	equal(t, "told", box.done(), []string{"a-1"})
}

// A stop does not wait for a receiver that says nothing, nor for what waits.
func TestStopsAtOnce(t *testing.T) {
	t.Parallel()
	release, arrived := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(&receiver{t: t, answer: func(n int, _ post, _ http.ResponseWriter) {
		if n == 1 {
			close(arrived)
		}
		<-release
	}})
	defer server.Close()
	defer close(release)
	box := &outbox{}
	box.add("a-1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := newSender(t, Config{URL: server.URL, Timeout: time.Hour})
	go func() { ended <- s.Run(ctx, box, nil) }()
	<-arrived
	cancel()
	must(t, <-ended) // the test's deadline is sooner than an hour
	equal(t, "told", box.done(), nil)
}

// An event whose acceptance arrives is noted even if the stop comes first.
func TestStopKeepsTheNote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		w.noteErr = func() error {
			cancel()
			return nil
		}
		w.add("a-1", "a-2")
		must(t, w.sender.Run(ctx, w.outbox, nil))
		equal(t, "posts", w.ids(), []string{"a-1"})
		equal(t, "told", w.done(), []string{"a-1"})
	})
}
