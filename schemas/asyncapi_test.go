package schemas

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strconv"
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
		Reply    *struct {
			Channel  ref   `json:"channel"`
			Messages []ref `json:"messages"`
		} `json:"reply"`
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
		"restoreCanary": CanarySubject("{batch}"),
		"restoreRetry":  RetrySubject("{batch}"),
		"result":        ResultSubject("{worker}", "{batch}"),
		"itemEvent":     ItemEventSubject("{requestId}"),
		"batchEvent":    BatchEventSubject("{batch}"),
		"workerEvent":   WorkerEventSubject("{worker}"),
		"workerStatus":  SubjectWorkerStatus,
		// Answers go where the question says.
		"workerStatusAnswer": "",
	}
	for subject, call := range documentedCalls(t) {
		channel := "api" + strings.TrimPrefix(strings.TrimPrefix(call.constant, "API"), "Batch")
		want[channel], want[channel+"Answer"] = subject, ""
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

// checkMessages makes sure that the messages of an operation are n different
// ones of its channel.
func (d asyncDoc) checkMessages(t *testing.T, operation string, channel ref, messages []ref, n int) {
	t.Helper()
	c := d.Channels[strings.TrimPrefix(channel.Ref, "#/channels/")]
	seen := map[string]bool{}
	for _, m := range messages {
		message, found := strings.CutPrefix(m.Ref, channel.Ref+"/messages/")
		if _, ok := c.Messages[message]; !ok || !found {
			t.Errorf("operation %s: message %s", operation, m.Ref)
		}
		seen[message] = true
	}
	if len(seen) != n || n == 0 {
		t.Errorf("operation %s: %d messages of %s, want all %d", operation, len(seen), channel.Ref, n)
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
		d.checkMessages(t, name, o.Channel, o.Messages, len(c.Messages))
		if o.Reply == nil {
			continue
		}
		reply := strings.TrimPrefix(o.Reply.Channel.Ref, "#/channels/")
		used[reply] = true
		d.checkMessages(t, name, o.Reply.Channel, o.Reply.Messages, len(d.Channels[reply].Messages))
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

// Every call of the control API is described, with the messages that its subject
// is documented to have, and so is the question to the workers. Nothing else is
// answered.
func TestAsyncAPICalls(t *testing.T) {
	d := asyncAPIDoc(t)
	want := map[string][2][]string{
		SubjectWorkerStatus: {{schemaOf(t, "WorkerQuestion")}, {schemaOf(t, "WorkerStatus")}},
	}
	for subject, call := range documentedCalls(t) {
		want[subject] = [2][]string{{schemaOf(t, call.question)}, {schemaOf(t, "APIError"), schemaOf(t, call.answer)}}
		slices.Sort(want[subject][1])
	}
	got := map[string][2][]string{}
	for _, o := range d.Operations {
		if o.Reply != nil {
			subject := d.Channels[strings.TrimPrefix(o.Channel.Ref, "#/channels/")].Address
			got[subject] = [2][]string{d.payloads(o.Messages), d.payloads(o.Reply.Messages)}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("questions and answers by subject (-documented +described):\n%s", diff)
	}
}

// payloads are the schemas of the payloads of channels' messages, sorted.
func (d asyncDoc) payloads(messages []ref) (all []string) {
	for _, m := range messages {
		channel, message, _ := strings.Cut(strings.TrimPrefix(m.Ref, "#/channels/"), "/messages/")
		component := strings.TrimPrefix(d.Channels[channel].Messages[message].Ref, "#/components/messages/")
		all = append(all, strings.TrimSuffix(d.Components.Messages[component].Payload.Ref, ".schema.json"))
	}
	slices.Sort(all)
	return all
}

// schemaOf is the name of the schema that describes a Go type of this package.
func schemaOf(t *testing.T, goType string) string {
	t.Helper()
	for name, sample := range samples() {
		if reflect.TypeOf(sample).Name() == goType {
			return name
		}
	}
	t.Errorf("no message %s", goType)
	return ""
}

// apiCall names the constant and the Go types of a call of the control API.
type apiCall struct{ constant, question, answer string }

// documentedCalls reads the constants of the calls' subjects, and the table of
// their messages in the comment before them, from the source. It is an error if
// one has what the other lacks.
func documentedCalls(t *testing.T) map[string]apiCall {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "api.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]apiCall{}
	for _, decl := range file.Decls {
		consts, ok := decl.(*ast.GenDecl)
		if !ok || consts.Tok != token.CONST {
			continue
		}
		table := map[string]apiCall{}
		for line := range strings.Lines(consts.Doc.Text()) {
			if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[0], "API") {
				table[f[0]] = apiCall{f[0], f[1], f[2]}
			}
		}
		for _, spec := range consts.Specs {
			value := spec.(*ast.ValueSpec)
			name := value.Names[0].Name
			if !strings.HasPrefix(name, "API") {
				continue
			}
			call, ok := table[name]
			if !ok {
				t.Errorf("%s is not in the table", name)
			}
			delete(table, name)
			subject, err := strconv.Unquote(value.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			calls[subject] = call
		}
		if len(table) > 0 {
			t.Errorf("there are no constants %v", table)
		}
	}
	if len(calls) == 0 {
		t.Fatal("no calls found")
	}
	return calls
}

// The headers of an answer that is an error say the same as its payload.
func TestAsyncAPIErrorExample(t *testing.T) {
	m := asyncAPIDoc(t).Components.Messages["apiError"]
	if len(m.Examples) == 0 {
		t.Fatal("no example")
	}
	for _, e := range m.Examples {
		payload := e.Payload.(map[string]any)
		want := map[string]string{"Nats-Service-Error-Code": payload["code"].(string), "Nats-Service-Error": payload["detail"].(string)}
		if diff := cmp.Diff(want, e.Headers); diff != "" {
			t.Error(diff)
		}
		if code := Code(want["Nats-Service-Error-Code"]); code.Info().Cause == "unknown code" {
			t.Errorf("code %s", code)
		}
	}
}
