package schemas

import (
	"encoding/json"
	"fmt"
	"time"
)

// Terms are how a batch is worked on. They say nothing about what restoring
// means, and but for the canary may be changed while it goes on.
type Terms struct {
	// Priority is the batch's class; empty means normal.
	Priority Priority `json:"priority,omitempty"`
	// MaxInFlight bounds the items in the hands of all workers, those that wait for
	// their next try included; 0 does not.
	MaxInFlight int64 `json:"max_in_flight,omitempty"`
	// Canary is a sample that is restored first.
	Canary *Canary `json:"canary,omitempty"`
	// MaxFailures stops the batch when too many items fail.
	MaxFailures *Threshold `json:"max_failures,omitempty"`
}

// Priority is a class of batches. Workers share their time among the classes
// that have work, by Weight, and within a class evenly among its batches.
type Priority string

// The priorities.
const (
	PriorityUrgent Priority = "urgent"
	PriorityNormal Priority = "normal"
	PriorityBulk   Priority = "bulk"
)

// Weight is the class's share of the workers' time in relation to the others'.
// Bulk work always goes on, if slowly.
func (p Priority) Weight() int64 {
	switch p {
	case PriorityUrgent:
		return 16
	case PriorityBulk:
		return 1
	default:
		return 4
	}
}

// Canary is a sample of a batch, spread over its whole length, that is restored
// before anything else is.
type Canary struct {
	// Size is the number of items in it.
	Size int64 `json:"size"`
	// MaxErrors is how many of them may fail for the batch to go on by itself.
	MaxErrors int64 `json:"max_errors,omitempty"`
	// Passed says that the batch has gone on.
	Passed bool `json:"passed,omitempty"`
}

// Has says whether an item of a batch of so many is in the sample.
func (c *Canary) Has(index, total int64) bool {
	if c == nil || total <= 0 {
		return false
	}
	// Of total numbers, evenly spread, these are the Size at which the share
	// passes a whole number.
	return index*c.Size/total != (index+1)*c.Size/total
}

// InCanary says whether only the batch's sample is worked on.
func (b Batch) InCanary() bool { return b.Terms.Canary != nil && !b.Terms.Canary.Passed }

// StopAction is what happens to a batch of which too many items failed.
type StopAction string

// The actions.
const (
	StopPause StopAction = "pause"
	StopAbort StopAction = "abort"
)

// Threshold says how many items of a batch may fail.
type Threshold struct {
	// Count is the most that may fail, Percent the most of those that have a
	// result; one of the two is set.
	Count   *int64   `json:"count,omitempty"`
	Percent *float64 `json:"percent,omitempty"`
	// MinSample is how many results there must be before Percent counts.
	MinSample int64 `json:"min_sample,omitempty"`
	// Action is what happens then; empty means pause.
	Action StopAction `json:"action,omitempty"`
	// FailedBefore and DoneBefore are not counted: they were there when an
	// operator let the batch go on in spite of them.
	FailedBefore int64 `json:"failed_before,omitempty"`
	DoneBefore   int64 `json:"done_before,omitempty"`
}

// Exceeded says whether more items have failed than may.
func (t *Threshold) Exceeded(c Counts) bool {
	if t == nil {
		return false
	}
	failed, done := c.Failed-t.FailedBefore, c.Done()-t.DoneBefore
	switch {
	case t.Count != nil:
		return failed > *t.Count
	case t.Percent != nil:
		return failed > 0 && done >= max(t.MinSample, 1) && float64(failed)*100 > *t.Percent*float64(done)
	}
	return false
}

func (t *Threshold) String() string {
	switch {
	case t == nil:
		return "none"
	case t.Count != nil:
		return fmt.Sprint(*t.Count)
	case t.Percent != nil && t.MinSample > 0:
		return fmt.Sprintf("%g%%@%d", *t.Percent, t.MinSample)
	case t.Percent != nil:
		return fmt.Sprintf("%g%%", *t.Percent)
	}
	return "none"
}

// MaxSkips is how many items of a batch can be left out by their indexes.
const MaxSkips = 1000

// Skip leaves one item out.
type Skip struct {
	Index int64 `json:"index"`
	// By is who wants that, Note why.
	By   string `json:"by"`
	Note string `json:"note,omitempty"`
}

// Source is a batch whose results are another's items.
type Source struct {
	Batch string `json:"batch"`
	ResultFilter
	// Limit is how many are taken, 0 for all; Total how many there are.
	Limit int64 `json:"limit,omitempty"`
	Total int64 `json:"total"`
}

// ResultFilter chooses results; empty fields choose all.
type ResultFilter struct {
	Outcomes []Outcome `json:"outcomes,omitempty"`
	Code     Code      `json:"code,omitempty"`
	// Message is a detail as Normalise leaves it.
	Message string `json:"message,omitempty"`
	// Since leaves out what was finished before.
	Since time.Time `json:"since,omitzero"`
}

// Limit is an upper bound on what all workers together restore in a second.
type Limit struct {
	// Scope is what is limited: ScopeFleet, or the result of ScopeBackend or
	// ScopeBatch.
	Scope string `json:"scope"`
	// Items, at least 0.01, and Bytes are how many a second; 0 does not limit.
	Items float64 `json:"items,omitempty"`
	Bytes int64   `json:"bytes,omitempty"`
	// By is who set it, Note why.
	By    string    `json:"by,omitempty"`
	Note  string    `json:"note,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// ScopeFleet is the scope of a limit on everything.
const ScopeFleet = "fleet"

// ScopeBackend is the scope of a limit on what is read from archives of one kind:
// sqlite, postgres or mariadb.
func ScopeBackend(kind string) string { return "backend-" + kind }

// ScopeBatch is the scope of a limit on one batch.
func ScopeBatch(id string) string { return "batch-" + id }

// Steering is what holds for the whole fleet: the value of KeySteering in
// BucketFleet, which workers watch.
type Steering struct {
	// Pause, if set, keeps workers from taking any items.
	Pause *Standing `json:"pause,omitempty"`
	// Limits are in the order of their scopes, one each.
	Limits []Limit `json:"limits,omitempty"`
}

// ParseSteering reads what a ledger keeps under KeySteering: JSON, or nothing.
func ParseSteering(text string) (s Steering, err error) {
	if text == "" {
		return s, nil
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("setting %s: %w", KeySteering, err)
	}
	return s, nil
}
