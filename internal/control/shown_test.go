package control

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// change changes a batch in the ledger as somebody else does, who dies before it is
// shown.
func (w *world) change(change func(s *schemas.Summary)) {
	s := w.batches["b"]
	change(&s)
	w.batches["b"] = s
}

// changes are what workers must be told.
var changes = map[string]func(s *schemas.Summary){
	"pause": func(s *schemas.Summary) {
		s.State, s.Standing = schemas.StatePaused, schemas.Standing{Reason: schemas.ReasonTooManyFailures}
	},
	"cancel":   func(s *schemas.Summary) { s.Reason = schemas.ReasonCancelling },
	"abort":    func(s *schemas.Summary) { s.Reason = schemas.ReasonAborting },
	"priority": func(s *schemas.Summary) { s.Terms.Priority = schemas.PriorityBulk },
	"bound":    func(s *schemas.Summary) { s.Terms.MaxInFlight = 7 },
	"skip":     func(s *schemas.Summary) { s.Skips = []schemas.Skip{{Index: 4, By: "ops"}} },
	"pass":     func(s *schemas.Summary) { s.Terms.Canary = &schemas.Canary{Size: 5, Passed: true} },
}

// A change that was recorded and not shown is shown soon, whether the batch moves or
// not.
func TestChangeThatIsNotShown(t *testing.T) {
	for name, change := range changes {
		for _, moves := range []int64{0, 1} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := lostWorld(t)
					w.idle["b"] = false
					w.change(func(s *schemas.Summary) {
						s.Total = 1e6
						if name == "pass" {
							s.Terms.Canary = &schemas.Canary{Size: 5}
						}
					})
					running(t, w, func() {
						move := func() { w.change(func(s *schemas.Summary) { s.Counts.Restored += moves }) }
						for range 100 {
							w.after(time.Second, move)
						}
						activated := 0
						w.after(time.Second/2, func() {
							w.change(change)
							activated = count(w.did, "activate b")
						})
						for range 3 {
							w.after(time.Second, move)
						}
						w.after(0, func() {
							if shown := w.as["b"]; !alike(shown, w.batches["b"].Batch) {
								t.Errorf("they are shown %+v", shown)
							}
						})
						for range 100 {
							w.after(time.Second, move)
						}
						w.after(0, func() {
							// What is being cancelled is shown all the time.
							if n := count(w.did, "activate b") - activated; n > 1 && !w.batches["b"].Stopping() {
								t.Errorf("shown %d times", n)
							}
							if w.looks > 25 {
								t.Errorf("the broker was asked %d times", w.looks)
							}
						})
					})
				})
			})
		}
	}
}

func count(did []string, step string) (n int) {
	for _, s := range did {
		if s == step {
			n++
		}
	}
	return n
}

// An older picture that somebody shows late, and who dies then, does not stay.
func TestOlderPicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		w.idle["b"] = false
		running(t, w, func() {
			w.after(10*time.Minute, func() {
				b := w.as["b"]
				b.State = schemas.StatePaused
				w.as["b"] = b
			})
			w.after(stillMost+2*time.Second, func() {
				if !w.as["b"].Workable() {
					t.Error("workers are shown that it is paused")
				}
			})
		})
	})
}

// A pause that ends while the broker is away ends at the workers, too.
func TestPauseEndsWhileTheBrokerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lostWorld(t)
		w.idle["b"] = false
		end := time.Now().Add(10 * time.Minute)
		w.change(func(s *schemas.Summary) { s.State, s.Until = schemas.StatePaused, end })
		w.steering.Pause = &schemas.Standing{Until: end}
		running(t, w, func() {
			w.after(10*time.Minute-time.Second, func() {
				if w.as["b"].Workable() || w.seen.Pause == nil {
					t.Errorf("%+v, %+v", w.as["b"], w.seen)
				}
				w.away = true
			})
			w.after(3*time.Second, func() {
				if w.batches["b"].State == schemas.StatePaused || w.steering.Pause != nil || w.as["b"].Workable() {
					t.Errorf("%+v, %+v", w.batches["b"], w.steering)
				}
				w.away = false
			})
			w.after(stillFor+2*time.Second, func() {
				if !w.as["b"].Workable() || w.seen.Pause != nil {
					t.Errorf("workers are shown %+v, %+v", w.as["b"], w.seen)
				}
			})
		})
	})
}

// What somebody else has recorded for the fleet and not shown is shown.
func TestSteeringThatIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		running(t, w, func() {
			w.after(time.Second, func() { w.steering.Limits = []schemas.Limit{{Scope: schemas.ScopeFleet, Items: 3}} })
			w.after(brokerEvery+time.Second, func() {
				if diff := cmp.Diff(w.steering, w.seen); diff != "" {
					t.Error(diff)
				}
			})
		})
	})
}
