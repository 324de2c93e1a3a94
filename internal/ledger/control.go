package ledger

import (
	"encoding/json"

	"github.com/exhume/exhume/schemas"
)

// control is the part of a batch that says how it is worked on and why it is in
// its state. Nobody looks for batches by it: it is one text.
type control struct {
	Standing   schemas.Standing `json:"standing,omitzero"`
	Terms      schemas.Terms    `json:"terms,omitzero"`
	PerMessage int64            `json:"per_message,omitempty"`
	Source     *schemas.Source  `json:"source,omitempty"`
	Skips      []schemas.Skip   `json:"skips,omitempty"`
}

// controlText is how the control of a batch is stored: as JSON, or empty when
// there is nothing to say.
func controlText(b *schemas.Batch) (string, error) {
	text, err := json.Marshal(control{b.Standing, b.Terms, b.PerMessage, b.Source, b.Skips})
	if string(text) == "{}" {
		return "", nil
	}
	return string(text), err
}

// setControl gives the batch what was stored as text.
func setControl(b *schemas.Batch, text string) error {
	if text == "" {
		return nil
	}
	var c control
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	b.Standing, b.Terms, b.PerMessage, b.Source, b.Skips = c.Standing, c.Terms, c.PerMessage, c.Source, c.Skips
	return nil
}
