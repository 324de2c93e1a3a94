package schemas

// Actions of evidence records.
const (
	// ActionRestore: one item was restored or found unchanged (see Outcome).
	ActionRestore = "RESTORE"
	// ActionRestoreFail: one item was given up.
	ActionRestoreFail = "RESTORE_FAIL"
	// ActionRestoreRetry: an attempt at one item failed and will be followed by
	// another, at NextTry.
	ActionRestoreRetry = "RESTORE_RETRY"
	// ActionRestoreSkip: one item was left out: skipped or cancelled (see Outcome).
	ActionRestoreSkip = "RESTORE_SKIP"
	// ActionBatchRestore: a batch began or ended (see Phase).
	ActionBatchRestore = "BATCH_RESTORE"
	// ActionBatchControl: somebody, or exhume itself, changed how a batch, or the
	// fleet, is worked on (see Change).
	ActionBatchControl = "BATCH_CONTROL"
	// ActionEvidenceRebuild: lines were lost, and those that follow, as many as Total
	// says, were written anew from the ledger, as far as it knew (see Reason).
	ActionEvidenceRebuild = "EVIDENCE_REBUILD"
	// ActionArchive: an item was stored.
	ActionArchive = "ARCHIVE"
)

// Phases of ActionBatchRestore records.
const (
	PhaseStart = "start"
	PhaseEnd   = "end"
)

// Record is one line of the evidence log. Fields stand in the order of their
// JSON names, because lines have sorted keys; keep it so.
//
// The writer of the log fills Prev, Seq and TS; everybody else leaves them empty.
type Record struct {
	Action string `json:"action"`
	Actor  string `json:"actor"`
	// Attempt is the number of the attempt that settled the item or failed, from 1.
	Attempt int `json:"attempt,omitempty"`
	// Backend is the archive's kind (sqlite, postgres, mariadb); of failures.
	Backend string `json:"backend,omitempty"`
	Batch   string `json:"batch,omitempty"`
	// Change is what was done, and ChangeID its id; of BATCH_CONTROL.
	Change   Change `json:"change,omitempty"`
	ChangeID string `json:"change_id,omitempty"`
	// Code is the stable error code; of items that were not restored.
	Code           Code  `json:"code,omitempty"`
	CompressedSize int64 `json:"compressed_size,omitempty"`
	// Counts are the results of a batch that has ended.
	Counts          *Counts  `json:"counts,omitempty"`
	DecompressionMS *float64 `json:"decompression_ms,omitempty"`
	DurationMS      *float64 `json:"duration_ms,omitempty"`
	// Index is the item's place in its batch, from 0; absent outside batches.
	Index          *int64 `json:"index,omitempty"`
	Manifest       string `json:"manifest,omitempty"`
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
	// Mode is the permission bits of restored files, octal; of a batch that began.
	Mode string `json:"mode,omitempty"`
	// NextTry is the earliest time of the next attempt, UTC to the millisecond:
	// 2006-01-02T15:04:05.000Z.
	NextTry string  `json:"next_try,omitempty"`
	Outcome Outcome `json:"outcome,omitempty"`
	// Overwrite is the policy for outputs that exist; of a batch that began.
	Overwrite Overwrite `json:"overwrite,omitempty"`
	// Path is where the bytes went (RESTORE, absolute) or came from (ARCHIVE).
	Path  string `json:"path,omitempty"`
	Phase string `json:"phase,omitempty"`
	// Prev is the SHA-256 (lower-case hex) of the line before this one without
	// its newline, whoever wrote it; 64 zeros on the first line of a log.
	Prev string `json:"prev"`
	// Reason is the one-line cause of a failure, without secrets, or the words of
	// who made a change.
	Reason string `json:"reason,omitempty"`
	Repo   string `json:"repo,omitempty"`
	Root   string `json:"root,omitempty"`
	// Seq counts the records of this log that exhume wrote, from 1.
	Seq    int64  `json:"seq"`
	SHA256 string `json:"sha256,omitempty"`
	Size   *int64 `json:"size,omitempty"`
	State  State  `json:"state,omitempty"`
	// StateReason is the reason of the state that a change has led to.
	StateReason Reason `json:"state_reason,omitempty"`
	// Steering is what holds for the whole fleet from then on: a Steering as JSON
	// text.
	Steering  string `json:"steering,omitempty"`
	Tombstone string `json:"tombstone,omitempty"`
	Total     *int64 `json:"total,omitempty"`
	// TS is the time of writing, UTC to the second: 2006-01-02T15:04:05Z.
	TS string `json:"ts"`
	// URL is the archive's URL with secrets removed; of failures.
	URL     string   `json:"url,omitempty"`
	Worker  string   `json:"worker,omitempty"`
	WriteMS *float64 `json:"write_ms,omitempty"`
}

// EvidencePosition is a place in the evidence log: just after a whole line.
type EvidencePosition struct {
	// Offset is the number of bytes before the place.
	Offset int64 `json:"offset"`
	// Seq is the sequence number of the last record before it, 0 when none.
	Seq int64 `json:"seq"`
	// Prev is the SHA-256 (lower-case hex) of the last line before it.
	Prev string `json:"prev"`
}
