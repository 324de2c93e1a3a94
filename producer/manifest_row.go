package producer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/exhume/exhume/schemas"
)

// maxActor is the longest actor in characters that every archive can record.
const maxActor = 256

// request is what a row asks for, or why it cannot be asked for.
func (m *Manifest) request(rec *record) (schemas.Request, error) {
	var none schemas.Request
	if rec.bad != nil {
		return none, rec.bad
	}
	tombstone := strings.TrimSpace(rec.tombstone)
	switch {
	case tombstone == "":
		return none, errors.New("missing tombstone")
	case len(tombstone) != 36 || uuid.Validate(tombstone) != nil:
		return none, fmt.Errorf("tombstone %s is not a UUID (hex digits 8-4-4-4-12)", quote(tombstone))
	case rec.output == "":
		return none, errors.New("missing output")
	}
	output, err := cleanOutput(m.opts.Root, rec.output)
	if err != nil {
		return none, err
	}
	actor := strings.TrimSpace(rec.actor)
	if actor == "" {
		actor = m.opts.Actor
	}
	if err := checkActor(actor); err != nil {
		return none, err
	}
	if err := checkLabels(rec.labels); err != nil {
		return none, err
	}
	return schemas.Request{Tombstone: tombstone, Output: output, Actor: actor, Labels: rec.labels}, nil
}

func checkActor(actor string) error {
	if actor == "" {
		return errors.New("no actor: name one in the row, or for all rows (--by)")
	}
	if c, found := control(actor); found {
		return fmt.Errorf("actor %s contains the control character %U", quote(actor), c)
	}
	if utf8.RuneCountInString(actor) > maxActor {
		return fmt.Errorf("actor %s is longer than %d characters", quote(actor), maxActor)
	}
	return nil
}

// checkLabels must name no single label: a map has no order.
func checkLabels(labels map[string]string) error {
	size := 0
	for name, value := range labels {
		size += len(name) + len(value)
		if _, found := control(name); found || name == "" {
			return errors.New("a label's name is empty or contains a control character")
		}
		if strings.Contains(value, "\x00") {
			return errors.New("a label contains the control character U+0000")
		}
	}
	if len(labels) > maxLabels || size > maxLabelBytes {
		return fmt.Errorf("too many labels (%d with %d bytes): at most %d with %d bytes are carried along",
			len(labels), size, maxLabels, maxLabelBytes)
	}
	return nil
}

// control finds the first control character.
func control(s string) (rune, bool) {
	i := strings.IndexFunc(s, unicode.IsControl)
	if i < 0 {
		return 0, false
	}
	c, _ := utf8.DecodeRuneInString(s[i:])
	return c, true
}

// quote shows text from a manifest in a message: on one line, and not at length.
func quote(s string) string {
	const most = 100
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
}
