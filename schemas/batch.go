package schemas

import "time"

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
	ID    string `json:"id"`
	State State  `json:"state"`
	Standing
	Settings Settings `json:"settings"`
	Terms    Terms    `json:"terms,omitzero"`
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
	// PerMessage is how many requests one message carries at most.
	PerMessage int64 `json:"per_message,omitempty"`
	// Source, if set, is where the batch's items come from instead of a manifest.
	Source *Source `json:"source,omitempty"`
	// Skips are items that are left out when their turn comes, by their indexes
	// in order.
	Skips []Skip `json:"skips,omitempty"`
}

// Standing says why a batch is in its state.
type Standing struct {
	Reason Reason `json:"reason,omitempty"`
	// By is who brought it there, empty for exhume itself; Note is why, in their words.
	By   string `json:"by,omitempty"`
	Note string `json:"note,omitempty"`
	// Since is when, and Until when a pause ends by itself.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
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

// left is the number of items that have a result and are not there.
func (c Counts) left() int64 { return c.Failed + c.Skipped + c.Cancelled }

// Summary is a batch with its counts: what lists, reports and the end-of-batch
// event carry.
type Summary struct {
	Batch
	Counts Counts `json:"counts"`
}

// Open is the number of items that have no result yet; 0 for a batch that is
// not sealed, whose total is unknown.
func (s Summary) Open() int64 { return max(0, s.Total-s.Counts.Done()) }
