package producer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// record is one row as it was read, before anything is known to be right.
type record struct {
	place
	tombstone, output, actor string
	labels                   map[string]string
	// bad is why the row could not be read; the fields are then unusable.
	bad error
}

// Bounds of a row's labels, which travel with every message about the item.
const (
	maxLabels     = 64
	maxLabelBytes = 4096
)

// label keeps a further column or key; an empty value is dropped.
func (r *record) label(name, value string) {
	if value == "" {
		return
	}
	if r.labels == nil {
		r.labels = make(map[string]string)
	}
	r.labels[name] = value
}

// objectDecoder turns JSON objects into records. Keys are exact: case matters,
// and of a key that stands twice the last one counts.
type objectDecoder struct {
	tokens jsontext.Decoder
	row    bytes.Reader
	// fields are the values by key; those that every row has stand apart.
	tombstone, output, actor json.RawMessage
	fields                   map[string]json.RawMessage
}

// decode fills rec from one row, which is not empty and has no blanks around it.
func (d *objectDecoder) decode(row []byte, rec *record) error {
	if !utf8.Valid(row) {
		return errors.New("the row is not valid UTF-8")
	}
	if row[0] != '{' {
		if err := json.Unmarshal(row, new(json.RawMessage)); err != nil {
			return fmt.Errorf("not valid JSON: %w", err)
		}
		return fmt.Errorf("the row is %s, not an object", kindOf(row))
	}
	if err := d.split(row); err != nil {
		return fmt.Errorf("not valid JSON: %w", err)
	}
	for _, f := range []struct {
		name  string
		value json.RawMessage
		into  *string
	}{{"tombstone", d.tombstone, &rec.tombstone}, {"output", d.output, &rec.output}, {"actor", d.actor, &rec.actor}} {
		if f.value == nil {
			continue
		}
		if f.value[0] != '"' && f.value[0] != 'n' {
			return fmt.Errorf("%s must be a string, not %s", f.name, kindOf(f.value))
		}
		var err error
		if *f.into, err = scalar(f.value); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return d.labels(rec)
}

// split finds the values of an object.
func (d *objectDecoder) split(row []byte) error {
	if len(d.fields) > maxLabels {
		d.fields = nil // clearing a map costs as much as it ever held
	}
	clear(d.fields)
	d.tombstone, d.output, d.actor = nil, nil, nil
	if d.walk(row) == nil {
		return nil
	}
	// Whatever the fast way stumbles over, the other says what it is.
	clear(d.fields)
	if err := json.Unmarshal(row, &d.fields); err != nil {
		return err
	}
	for name, into := range map[string]*json.RawMessage{"tombstone": &d.tombstone, "output": &d.output, "actor": &d.actor} {
		*into = d.fields[name]
		delete(d.fields, name)
	}
	return nil
}

// walk splits an object token by token, which takes a third of the time that
// decoding it into a map takes. Its values are parts of row.
func (d *objectDecoder) walk(row []byte) error {
	d.row.Reset(row)
	d.tokens.Reset(&d.row, jsontext.AllowDuplicateNames(true))
	if _, err := d.tokens.ReadToken(); err != nil {
		return err
	}
	for d.tokens.PeekKind() != '}' {
		token, err := d.tokens.ReadToken()
		if err != nil {
			return err
		}
		name := token.String()
		value, err := d.tokens.ReadValue()
		if err != nil {
			return err
		}
		end := d.tokens.InputOffset()
		switch value := json.RawMessage(row[end-int64(len(value)) : end]); name {
		case "tombstone":
			d.tombstone = value
		case "output":
			d.output = value
		case "actor":
			d.actor = value
		default:
			if d.fields == nil {
				d.fields = map[string]json.RawMessage{}
			}
			d.fields[name] = value
		}
	}
	if _, err := d.tokens.ReadToken(); err != nil {
		return err
	}
	if _, err := d.tokens.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("something follows")
	}
	return nil
}

// labels takes the keys that are left, in order, so that of several flaws the
// same one is named each time.
func (d *objectDecoder) labels(rec *record) error {
	if len(d.fields) == 0 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(d.fields)) {
		value, err := scalar(d.fields[name])
		if err != nil {
			return fmt.Errorf("label %s: %w", quote(name), err)
		}
		rec.label(name, value)
	}
	return nil
}

// scalar is a JSON value as a string: strings bare, null empty, lists and
// objects as compact JSON, anything else as it is written.
func scalar(value []byte) (string, error) {
	switch value[0] {
	case '"':
		return unquote(value)
	case 'n':
		return "", nil
	case '{', '[':
		var compact bytes.Buffer
		err := json.Compact(&compact, value)
		return compact.String(), err
	default:
		return string(value), nil
	}
}

// unquote decodes a valid JSON string. Half of a surrogate pair is an error:
// decoding would replace it, and two names could become one.
func unquote(value []byte) (string, error) {
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), nil
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", err
	}
	if strings.ContainsRune(s, utf8.RuneError) {
		escapes := surrogatePair.ReplaceAll(bytes.ReplaceAll(value, []byte(`\\`), []byte(" ")), nil)
		if surrogate.Match(escapes) {
			return "", errors.New(`a \u escape is half of a surrogate pair`)
		}
	}
	return s, nil
}

var (
	surrogate     = regexp.MustCompile(`(?i)\\ud[89a-f]`)
	surrogatePair = regexp.MustCompile(`(?i)\\ud[89ab]..\\ud[c-f]..`)
)

// kindOf names the kind of a valid JSON value.
func kindOf(value []byte) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}
