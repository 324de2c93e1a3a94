package schemas

import "time"

// WorkerStatus is what a worker answers on SubjectWorkerStatus.
type WorkerStatus struct {
	Worker    string    `json:"worker"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	// Backend is the kind of its archive: sqlite, postgres or mariadb.
	Backend string `json:"backend,omitempty"`
	// Draining says that it finishes what it has in hand and takes no more.
	Draining bool `json:"draining,omitempty"`
	// Items is how many items it has in hand; InHand tells of those that were
	// asked for, or of all.
	Items  int64    `json:"items"`
	InHand []InHand `json:"in_hand,omitempty"`
	// Breakers stand between it and what it works on: the archive first, then the
	// destinations that it has worked on.
	Breakers []BreakerStatus `json:"breakers"`
	// LimitedUntil is when it may take the next items, if a limit keeps it from
	// taking them now, and LimitedBy the limit's scope.
	LimitedBy    string    `json:"limited_by,omitempty"`
	LimitedUntil time.Time `json:"limited_until,omitzero"`
}

// InHand are items that travel in one message, in the hand of a worker.
type InHand struct {
	Batch string `json:"batch"`
	// First and Last are the indexes of the first and the last item.
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Since is when it was taken, Attempt the number of the attempt, from 1.
	Since   time.Time `json:"since"`
	Attempt int       `json:"attempt"`
}

// BreakerArchive is what the archive is called where a breaker is named. The names
// of the others are the roots of destinations.
const BreakerArchive = "archive"

// BreakerState is the state of a breaker.
type BreakerState string

// The states of a breaker.
const (
	// BreakerClosed: work goes on.
	BreakerClosed BreakerState = "closed"
	// BreakerHalfOpen: somebody looks whether it can go on.
	BreakerHalfOpen BreakerState = "half-open"
	// BreakerOpen: nothing is taken, and what is in hand is held, or given back when
	// Sick.
	BreakerOpen BreakerState = "open"
)

// BreakerStatus tells how a breaker stands between a worker and what it works on.
type BreakerStatus struct {
	// Of is BreakerArchive or the root of a destination.
	Of string `json:"of"`
	// State is how it stands, Since when it was closed or ceased to be.
	State BreakerState `json:"state"`
	Since time.Time    `json:"since,omitzero"`
	// Code and Reason are the error that opened it, NextProbe is when it looks again.
	Code      Code      `json:"code,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	NextProbe time.Time `json:"next_probe,omitzero"`
	// Sick says that it is this worker alone that cannot write there: it has stepped
	// aside, and others may go on.
	Sick bool `json:"sick,omitempty"`
	// Most is how many items may be tried at a time while work begins again after an
	// outage; 0 when nothing is held back.
	Most int `json:"most,omitempty"`
}

// WorkerEvent is published on WorkerEventSubject when a breaker of the worker opens
// or closes.
type WorkerEvent struct {
	Worker  string        `json:"worker"`
	At      time.Time     `json:"at"`
	Breaker BreakerStatus `json:"breaker"`
}

// WorkerQuestion asks workers what they have in hand.
type WorkerQuestion struct {
	// Batch leaves out the items of others; empty asks for all.
	Batch string `json:"batch,omitempty"`
}
