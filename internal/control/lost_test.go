package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// kept are requests of the batch b as a producer has them kept.
func kept(t *testing.T, first, last int64) schemas.Kept {
	t.Helper()
	var items []schemas.RequestItem
	for i := first; i <= last; i++ {
		items = append(items, schemas.RequestItem{Tombstone: "t" + strconv.FormatInt(i, 10), Output: "o", Actor: "ops"})
	}
	text, err := json.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return schemas.Kept{Batch: "b", First: first, Last: last, Body: e.EncodeAll(text, nil)}
}

// running runs the control role on a world until the test is over, in a bubble of
// synthetic time.
func running(t *testing.T, w *world, test func()) {
	t.Helper()
	c, err := w.control(t)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	test()
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// after lets time pass, and then does something with the world.
func (w *world) after(d time.Duration, do func()) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// lostWorld is one in which the broker has lost the requests of items 3 to 9.
func lostWorld(t *testing.T) *world {
	t.Helper()
	s := working(10, 3)
	s.PerMessage = 4
	w := newWorld(s)
	w.kept, w.keptTo, w.idle["b"] = []schemas.Kept{kept(t, 0, 3), kept(t, 4, 9)}, 10, true
	return w
}

func TestLostRequestsArePublishedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		running(t, w, func() {
			w.after(2*stillFor-time.Second, func() {
				if len(w.republished) > 0 {
					t.Errorf("too early: %+v", w.republished)
				}
			})
			w.after(3*time.Second, func() {
				want := []republished{{[]int64{3}, 4, false}, {[]int64{4, 5, 6, 7, 8, 9}, 4, false}}
				if diff := cmp.Diff(want, w.republished); diff != "" {
					t.Error(diff)
				}
				if len(w.events) != 1 || w.events[0].Change != schemas.ChangeRequeue || w.events[0].By != "" ||
					!strings.Contains(w.events[0].Note, "the requests of 7 items") {
					t.Errorf("%+v", w.events)
				}
				w.idle["b"] = true // lost again
			})
			w.after(3*stillMost, func() {
				if len(w.republished) != 4 || len(w.events) != 1 {
					t.Errorf("%+v, %+v", w.republished, w.events)
				}
				s := w.batches["b"]
				s.Counts.Restored++ // something came of it
				w.batches["b"], w.idle["b"] = s, true
			})
			w.after(stillMost+2*stillFor, func() {
				if len(w.republished) != 5 || len(w.events) != 2 {
					t.Errorf("after a result: %+v, %+v", w.republished, w.events)
				}
			})
		})
	})
}

// Items that never get a result are tried less and less often, and told of once.
func TestRequestsThatComeToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		w.kept = w.kept[1:]
		w.onRepublish = func() { w.idle["b"] = true }
		before := 0
		running(t, w, func() {
			w.after(6*time.Hour, func() {
				if n := len(w.republished); n < 10 || n > 15 || len(w.events) != 1 {
					t.Errorf("published again %d times, with %d events", n, len(w.events))
				}
				w.incarnation = gone // when streams are lost it is another matter
				before = len(w.republished)
			})
			w.after(brokerEvery+stillFor+2*time.Second, func() {
				if len(w.republished) != before+1 {
					t.Errorf("published again %d times after another loss", len(w.republished)-before)
				}
			})
		})
	})
}

// What is published again is told, also when not all of it could be.
func TestRequestsThatAreLostInPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		w.fail = "republish 2"
		running(t, w, func() {
			w.after(2*stillFor+2*time.Second, func() {
				if len(w.republished) != 2 || len(w.events) != 1 || !strings.Contains(w.events[0].Note, "the requests of 1 items") {
					t.Errorf("%+v, %+v", w.republished, w.events)
				}
			})
		})
	})
}

// What is published again of a batch that has ended meanwhile does not stay.
func TestBatchEndsWhileRequestsArePublishedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		w.onRepublish = func() { w.batches["b"] = summary("b", schemas.StateSucceeded, 10, 10) }
		running(t, w, func() {
			w.after(2*stillFor+2*time.Second, func() {
				if len(w.republished) == 0 || w.did[len(w.did)-1] != "retire b" || len(w.events) > 0 {
					t.Errorf("%v, %+v", w.did, w.events)
				}
			})
		})
	})
}

