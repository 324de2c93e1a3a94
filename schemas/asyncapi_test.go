package schemas

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// asyncDoc is as much of an AsyncAPI 3 document as there is to check.
type asyncDoc struct {
	AsyncAPI string `json:"asyncapi"`
	Channels map[string]struct {
		Address    string         `json:"address"`
		Parameters map[string]any `json:"parameters"`
		Messages   map[string]ref `json:"messages"`
	} `json:"channels"`
	Operations map[string]struct {
		Action   string `json:"action"`
		Channel  ref    `json:"channel"`
		Messages []ref  `json:"messages"`
	} `json:"operations"`
	Components struct {
		Messages map[string]struct {
			Name     string `json:"name"`
			Payload  ref    `json:"payload"`
			Headers  any    `json:"headers"`
			Examples []struct {
				Headers map[string]string `json:"headers"`
				Payload any               `json:"payload"`
			} `json:"examples"`
		} `json:"messages"`
	} `json:"components"`
}

type ref struct {
	Ref string `json:"$ref"`
}

func asyncAPIDoc(t *testing.T) (d asyncDoc) {
	t.Helper()
	if err := json.Unmarshal(AsyncAPI(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The addresses are those that the code uses.
func TestAsyncAPIAddresses(t *testing.T) {
	want := map[string]string{
		"restoreSingle": RestoreSubject(Single),
		"restoreBatch":  RestoreSubject("{batch}"),
		"restoreRetry":  RetrySubject("{batch}"),
		"result":        ResultSubject("{worker}", "{batch}"),
		"itemEvent":     ItemEventSubject("{requestId}"),
		"batchEvent":    BatchEventSubject("{batch}"),
	}
	got := map[string]string{}
	for name, c := range asyncAPIDoc(t).Channels {
		got[name] = c.Address
		for p := range c.Parameters {
			if !strings.Contains(c.Address, "{"+p+"}") {
				t.Errorf("%s: no parameter %s in %s", name, p, c.Address)
			}
		}
		if n := strings.Count(c.Address, "{"); n != len(c.Parameters) {
			t.Errorf("%s: %d parameters, want %d", name, len(c.Parameters), n)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Everything that the document refers to exists, and everything in it is used.
func TestAsyncAPIReferences(t *testing.T) {
	d := asyncAPIDoc(t)
	if !strings.HasPrefix(d.AsyncAPI, "3.") {
		t.Errorf("version %s", d.AsyncAPI)
	}
	used := map[string]bool{}
	for name, o := range d.Operations {
		channel := strings.TrimPrefix(o.Channel.Ref, "#/channels/")
		c, ok := d.Channels[channel]
		if !ok || o.Action != "send" && o.Action != "receive" {
			t.Errorf("operation %s: channel %s, action %s", name, o.Channel.Ref, o.Action)
		}
		used[channel] = true
		for _, m := range o.Messages {
			message, found := strings.CutPrefix(m.Ref, o.Channel.Ref+"/messages/")
			if _, ok := c.Messages[message]; !ok || !found {
				t.Errorf("operation %s: message %s", name, m.Ref)
			}
		}
	}
	for name, c := range d.Channels {
		if !used[name] {
			t.Errorf("channel %s has no operation", name)
		}
		for _, m := range c.Messages {
			message := strings.TrimPrefix(m.Ref, "#/components/messages/")
			if _, ok := d.Components.Messages[message]; !ok {
				t.Errorf("channel %s: message %s", name, m.Ref)
			}
			used["message "+message] = true
		}
	}
	for name, m := range d.Components.Messages {
		schema := strings.TrimSuffix(m.Payload.Ref, ".schema.json")
		if !slices.Contains(JSONSchemas(), schema) {
			t.Errorf("message %s: payload %s", name, m.Payload.Ref)
		}
		if !used["message "+name] {
			t.Errorf("message %s is on no channel", name)
		}
		for _, e := range m.Examples {
			if err := compile(t, schema).Validate(e.Payload); err != nil {
				t.Errorf("message %s: its example: %v", name, err)
			}
			if id, ok := e.Headers[HeaderRequestID]; ok && !CheckRequestID(id) {
				t.Errorf("message %s: request id %q", name, id)
			}
		}
	}
}
