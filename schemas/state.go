package schemas

import (
	"cmp"
	"slices"
	"time"
)

// State is where a batch stands in its life; see Transitions.
type State string

// The states of a batch. The first four are active; the others are final and
// never change again.
const (
	// StateOpen: requests are being published, the total is not known yet.
	StateOpen State = "open"
	// StateSealed: the total is known, and there is no result yet.
	StateSealed State = "sealed"
	// StateRunning: results are coming in. With ReasonCancelling or
	// ReasonAborting they say of what was still open that it was cancelled.
	StateRunning State = "running"
	// StatePaused: workers take no more of its items.
	StatePaused State = "paused"
	// StateSucceeded: every item was restored or was there already.
	StateSucceeded State = "succeeded"
	// StatePartial: some items were restored, some were not.
	StatePartial State = "partial"
	// StateFailed: no item was restored.
	StateFailed State = "failed"
	// StateCancelled: an operator ended it; what was in hand was finished.
	StateCancelled State = "cancelled"
	// StateAborted: it was ended at once, by an operator or because too many
	// items failed.
	StateAborted State = "aborted"
)

// Final says whether a batch in this state has ended.
func (s State) Final() bool {
	switch s {
	case StateSucceeded, StatePartial, StateFailed, StateCancelled, StateAborted:
		return true
	}
	return false
}

// ActiveStates are the states of batches that have not ended.
func ActiveStates() []State { return []State{StateOpen, StateSealed, StateRunning, StatePaused} }

// Reason is why a batch is in its state.
type Reason string

// The reasons. Beside each stand the states that it explains.
const (
	ReasonSubmitting      Reason = "submitting"            // open
	ReasonQueued          Reason = "queued"                // sealed
	ReasonWorking         Reason = "working"               // running
	ReasonCanary          Reason = "canary"                // open, sealed, running: only the sample is worked on
	ReasonCancelling      Reason = "cancelling"            // running
	ReasonAborting        Reason = "aborting"              // running
	ReasonHeld            Reason = "held"                  // paused: it was submitted so
	ReasonPaused          Reason = "paused_by_operator"    // paused
	ReasonCanaryFailed    Reason = "canary_failed"         // paused
	ReasonTooManyFailures Reason = "too_many_failures"     // paused, aborted
	ReasonFleetPaused     Reason = "fleet_paused"          // paused: everything is
	ReasonAllRestored     Reason = "all_restored"          // succeeded
	ReasonSomeLeft        Reason = "some_not_restored"     // partial
	ReasonNoneRestored    Reason = "none_restored"         // failed
	ReasonCancelled       Reason = "cancelled_by_operator" // cancelled
	ReasonAborted         Reason = "aborted_by_operator"   // aborted
)

// Change is something that happens to a batch.
type Change string

// The changes. Those from ChangeSet on leave the state as it is.
const (
	ChangeOpen     Change = "open"
	ChangeSeal     Change = "seal"
	ChangeBegin    Change = "begin" // the first results
	ChangePause    Change = "pause"
	ChangeResume   Change = "resume"
	ChangeCancel   Change = "cancel"
	ChangeAbort    Change = "abort"
	ChangeComplete Change = "complete" // the last result
	ChangeSet      Change = "set"      // its terms
	ChangeSkip     Change = "skip"     // items are left out
	ChangePass     Change = "pass"     // its canary has passed
	ChangeRequeue  Change = "requeue"  // requests that the broker had lost are published again
)

// Transition is one way from state to state.
type Transition struct {
	From State
	On   Change
	To   State
	// When is the condition, in words; empty for none.
	When string
}

// conditions are what Transition.When means.
var conditions = map[string]func(Summary) bool{
	"":               func(Summary) bool { return true },
	"not sealed":     func(s Summary) bool { return s.SealedAt.IsZero() },
	"no result yet":  func(s Summary) bool { return s.Counts.Done() == 0 },
	"results":        func(s Summary) bool { return s.Counts.Done() > 0 },
	"some cancelled": func(s Summary) bool { return s.Reason == ReasonCancelling && s.cut() },
	"some aborted":   func(s Summary) bool { return s.Reason == ReasonAborting && s.cut() },
	"all restored":   func(s Summary) bool { return s.Counts.left() == 0 },
	"some restored":  func(s Summary) bool { return s.Counts.Restored+s.Counts.Unchanged > 0 },
	"cancelling":     func(s Summary) bool { return s.Reason == ReasonCancelling },
	"not stopping":   func(s Summary) bool { return !s.Stopping() },
}

