package schemas

import "time"

// Outcome is how an item ended.
type Outcome string

// The outcomes. There is exactly one for each item of a batch.
const (
	// OutcomeRestored: the bytes were written, verified and made durable, after
	// the request was made.
	OutcomeRestored Outcome = "restored"
	// OutcomeUnchanged: the same content stood there before the request was made.
	OutcomeUnchanged Outcome = "unchanged"
	// OutcomeFailed: the item was given up, for the reason in Code.
	OutcomeFailed Outcome = "failed"
	// OutcomeSkipped: an operator left the item out.
	OutcomeSkipped Outcome = "skipped"
	// OutcomeCancelled: the batch was cancelled before the item's turn.
	OutcomeCancelled Outcome = "cancelled"
)

// Durations say where an item's time went, in milliseconds. Work that a group
// of items shares (the look-up, the sync) counts in full for each of them.
type Durations struct {
	// Queue is from the publication of the request to its delivery.
	Queue float64 `json:"queue_ms"`
	// Read is looking the tombstone up and reading the stored bytes.
	Read float64 `json:"read_ms"`
	// Decode is decompressing and hashing.
	Decode float64 `json:"decode_ms"`
	// Write is writing, syncing and renaming.
	Write float64 `json:"write_ms"`
	// Total is from delivery to the result.
	Total float64 `json:"total_ms"`
}

// Result is the one final outcome of one item.
type Result struct {
	Request
	Outcome Outcome `json:"outcome"`
	// Code is the stable error code of an item that was not restored.
	Code Code `json:"code,omitempty"`
	// Detail is one line of cause for people, without secrets.
	Detail string `json:"detail,omitempty"`
	// Attempts is how many times the item was tried, this time included; 0 when it
	// was cancelled, skipped or given up before.
	Attempts int `json:"attempts"`
	// History are the attempts that failed before, oldest first, the last MaxHistory
	// of them.
	History []Attempt `json:"history,omitempty"`
	// Item is the archive's item id; Repo and Path are what the archive calls it.
	Item string `json:"item,omitempty"`
	Repo string `json:"repo,omitempty"`
	Path string `json:"path,omitempty"`
	// SHA256 (lower-case hex) and Size (bytes) are those of the content.
	SHA256 string `json:"sha256,omitempty"`
	Size   int64  `json:"size"`
	// Target is the absolute place of the output.
	Target     string    `json:"target,omitempty"`
	Worker     string    `json:"worker"`
	FinishedAt time.Time `json:"finished_at"`
	Durations  Durations `json:"durations"`
}

// ResultGroup is one message on StreamResults: what one worker has to tell of items
// that it had in hand together, all of one batch.
type ResultGroup struct {
	Batch   string   `json:"batch"`
	Worker  string   `json:"worker"`
	Results []Result `json:"results"`
	// Failures are attempts that failed and will be followed by another.
	Failures []Failure `json:"failures,omitempty"`
}

// MaxHistory is how many failed attempts of an item are remembered in full.
const MaxHistory = 20

// Attempt is one try that failed.
type Attempt struct {
	At     time.Time `json:"at"`
	Worker string    `json:"worker"`
	Code   Code      `json:"code"`
	// Detail is one line of cause for people, without secrets.
	Detail string `json:"detail,omitempty"`
}

// Failure is a failed attempt at an item that will be tried again. It is not the
// item's result, and there is one for each (batch, index, number).
type Failure struct {
	Batch     string `json:"batch"`
	Index     int64  `json:"index"`
	Tombstone string `json:"tombstone"`
	Output    string `json:"output"`
	Actor     string `json:"actor"`
	// Number is which attempt it was, from 1.
	Number int `json:"number"`
	Attempt
	// NextTry is the earliest time of the next attempt.
	NextTry time.Time `json:"next_try"`
}

// Retry is what is kept in BucketRetries of an item that failed and will be
// tried again.
type Retry struct {
	// Attempts is how many have failed so far; 0 when the item is only suspected of
	// killing workers.
	Attempts int `json:"attempts"`
	// Causes are the codes of the failed attempts, oldest first.
	Causes []Code `json:"causes"`
	// History are the failed attempts, oldest first, the last MaxHistory of them.
	History []Attempt `json:"history,omitempty"`
	// LastError is the last attempt's one-line cause.
	LastError string `json:"last_error"`
	// NextTry is the earliest time of the next attempt.
	NextTry time.Time `json:"next_try"`
	// Deaths is how many workers died while they tried the item alone. During such a
	// try it is one more, and none once a worker has survived one.
	Deaths int `json:"deaths,omitempty"`
}

// Artifact is what the archive knows about the bytes behind one tombstone.
type Artifact struct {
	Tombstone string `json:"tombstone"`
	// Item and ID are the archive's ids of the item and of its artifact; items
	// with the same content share one artifact.
	Item string `json:"item"`
	ID   string `json:"artifact"`
	Repo string `json:"repo"`
	Path string `json:"path"`
	// SHA256 (lower-case hex) and Size (bytes) are those of the raw content.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	// Codec is the compression as the archive names it: "zstd", "zlib" or "".
	Codec string `json:"codec"`
	// Stored is the length of the compressed bytes, -1 when there are none.
	Stored int64 `json:"stored"`
	// URL is the object URL, if any; "purged://…" marks a purged artifact.
	URL string `json:"url,omitempty"`
}
