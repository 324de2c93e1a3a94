package archive

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// State says whether an item can be restored.
type State string

// The states of items.
const (
	// StateOK: the archive holds the bytes.
	StateOK State = "ok"
	// StatePurged: the bytes were purged under dual control.
	StatePurged State = "purged"
	// StateMissing: the archive holds no bytes and no purge is recorded.
	StateMissing State = "missing"
)

// StateOf is the state of an item whose artifact has stored bytes (-1 for none)
// and an object URL ("" for none).
func StateOf(stored int64, url string) State {
	switch {
	case stored >= 0:
		return StateOK
	case strings.HasPrefix(url, purgeMark):
		return StatePurged
	}
	return StateMissing
}

// purgeMark begins the object URL of a purged artifact.
const purgeMark = "purged:"

// Query chooses items for List: those that all of its fields keep. Text is
// compared to the letter.
type Query struct {
	// Repo keeps the items of one repository; empty keeps all.
	Repo string
	// Since keeps the items archived at this time or later, Until those archived
	// before this time; zero keeps all.
	Since, Until time.Time
	// Tags keeps the items that have all of these tags.
	Tags []string
	// Paths keeps the items whose path one of these patterns stands for (see
	// CheckGlob); none keeps all.
	Paths []string
	// Kind, Reason and ArchivedBy keep the items of which the archive says so;
	// empty keeps all.
	Kind, Reason, ArchivedBy string
	// Restorable keeps the items whose bytes are in the archive, or elsewhere as
	// their object URL says.
	Restorable bool
	// Limit is the greatest number of items; 0 means all.
	Limit int
}

// Item is an archived item as lists show it. Times are UTC to the second, as in
// 2006-01-02T15:04:05Z, however the archive spells them; what it spells in a way
// that cannot be understood is shown as it is.
type Item struct {
	ID         string `json:"id"`
	Repo       string `json:"repo"`
	Path       string `json:"path"`
	Commit     string `json:"commit_sha"`
	Reason     string `json:"reason"`
	ArchivedBy string `json:"archived_by"`
	ArchivedAt string `json:"archived_at"`
	Tombstone  string `json:"tombstone_id"`
	Kind       string `json:"kind"`
	State      State  `json:"state"`
	// SHA256 and Size are those of the content, Codec and Stored those of the
	// bytes in the archive; Stored is -1 when there are none.
	SHA256    string   `json:"sha256"`
	Size      int64    `json:"size"`
	Codec     string   `json:"codec"`
	Stored    int64    `json:"stored"`
	LegalHold bool     `json:"legal_hold"`
	Tags      []string `json:"tags"`
}

// Detail is all that the archive knows about one item.
type Detail struct {
	Item
	Language    *string         `json:"language"`
	ArtifactID  string          `json:"artifact_id"`
	Metadata    json.RawMessage `json:"metadata"`
	DeleteAfter *string         `json:"delete_after"`
	RestoredAt  *string         `json:"restored_at"`
	Artifact    ArtifactDetail  `json:"artifact"`
	Events      []Event         `json:"events"`
}

// ArtifactDetail is what Detail adds about the bytes.
type ArtifactDetail struct {
	ID            string  `json:"id"`
	SHA256        string  `json:"content_sha256"`
	Size          int64   `json:"size_bytes"`
	Codec         string  `json:"compression"`
	Stored        int64   `json:"compressed_size"`
	MIME          string  `json:"mime_type"`
	StorageDriver string  `json:"storage_driver"`
	ObjectURL     *string `json:"object_url"`
	CreatedAt     string  `json:"created_at"`
}

// Event is something that happened to an item.
type Event struct {
	Action    string          `json:"action"`
	Actor     string          `json:"actor"`
	Context   json.RawMessage `json:"context"`
	CreatedAt string          `json:"created_at"`
}

// Stats counts what an archive holds.
type Stats struct {
	Items int64 `json:"items"`
	// Retrievable, Purged and Missing are the items by state.
	Retrievable int64 `json:"retrievable"`
	Purged      int64 `json:"purged"`
	Missing     int64 `json:"missing"`
	Artifacts   int64 `json:"artifacts"`
	// RawBytes and StoredBytes are the sizes of the distinct contents that are
	// there, before and after compression.
	RawBytes    int64 `json:"raw_bytes"`
	StoredBytes int64 `json:"stored_bytes"`
}

const stampLayout = "2006-01-02T15:04:05Z"

// stamp spells a time as the archive's tables do.
func stamp(t time.Time) string { return t.UTC().Format(stampLayout) }

// normalStamp spells a time from the archive anew. Both of the forms in use
// lack an offset or say Z.
func normalStamp(s string) string {
	for _, layout := range []string{stampLayout, time.DateTime, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return stamp(t)
		}
	}
	return s
}

// jsonValue is text from the archive as compact JSON: itself if it is JSON, else
// as a JSON string.
func jsonValue(text string) json.RawMessage {
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(text)) == nil {
		return compact.Bytes()
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		return json.RawMessage("null")
	}
	return quoted
}