// A batch whose items can still come by themselves, or must not come, is left alone.
func TestNothingIsLost(t *testing.T) {
	for name, change := range map[string]func(w *world, s *schemas.Summary){
		"in the queue":   func(w *world, _ *schemas.Summary) { w.idle["b"] = false },
		"paused":         func(_ *world, s *schemas.Summary) { s.State = schemas.StatePaused },
		"not sealed":     func(_ *world, s *schemas.Summary) { s.SealedAt = time.Time{} },
		"not judged yet": func(_ *world, s *schemas.Summary) { s.Terms.Canary = &schemas.Canary{Size: 3} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := lostWorld(t)
				running(t, w, func() {
					w.after(time.Second, func() {
						s := w.batches["b"]
						change(w, &s)
						w.batches["b"] = s
					})
					w.after(10*time.Minute, func() {
						if len(w.republished) > 0 {
							t.Errorf("%+v", w.republished)
						}
						if w.looks > 20 {
							t.Errorf("the broker was asked %d times in ten minutes", w.looks)
						}
					})
				})
			})
		})
	}
}

// What moves has lost nothing, even if nothing of it is in the queue when it is
// looked at.
func TestMovingBatchHasLostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		running(t, w, func() {
			for range 6 {
				w.after(2*stillFor-3*time.Second, func() {
					s := w.batches["b"]
					s.Counts.Restored++
					w.batches["b"] = s
					if len(w.republished) > 0 {
						t.Errorf("%+v", w.republished)
					}
				})
			}
		})
	})
}

// While only the sample is worked on, the other requests are still in the queue. Who
// cancels the batch needs all of them.
func TestLostSample(t *testing.T) {
	for name, c := range map[string]struct {
		reason schemas.Reason
		want   []republished
	}{
		"worked on":  {schemas.ReasonCanary, []republished{{nil, 4, true}, {[]int64{4, 9}, 4, true}}},
		"cancelling": {schemas.ReasonCancelling, []republished{{[]int64{1, 2, 3}, 4, false}, {[]int64{4, 5, 6, 7, 8, 9}, 4, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := lostWorld(t)
				s := w.batches["b"]
				s.Counts.Restored, s.Reason, s.Terms.Canary = 1, c.reason, &schemas.Canary{Size: 2}
				w.batches["b"] = s
				running(t, w, func() {
					w.after(2*stillFor+2*time.Second, func() {
						if diff := cmp.Diff(c.want, w.republished); diff != "" {
							t.Error(diff)
						}
					})
				})
			})
		})
	}
}

// A batch that workers are not shown any more is shown again.
func TestLostConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		w.idle["b"] = false
		running(t, w, func() {
			w.after(time.Second, func() { w.lost["b"] = true })
			w.after(stillFor+2*time.Second, func() {
				if w.lost["b"] {
					t.Error("it is still lost")
				}
			})
		})
	})
}

// Streams that are lost are made again, and everything is shown again, until it has
// worked. What is lost with them is then looked for at once.
func TestLostStreams(t *testing.T) {
	for _, fail := range []string{"", "setup", "steer", "activate b"} {
		t.Run(fail, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := lostWorld(t)
				w.idle["b"] = false
				w.batches["b2"] = summary("b2", schemas.StateOpen, 0, 0)
				w.steering.Limits = []schemas.Limit{{Scope: schemas.ScopeFleet, Items: 3}}
				running(t, w, func() {
					w.after(10*time.Minute+time.Second, func() { // the broker is asked about them once in a minute
						w.incarnation, w.fail, w.seen = gone, fail, schemas.Steering{}
						clear(w.shown)
						w.idle["b"] = true
					})
					w.after(3*brokerEvery, func() { // several tries fail
						for _, step := range []string{"setup", "activate b"} {
							if step == fail && !slices.Contains(w.did, step) {
								t.Error("nothing has failed")
							}
						}
						w.fail = ""
					})
					made := 0
					w.after(brokerEvery, func() {
						if !w.shown["b"] || !w.shown["b2"] || len(w.seen.Limits) != 1 {
							t.Errorf("shown %v, %+v", w.shown, w.seen)
						}
						if made = w.made; made != 1 {
							t.Errorf("made %d times", made)
						}
					})
					w.after(stillFor/2, func() {
						if len(w.republished) == 0 && fail == "" {
							t.Error("nothing is published again yet")
						}
					})
					w.after(time.Minute, func() {
						if w.made != made {
							t.Errorf("set up %d times more", w.made-made)
						}
					})
				})
			})
		})
	}
}

