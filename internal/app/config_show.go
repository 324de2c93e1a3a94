package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/broker"
)

// Setting is one value of a configuration.
type Setting struct {
	// Key is section.name, as in a file.
	Key string
	// Value has the type of the field in Config; a Secret one is complete.
	Value any
	// Origin is "default", "file PATH", "env NAME" or "flag --NAME".
	Origin string
	// Secret says how much of the value is secret: "" nothing, "url" the
	// credentials in it, "urls" those in several, "all" all of it.
	Secret string
}

// Settings are all values, in the order of Config.
func (c *Config) Settings() []Setting {
	var out []Setting
	v := reflect.ValueOf(c).Elem()
	for _, s := range configTables().settings {
		out = append(out, Setting{
			Key: s.key, Value: v.FieldByIndex(s.index).Interface(),
			Origin: c.origins[s.key].String(), Secret: s.secret,
		})
	}
	return out
}

// Show writes the configuration for people and scripts. As "json" it has the
// sections and keys of a file, null for what is not set, then the origins of all
// settings by key and the file that was read; as "table" a line for each
// setting. Secrets are hidden unless debug is set.
func (c *Config) Show(w io.Writer, format string, debug bool) error {
	settings := c.Settings()
	for i, s := range settings {
		if !debug {
			settings[i].Value = s.shown()
		}
	}
	switch format {
	case "json":
		return c.showJSON(w, settings)
	case "table":
		return showTable(w, settings)
	}
	return fmt.Errorf("format %q is not one of json, table", format)
}

// shown is the value without its secrets.
func (s *Setting) shown() any {
	text, _ := s.Value.(string)
	switch {
	case text == "":
	case s.Secret == "url":
		return archive.Redact(text)
	case s.Secret == "urls":
		return broker.Redact(text)
	case s.Secret == "all":
		return "***"
	}
	return s.Value
}

func (c *Config) showJSON(w io.Writer, settings []Setting) error {
	var doc, section, origins orderedObject
	for i, s := range settings {
		name, key, _ := strings.Cut(s.Key, ".")
		section = append(section, orderedMember{key, shownValue(s.Value)})
		origins = append(origins, orderedMember{s.Key, s.Origin})
		if i+1 == len(settings) || !strings.HasPrefix(settings[i+1].Key, name+".") {
			doc = append(doc, orderedMember{name, section})
			section = nil
		}
	}
	doc = append(doc, orderedMember{"origins", origins}, orderedMember{"file", shownValue(c.File)})
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// shownValue is a value as JSON has it: null for what is not set, and numbers
// that may have a fraction always with one.
func shownValue(v any) any {
	switch v := v.(type) {
	case string:
		if v == "" {
			return nil
		}
	case float64:
		text := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return json.Number(text)
	}
	return v
}

func showTable(w io.Writer, settings []Setting) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "KEY\tVALUE\tORIGIN") // Flush has the first error
	for _, s := range settings {
		value := shownValue(s.Value)
		if p, ok := value.(*int); ok && p != nil {
			value = *p
		} else if value == nil || ok {
			value = "-"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%v\t%s\n", s.Key, value, s.Origin)
	}
	return tw.Flush()
}

// orderedObject is a JSON object whose members keep their order.
type orderedObject []orderedMember

type orderedMember struct {
	name  string
	value any
}

// MarshalJSON writes the members in their order.
func (o orderedObject) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := enc.Encode(m.name); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := enc.Encode(m.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
