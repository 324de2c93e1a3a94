package schemas

import "time"

// Command says who wants something to be changed, and why.
type Command struct {
	// ID makes it safe to repeat: the same id is the same command.
	ID string `json:"id"`
	// Actor is who wants it, Note why, in their words.
	Actor string `json:"actor"`
	Note  string `json:"note,omitempty"`
}

// BatchChange asks for ChangePause, ChangeResume, ChangeCancel or ChangeAbort. A
// batch that is already what it is to become stays as it is.
type BatchChange struct {
	BatchRef
	Command
	Change Change `json:"change"`
	// Until is when a pause ends by itself.
	Until time.Time `json:"until,omitzero"`
}

// BatchTerms asks for other terms; what is nil stays. A threshold with neither
// count nor percent removes the one that there is.
type BatchTerms struct {
	BatchRef
	Command
	Priority    *Priority  `json:"priority,omitempty"`
	MaxInFlight *int64     `json:"max_in_flight,omitempty"`
	MaxFailures *Threshold `json:"max_failures,omitempty"`
}

// ItemSkip asks for items to be left out. Those that have a result or are in
// hand keep what they come to.
type ItemSkip struct {
	BatchRef
	Command
	Indexes []int64 `json:"indexes"`
}

// BatchCopy asks for a new batch of the items of one that has ended.
type BatchCopy struct {
	BatchRef
	Command
	ResultFilter
	// As is the new batch's id. With the id of a copy that exists the answer is
	// that one.
	As string `json:"as"`
	// Limit is how many items are taken, 0 for all.
	Limit int64 `json:"limit,omitempty"`
	// Root and Overwrite, if set, are other settings than the batch's own.
	Root      string    `json:"root,omitempty"`
	Overwrite Overwrite `json:"overwrite,omitempty"`
	Terms     Terms     `json:"terms,omitzero"`
	Hold      bool      `json:"hold,omitempty"`
	// DryRun only counts.
	DryRun bool `json:"dry_run,omitempty"`
}

// BatchCopied answers BatchCopy. The requests are published afterwards, by the
// collector.
type BatchCopied struct {
	// Items is how many items the copy has.
	Items int64 `json:"items"`
	// Batch is the new batch, nil after a dry run and when there is nothing to copy.
	Batch *Summary `json:"batch,omitempty"`
}

// BatchEvent is one thing that has happened to a batch.
type BatchEvent struct {
	// ID is the same wherever the event is told, and never comes again.
	ID string `json:"id"`
	// No is the event's place among those of its batch, from 1.
	No     int64  `json:"no"`
	Batch  string `json:"batch"`
	Change Change `json:"change"`
	From   State  `json:"from,omitempty"`
	To     State  `json:"to"`
	Reason Reason `json:"reason,omitempty"`
	// By is who wanted it, empty for exhume itself.
	By   string    `json:"by,omitempty"`
	Note string    `json:"note,omitempty"`
	At   time.Time `json:"at"`
}

// FleetChange asks for other steering of the whole fleet; what is nil stays.
type FleetChange struct {
	Command
	// Pause pauses or, when false, resumes everything; Until is when a pause ends
	// by itself.
	Pause *bool     `json:"pause,omitempty"`
	Until time.Time `json:"until,omitzero"`
	// Limits are set, each in place of the one with its scope. One that limits
	// nothing is removed.
	Limits []Limit `json:"limits,omitempty"`
}

// Audit compares what ledger, evidence and queue say of a batch.
type Audit struct {
	Batch string `json:"batch"`
	State State  `json:"state"`
	Total int64  `json:"total"`
	Open  int64  `json:"open"`
	// Counts are the ledger's, Counted those of its results, counted anew.
	Counts  Counts `json:"counts"`
	Counted Counts `json:"counted"`
	// Evidence is how many lines about items of the batch the log of this
	// collector has, or -1 where others have theirs, too.
	Evidence int64 `json:"evidence"`
	// Queued is how many messages of the batch the broker holds; Published for how
	// many items there is a request, 0 when the batch has ended.
	Queued    int64 `json:"queued_messages"`
	Published int64 `json:"published"`
	// Kept is for how many items, from the first on, the ledger keeps the request; 0
	// when the batch has ended.
	Kept int64 `json:"kept"`
	// Problems are what does not agree, a line each; none when all is well.
	Problems []string `json:"problems,omitempty"`
}

// LettersQuery asks for dead letters: items that failed for good.
type LettersQuery struct {
	// Batch is a reference, empty for all batches.
	Batch string `json:"batch,omitempty"`
	// All has those, too, that a copy of their batch tries again.
	All bool `json:"all,omitempty"`
	ResultFilter
	// After is Next of the page before; Limit how many are wanted, 0 for
	// MaxResultsPage, which is the most.
	After string `json:"after,omitempty"`
	Limit int    `json:"limit,omitempty"`
}

// LettersPage answers LettersQuery, newest batch first.
type LettersPage struct {
	Letters []Result `json:"letters"`
	// Next is After of the query for the next page, empty when this is the last.
	Next string `json:"next,omitempty"`
}

// LetterGroups answers LettersQuery with groups of alike letters, the largest
// first. The last may be of all letters that are not told apart any more, without
// code and samples.
type LetterGroups struct {
	Groups []LetterGroup `json:"groups"`
}

// LetterGroup are dead letters with the same code and message.
type LetterGroup struct {
	Code Code `json:"code"`
	// Message is their details, as Normalise leaves them.
	Message string `json:"message"`
	Count   int64  `json:"count"`
	// Batches is how many batches they are of.
	Batches int64     `json:"batches"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	// Samples are up to three of them.
	Samples []Result `json:"samples"`
	Remedy  string   `json:"remedy"`
}
