package schemas

import "regexp"

// Single is the id of the standing batch: requests that upstream systems publish
// one at a time, on RestoreSubject(Single), are its items. It never ends.
const Single = "single"

// SingleRequest is one message on RestoreSubject(Single). The item's index is
// the message's sequence number in StreamRestore.
type SingleRequest struct {
	// Tombstone is the item's UUID in the archive.
	Tombstone string `json:"tombstone"`
	// Output is where the bytes go: a slash-separated path below the root that
	// the operator of the fleet has set for single requests.
	Output string `json:"output"`
	// Actor is on whose behalf the item is restored.
	Actor string `json:"actor"`
	// Labels are carried through to the result.
	Labels map[string]string `json:"labels,omitempty"`
}

// HeaderRequestID is the header of a single request with the id that its
// publisher knows it by; see CheckRequestID. Without it the message id
// (Nats-Msg-Id) counts, and without that seq-<sequence number>.
const HeaderRequestID = "Exhume-Request-Id"

// LabelRequestID is the label of a single request's result that holds the
// request's id.
const LabelRequestID = "request_id"

// ItemEventSubject is the subject on which the result of a single request is
// announced, as a Result, when it is in ledger and evidence. It may be announced
// more than once.
func ItemEventSubject(requestID string) string { return "exhume.event.item." + requestID }

var requestID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// CheckRequestID says whether s can be a request's id: a token of a subject of 1
// to 64 letters, digits, '-' and '_'.
func CheckRequestID(s string) bool { return requestID.MatchString(s) }