// transitions is the whole life of a batch. Of several ways the first whose
// condition holds is taken; where there is none, the change is refused.
var transitions = []Transition{
	{StateOpen, ChangeSeal, StateSealed, "no result yet"},
	{StateOpen, ChangeSeal, StateRunning, "results"},
	{StateSealed, ChangeBegin, StateRunning, ""},

	{StateOpen, ChangePause, StatePaused, ""},
	{StateSealed, ChangePause, StatePaused, ""},
	{StateRunning, ChangePause, StatePaused, "not stopping"},
	{StatePaused, ChangePause, StatePaused, ""},
	{StatePaused, ChangeSeal, StatePaused, ""},
	{StatePaused, ChangeResume, StateOpen, "not sealed"},
	{StatePaused, ChangeResume, StateSealed, "no result yet"},
	{StatePaused, ChangeResume, StateRunning, "results"},

	{StateOpen, ChangeCancel, StateRunning, ""},
	{StateSealed, ChangeCancel, StateRunning, ""},
	{StatePaused, ChangeCancel, StateRunning, ""},
	{StateRunning, ChangeCancel, StateRunning, "not stopping"},
	{StateOpen, ChangeAbort, StateRunning, ""},
	{StateSealed, ChangeAbort, StateRunning, ""},
	{StatePaused, ChangeAbort, StateRunning, ""},
	{StateRunning, ChangeAbort, StateRunning, "not stopping"},
	{StateRunning, ChangeAbort, StateRunning, "cancelling"},
	{StateRunning, ChangeSeal, StateRunning, ""}, // of one that is being cancelled

	{StateSealed, ChangeComplete, StateSucceeded, "all restored"}, // of one without items
	{StateSealed, ChangeComplete, StatePartial, "some restored"},
	{StateSealed, ChangeComplete, StateFailed, ""},
	{StateRunning, ChangeComplete, StateCancelled, "some cancelled"},
	{StateRunning, ChangeComplete, StateAborted, "some aborted"},
	{StateRunning, ChangeComplete, StateSucceeded, "all restored"},
	{StateRunning, ChangeComplete, StatePartial, "some restored"},
	{StateRunning, ChangeComplete, StateFailed, ""},
	{StatePaused, ChangeComplete, StateSucceeded, "all restored"},
	{StatePaused, ChangeComplete, StatePartial, "some restored"},
	{StatePaused, ChangeComplete, StateFailed, ""},
}

// cut says whether a batch that was stopped has lost items by that: some that were
// open, or some that were not even submitted then.
func (s Summary) cut() bool { return s.Counts.Cancelled > 0 || s.SealedAt.After(s.Since) }

// Transitions lists all ways from state to state. The caller may change the slice.
func Transitions() []Transition { return slices.Clone(transitions) }

// Next is the state that a change brings a batch to, or false when its state does
// not allow it. Whether the results are complete is for the caller to know.
func (s Summary) Next(on Change) (State, bool) {
	for _, t := range transitions {
		if t.From == s.State && t.On == on && conditions[t.When](s) {
			return t.To, true
		}
	}
	return s.State, false
}

// Stopping says whether what is still open of the batch is being cancelled.
func (b Batch) Stopping() bool { return b.Reason == ReasonCancelling || b.Reason == ReasonAborting }

// Workable says whether workers take items of the batch to restore them.
func (b Batch) Workable() bool { return !b.State.Final() && b.State != StatePaused && !b.Stopping() }

// Apply brings a batch to the state that a change leads to, or returns false and
// changes nothing when its state does not allow it. Why says by whom and why; its
// reason counts for a pause only. The event has neither id nor number.
func (s *Summary) Apply(on Change, why Standing, at time.Time) (BatchEvent, bool) {
	to, ok := s.Next(on)
	if !ok {
		return BatchEvent{}, false
	}
	e := BatchEvent{Batch: s.ID, Change: on, From: s.State, To: to, By: why.By, Note: why.Note, At: at}
	reason := s.reason(on, to, why)
	if on == ChangeSeal && (to == StatePaused || s.Stopping()) {
		e.Reason = s.Reason // it stays for the reason for which it was
		return e, true
	}
	if on == ChangeComplete {
		if s.Stopping() { // whoever stopped it has ended it
			why.By, why.Note = s.By, s.Note
		}
		s.EndedAt = at
	}
	s.State, s.Standing = to, Standing{Reason: reason, By: why.By, Note: why.Note, Since: at}
	if to == StatePaused {
		s.Until = why.Until
	}
	e.Reason = reason
	return e, true
}

// reason is why a batch is in the state to which a change leads.
func (s Summary) reason(on Change, to State, why Standing) Reason {
	switch {
	case on == ChangeCancel:
		return ReasonCancelling
	case on == ChangeAbort:
		return ReasonAborting
	case to == StatePaused:
		return cmp.Or(why.Reason, ReasonPaused)
	case to == StateSucceeded:
		return ReasonAllRestored
	case to == StatePartial:
		return ReasonSomeLeft
	case to == StateFailed:
		return ReasonNoneRestored
	case to == StateCancelled:
		return ReasonCancelled
	case to == StateAborted && s.By == "":
		return ReasonTooManyFailures
	case to == StateAborted:
		return ReasonAborted
	default:
		return s.resting(to)
	}
}

// Resting is the reason of an active batch that nothing special has happened to.
func (b Batch) Resting() Reason { return b.resting(b.State) }

func (b Batch) resting(in State) Reason {
	switch {
	case b.InCanary():
		return ReasonCanary
	case in == StateOpen:
		return ReasonSubmitting
	case in == StateSealed:
		return ReasonQueued
	default:
		return ReasonWorking
	}
}

// Complete says whether every item of the batch has its result.
func (s Summary) Complete() bool { return !s.SealedAt.IsZero() && s.Open() == 0 }