// Requests that are not kept, or not as they were, cannot be published again: the
// batch stays as it is.
func TestLostForGood(t *testing.T) {
	for name, k := range map[string]schemas.Kept{
		"nothing": {First: 0, Last: 0},
		"broken":  {Batch: "b", First: 0, Last: 9, Body: []byte("no such thing")},
		"fewer":   {Batch: "b", First: 0, Last: 9, Body: kept(t, 0, 5).Body},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := lostWorld(t)
				w.kept = []schemas.Kept{k}
				running(t, w, func() {
					w.after(5*time.Minute, func() {
						if len(w.republished) > 0 || len(w.events) > 0 {
							t.Errorf("%+v, %+v", w.republished, w.events)
						}
					})
				})
			})
		})
	}
}

func TestKeep(t *testing.T) {
	t.Parallel()
	w := newWorld(summary("b", schemas.StateOpen, 0, 0))
	c := mustControl(t, w)
	for _, bad := range []schemas.Kept{
		{Batch: "b", First: -1, Last: 3, Body: []byte("x")}, {Batch: "b", First: 4, Last: 3, Body: []byte("x")},
		{Batch: "b", First: 0, Last: schemas.MaxKept, Body: []byte("x")}, {Batch: "b", First: 0, Last: 3},
	} {
		if err := c.Keep(t.Context(), bad); !fault.Is(err, schemas.CodeBadRequest) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := c.Keep(t.Context(), kept(t, 0, 3)); err != nil || len(w.kept) != 1 {
		t.Errorf("%v: %d chunks", err, len(w.kept))
	}
	w.keptTo = 4
	if next, err := c.Kept(t.Context(), "b"); err != nil || next != 4 {
		t.Errorf("kept to %d, %v", next, err)
	}
	if _, err := c.Seal(t.Context(), "b", 5, ""); !fault.Is(err, schemas.CodeBadRequest) || !strings.Contains(err.Error(), "from item 4 on") {
		t.Errorf("sealed with a gap: %v", err)
	}
	if _, err := c.Seal(t.Context(), "b", 4, ""); err != nil {
		t.Errorf("sealed: %v", err)
	}
}

// Programs of before requests were kept seal as ever.
func TestSealWithNothingKept(t *testing.T) {
	t.Parallel()
	c := mustControl(t, newWorld(summary("b", schemas.StateOpen, 0, 0)))
	if _, err := c.Seal(t.Context(), "b", 5, ""); err != nil {
		t.Error(err)
	}
}

func TestLookGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(working(10, 3))
	c := mustControl(t, w)
	w.fail = "look b"
	now := time.Now()
	for i := range 3 {
		err := c.lookForLost(t.Context(), []schemas.Summary{w.batches["b"]}, now.Add(time.Duration(i)*2*stillFor))
		if errors.Is(err, errStep) != (i > 0) {
			t.Errorf("look %d: %v", i, err)
		}
	}
}

// Attempts that the broker has lost count of are counted again; what workers know
// better stays.
func TestLostRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		fail := func(index int64, number int) schemas.Failure {
			return schemas.Failure{Batch: "b", Index: index, Number: number, NextTry: time.Unix(int64(number), 0), Attempt: schemas.Attempt{
				Worker: "w", Code: schemas.CodeArchiveBusy, Detail: "locked " + strconv.Itoa(number),
			}}
		}
		for number := range schemas.MaxHistory + 5 {
			w.failures = append(w.failures, fail(5, number+1))
		}
		w.failures = append(w.failures, fail(2, 1), fail(6, 1), fail(7, 1), fail(7, 2))
		w.retries = map[int64]schemas.Retry{6: {Attempts: 2, LastError: "newer"}, 7: {Attempts: 1, LastError: "older"}}
		running(t, w, func() {
			time.Sleep(2*stillFor + 2*time.Second) // of the bubble's clock
		})
		for index, want := range map[int64]string{5: "25 locked 25", 6: "2 newer", 7: "2 locked 2"} {
			if got := fmt.Sprint(w.retries[index].Attempts, " ", w.retries[index].LastError); got != want {
				t.Errorf("item %d: %s, want %s", index, got, want)
			}
		}
		if r := w.retries[5]; len(w.retries) != 3 || len(r.Causes) != 25 || len(r.History) != schemas.MaxHistory ||
			r.History[len(r.History)-1].Detail != "locked 25" || !r.NextTry.Equal(time.Unix(25, 0)) {
			t.Errorf("%+v", w.retries)
		}
	})
}
