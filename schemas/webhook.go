package schemas

import "time"

// Headers of the POST that tells a webhook of an event, as the Standard Webhooks
// specification (version 1) wants them.
const (
	// HeaderWebhookID is the event's id: the same each time that it is told.
	HeaderWebhookID = "Webhook-Id"
	// HeaderWebhookTimestamp is when this POST was sent, in seconds since 1970.
	HeaderWebhookTimestamp = "Webhook-Timestamp"
	// HeaderWebhookSignature holds a signature for each secret, with spaces
	// between: "v1," and the base64 of the HMAC-SHA256 of id.timestamp.body.
	HeaderWebhookSignature = "Webhook-Signature"
)

// Webhook is the body of the POST that tells a webhook of an event. It can come
// more than once; whoever must not act twice goes by the event's id.
type Webhook struct {
	// Type is "batch." and the event's change.
	Type string `json:"type"`
	// Timestamp is when the event happened.
	Timestamp time.Time   `json:"timestamp"`
	Data      WebhookData `json:"data"`
}

// WebhookData is an event and the batch that it happened to.
type WebhookData struct {
	Event BatchEvent `json:"event"`
	// Batch is how the batch stood when this was sent, maybe some events later,
	// without its skips; nil if it is not in the ledger any more.
	Batch *Summary `json:"batch,omitempty"`
}

// NewWebhook is what tells of an event.
func NewWebhook(e BatchEvent, batch *Summary) Webhook {
	if batch != nil && batch.Skips != nil {
		short := *batch
		short.Skips = nil // a thousand of them are more than receivers take
		batch = &short
	}
	return Webhook{"batch." + string(e.Change), e.At, WebhookData{e, batch}}
}
