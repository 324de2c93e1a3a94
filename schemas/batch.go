package schemas

import "time"

// State is where a batch stands in its life.
type State string

// The states of a batch. Open and running batches are active; the others are
// final and never change again.
const (
	// StateOpen: requests are being published, the total is not known yet.
	StateOpen State = "open"
	// StateRunning: sealed with a total, results are coming in.
	StateRunning State = "running"
	// StateSucceeded: every item was restored or was there already.
	StateSucceeded State = "succeeded"
	// StatePartial: some items were restored, some failed.
	StatePartial State = "partial"
	// StateFailed: every item failed.
	StateFailed State = "failed"
)

// Final says whether a batch in this state has ended.
func (s State) Final() bool { return s != "" && s != StateOpen && s != StateRunning }

// Overwrite says what to do where a file stands already under an output's name.
// A file with the same content is never written again, whatever the policy,
// except under OverwriteAlways.
type Overwrite string

// The overwrite policies.
const (
	// OverwriteNever leaves other content alone: the item fails with
	// CodeDestinationExists.
	OverwriteNever Overwrite = "never"
	// OverwriteIfDifferent replaces other content.
	OverwriteIfDifferent Overwrite = "if-different"
	// OverwriteAlways writes the file anew, even over the same content.
	OverwriteAlways Overwrite = "always"
)

// Settings are the part of a batch that says what restoring means. Two
// submissions of one manifest with other settings are two batches.
type Settings struct {
	// Root is the absolute directory below which every output lies.
	Root string `json:"root"`
	// Overwrite is the policy for outputs that exist; empty means never.
	Overwrite Overwrite `json:"overwrite,omitempty"`
	// Mode is the permission bits of restored files before the umask; 0 means 0644.
	Mode uint32 `json:"mode,omitempty"`
}

// Batch is one submission of a manifest. It is the value that workers watch in
// BucketBatches and the head of every report about the batch.
type Batch struct {
	ID       string   `json:"id"`
	State    State    `json:"state"`
	Settings Settings `json:"settings"`
	// Actor is who submitted the batch.
	Actor string `json:"actor"`
	// Manifest is the manifest's name as the submitter gave it, "-" for
	// standard input.
	Manifest string `json:"manifest,omitempty"`
	// ManifestSHA256 is the digest of the manifest's bytes as they are stored,
	// lower-case hex.
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
	// Archive is the archive's URL with secrets removed.
	Archive string `json:"archive,omitempty"`
	// Total is the number of items; 0 until sealed.
	Total     int64     `json:"total"`
	CreatedAt time.Time `json:"created_at"`
	SealedAt  time.Time `json:"sealed_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// Counts are the items of a batch by outcome.
// Restored+Unchanged+Failed+Skipped+Cancelled is the number of results.
type Counts struct {
	Restored  int64 `json:"restored"`
	Unchanged int64 `json:"unchanged"`
	Failed    int64 `json:"failed"`
	Skipped   int64 `json:"skipped"`
	Cancelled int64 `json:"cancelled"`
	// Bytes is the sum of the sizes of restored items.
	Bytes int64 `json:"bytes"`
}

// Done is the number of items that have a result.
func (c Counts) Done() int64 {
	return c.Restored + c.Unchanged + c.Failed + c.Skipped + c.Cancelled
}

// Add counts one result.
func (c *Counts) Add(o Outcome, size int64) {
	switch o {
	case OutcomeRestored:
		c.Restored++
		c.Bytes += size
	case OutcomeUnchanged:
		c.Unchanged++
	case OutcomeSkipped:
		c.Skipped++
	case OutcomeCancelled:
		c.Cancelled++
	default:
		c.Failed++
	}
}

// Plus adds the counts of d.
func (c *Counts) Plus(d Counts) {
	c.Restored += d.Restored
	c.Unchanged += d.Unchanged
	c.Failed += d.Failed
	c.Skipped += d.Skipped
	c.Cancelled += d.Cancelled
	c.Bytes += d.Bytes
}

// EndState is the state in which a batch with these counts ends.
func (c Counts) EndState() State {
	bad := c.Failed + c.Skipped + c.Cancelled
	switch {
	case bad == 0:
		return StateSucceeded
	case c.Restored+c.Unchanged > 0:
		return StatePartial
	default:
		return StateFailed
	}
}

// Summary is a batch with its counts: what lists, reports and the end-of-batch
// event carry.
type Summary struct {
	Batch
	Counts Counts `json:"counts"`
}

// Open is the number of items that have no result yet; 0 for a batch that is
// not sealed, whose total is unknown.
func (s Summary) Open() int64 { return max(0, s.Total-s.Counts.Done()) }
