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
	// Breaker is what stands between it and what it works on.
	Breaker BreakerStatus `json:"breaker"`
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

// BreakerStatus tells how the breaker stands between a worker and what it works on.
type BreakerStatus struct {
	// State is closed, half-open or open; Since when.
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"`
	// Reason is the error that opened it, NextProbe when it looks again.
	Reason    string    `json:"reason,omitempty"`
	NextProbe time.Time `json:"next_probe,omitzero"`
}

// WorkerQuestion asks workers what they have in hand.
type WorkerQuestion struct {
	// Batch leaves out the items of others; empty asks for all.
	Batch string `json:"batch,omitempty"`
}
