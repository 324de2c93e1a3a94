package schemas

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/exhume/exhume/internal/golden"
)

// samples are one value of each message, with every field set.
func samples() map[string]any {
	at := time.Date(2026, 11, 22, 18, 34, 16, 123456789, time.UTC)
	index, size, total, ms, percent, yes := int64(7), int64(410), int64(294), 1.25, 2.5, true
	sum := "bfe09a6aed85f21db093649c9b431f76353794d3b630b2f788859ea96a2ff6a2"
	request := Request{
		Batch: "b-1", Index: index, Tombstone: "9039c97b-1acb-4124-a066-1c30c7ed65f4", Output: "out/naïve <a>.go",
		Actor: "ops", Labels: map[string]string{"ticket": "OPS-1"},
	}
	history := []Attempt{{At: at, Worker: "w-2", Code: CodeArchiveBusy, Detail: "locked"}}
	result := Result{
		Request: request, Outcome: OutcomeFailed, Code: CodeIntegrityMismatch, Detail: "content is longer", Attempts: 2, History: history,
		Item: "i-1", Repo: "acme/app", Path: "a.go", SHA256: sum, Size: size, Target: "/srv/out/a.go", Worker: "w-1", FinishedAt: at,
		Durations: Durations{Queue: 1, Read: 2, Decode: 3, Write: 4, Total: 5.125},
	}
	filter := ResultFilter{Outcomes: []Outcome{OutcomeFailed, OutcomeSkipped}, Code: CodeTooLarge, Message: "has <n> bytes", Since: at}
	standing := Standing{Reason: ReasonPaused, By: "ops", Note: "maintenance", Since: at, Until: at}
	threshold := Threshold{Count: &size, Percent: &percent, MinSample: 100, Action: StopAbort, FailedBefore: 3, DoneBefore: 200}
	terms := Terms{
		Priority: PriorityBulk, MaxInFlight: 500, Canary: &Canary{Size: 20, MaxErrors: 1, Passed: true}, MaxFailures: &threshold,
	}
	priority := PriorityUrgent
	counts := Counts{Restored: 1, Unchanged: 2, Failed: 3, Skipped: 4, Cancelled: 5, Bytes: 6}
	batch := Batch{
		ID: "b-1", State: StatePaused, Standing: standing, Settings: Settings{Root: "/srv", Overwrite: OverwriteNever, Mode: 0o644},
		Terms: terms, Actor: "ops", Manifest: "m.json", ManifestSHA256: sum, Archive: "sqlite:///./a.sqlite", Total: total,
		CreatedAt: at, SealedAt: at, EndedAt: at, PerMessage: 64,
		Source: &Source{Batch: "b-0", ResultFilter: filter, Limit: 300, Total: total},
		Skips:  []Skip{{Index: index, By: "ops", Note: "damaged"}},
	}
	summary := Summary{Batch: batch, Counts: counts}
	ref, command := BatchRef{Ref: "latest"}, Command{ID: "c-1", Actor: "ops", Note: "maintenance"}
	event := BatchEvent{
		ID: "c-1", No: 3, Batch: "b-1", Change: ChangePause, From: StateRunning, To: StatePaused, Reason: ReasonPaused, By: "ops",
		Note: "maintenance", At: at,
	}
	limits := []Limit{{Scope: ScopeBatch("b-1"), Items: 0.5, Bytes: 1 << 20, By: "ops", Note: "office hours", Since: at}}
	breaker := BreakerStatus{
		Of: "/srv", State: BreakerOpen, Since: at, Code: CodeDestinationFull, Reason: "no space left", NextProbe: at, Sick: true, Most: 64,
	}
	worker := WorkerStatus{
		Worker: "w-1", Version: "1.2.3", StartedAt: at, Backend: "sqlite", Draining: true, Items: 64,
		InHand:    []InHand{{Batch: "b-1", First: index, Last: 70, Since: at, Attempt: 2}},
		Breakers:  []BreakerStatus{breaker},
		LimitedBy: ScopeBackend("sqlite"), LimitedUntil: at,
	}
	steering := Steering{Pause: &standing, Limits: limits}
	return map[string]any{
		"request-group": RequestGroup{Batch: "b-1", First: index, Published: at, NotBefore: at, Items: []RequestItem{{
			Tombstone: request.Tombstone, Output: request.Output, Actor: "ops", Labels: request.Labels,
		}}},
		"result": result,
		"result-group": ResultGroup{Batch: "b-1", Worker: "w-1", Results: []Result{result}, Failures: []Failure{{
			Batch: "b-1", Index: index, Tombstone: request.Tombstone, Output: request.Output, Actor: "ops", Number: 1, Attempt: history[0], NextTry: at,
		}}},
		"batch":          batch,
		"summary":        summary,
		"single-request": SingleRequest{Tombstone: request.Tombstone, Output: request.Output, Actor: "ops", Labels: request.Labels},
		"retry":          Retry{Attempts: 1, Causes: []Code{CodeArchiveBusy}, History: history, LastError: "locked", NextTry: at, Deaths: 1},
		"api-error":      APIError{Code: CodeNoCollector, Detail: "no collector answers"},
		"empty":          Empty{},
		"kept":           Kept{Batch: "b-1", First: index, Last: 70, Body: []byte("compressed")},
		"kept-to":        KeptTo{Next: 71},
		"batch-seal":     BatchSeal{ID: "b-1", Total: total, ManifestSHA256: sum},
		"batch-ref":      ref,
		"batch-report":   BatchReport{Summary: summary, OpenItems: 279, FailedByCode: map[Code]int64{CodeTooLarge: 3}},
		"batch-list":     BatchList{Limit: 10, Skip: 20},
		"batch-listing":  BatchListing{Batches: []Summary{summary}, More: true},
		"batch-change":   BatchChange{BatchRef: ref, Command: command, Change: ChangePause, Until: at},
		"batch-terms":    BatchTerms{BatchRef: ref, Command: command, Priority: &priority, MaxInFlight: &size, MaxFailures: &threshold},
		"item-skip":      ItemSkip{BatchRef: ref, Command: command, Indexes: []int64{index}},
		"batch-copy": BatchCopy{
			BatchRef: ref, Command: command, ResultFilter: filter, As: "b-2", Limit: 100, Root: "/srv/again",
			Overwrite: OverwriteIfDifferent, Terms: terms, Hold: true, DryRun: true,
		},
		"batch-copied":  BatchCopied{Items: 100, Batch: &summary},
		"batch-event":   event,
		"batch-events":  BatchEvents{Batch: "b-1", Events: []BatchEvent{event}},
		"webhook":       Webhook{Type: "batch.pause", Timestamp: at, Data: WebhookData{Event: event, Batch: &summary}},
		"results-query": ResultsQuery{Batch: "latest", From: index, Limit: 10, ResultFilter: filter},
		"results-page":  ResultsPage{Batch: "b-1", Results: []Result{result}, Next: 8},
		"letters-query": LettersQuery{Batch: "latest", All: true, ResultFilter: filter, After: "3.7", Limit: 10},
		"letters-page":  LettersPage{Letters: []Result{result}, Next: "3.8"},
		"letter-groups": LetterGroups{Groups: []LetterGroup{{
			Code: CodeIntegrityMismatch, Message: "content is longer", Count: 5, Batches: 2, First: at, Last: at,
			Samples: []Result{result}, Remedy: "restore it",
		}}},
		"why-query": WhyQuery{BatchRef: ref, Items: 10},
		"whereabouts": Whereabouts{
			Batch: "b-1", State: StatePaused, Standing: standing, Terms: terms, Total: total, Open: 279, Published: total, Kept: total, Waiting: 5,
			InHand: 4, Retrying: 3, Causes: map[Code]int64{CodeArchiveBusy: 3}, NextTry: at, Unrecorded: 1,
			Active: map[Priority]int64{PriorityNormal: 2}, Limits: limits, Workers: []WorkerStatus{worker},
			Items: []OpenItem{{Index: index, Place: PlaceInHand, Worker: "w-1", Since: at, Attempt: 2, NextTry: at, LastError: "locked"}},
		},
		"audit": Audit{
			Batch: "b-1", State: StatePaused, Total: total, Open: 279, Counts: counts, Counted: counts, Evidence: 15, Queued: 5,
			Published: total, Kept: total, Problems: []string{"the evidence has 14 lines"},
		},
		"fleet-change":    FleetChange{Command: command, Pause: &yes, Until: at, Limits: limits},
		"steering":        steering,
		"fleet":           Fleet{Steering: steering, Workers: []WorkerStatus{worker}},
		"worker-question": WorkerQuestion{Batch: "b-1"},
		"worker-status":   worker,
		"worker-event":    WorkerEvent{Worker: "w-1", At: at, Breaker: breaker},
		"evidence": Record{
			Action: ActionRestore, Actor: "ops", Attempt: 1, Backend: "sqlite", Batch: "b-1", Change: ChangePause, ChangeID: "c-1",
			Code: CodeTooLarge, CompressedSize: 21, Counts: &counts, DecompressionMS: &ms, DurationMS: &ms, Index: &index,
			Manifest: "m.json", ManifestSHA256: sum, Mode: "0644", NextTry: "2026-11-22T18:34:17.250Z", Outcome: OutcomeRestored, Overwrite: OverwriteNever,
			Path: "/srv/a", Phase: PhaseEnd, Prev: sum, Reason: "r",
			Repo: "acme", Root: "/srv", Seq: 1, SHA256: sum, Size: &size, State: StateSucceeded, StateReason: ReasonAllRestored,
			Steering: "{}", Tombstone: "t", Total: &total, TS: "2026-11-22T18:34:16Z", URL: "u", Worker: "w-1", WriteMS: &ms,
		},
	}
}

// Every message has a schema, its form is the golden one, and the schema accepts
// it and nothing with another field.
func TestJSONSchemas(t *testing.T) {
	all := samples()
	for _, name := range JSONSchemas() {
		if _, ok := all[name]; !ok {
			t.Errorf("schema %s has no sample", name)
		}
	}
	for name, sample := range all {
		t.Run(name, func(t *testing.T) {
			for _, path := range unset(reflect.ValueOf(sample), name) {
				t.Errorf("the sample leaves %s unset", path)
			}
			got, err := json.MarshalIndent(sample, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, filepath.Join("testdata", name+".json"), append(got, '\n'))

			schema := compile(t, name)
			doc := decoded(t, got)
			if err := schema.Validate(doc); err != nil {
				t.Errorf("the schema refuses the sample: %v", err)
			}
			doc.(map[string]any)["surprise"] = true
			if schema.Validate(doc) == nil {
				t.Error("the schema accepts a field that does not exist")
			}
		})
	}
}

// Messages decode to what they were.
func TestRoundTrip(t *testing.T) {
	for name, sample := range samples() {
		text, err := json.Marshal(sample)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(reflect.TypeOf(sample))
		if err := json.Unmarshal(text, back.Interface()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sample, back.Elem().Interface()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
	}
}

// The fields of evidence records stand in the order of their names, which makes
// the keys of the lines sorted.
func TestRecordIsSorted(t *testing.T) {
	last := ""
	for f := range reflect.TypeFor[Record]().Fields() {
		if name := f.Tag.Get("json"); name < last {
			t.Errorf("%s stands after %s", name, last)
		} else {
			last = name
		}
	}
}

// compile compiles the schema of a name, with all the others that it may refer to.
func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, n := range JSONSchemas() {
		text, err := JSONSchema(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(schemaID(n), decoded(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(schemaID(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// schemaID is where a schema says that it is found.
func schemaID(name string) string {
	return "https://github.com/exhume/exhume/schemas/" + name + ".schema.json"
}

func decoded(t *testing.T, text []byte) any {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// unset lists the fields of a message that have no value.
func unset(v reflect.Value, path string) (missing []string) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return []string{path}
		}
		return unset(v.Elem(), path)
	case reflect.Slice:
		if v.Len() > 0 {
			return unset(v.Index(0), path)
		}
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			break
		}
		for f, fv := range v.Fields() {
			if f.Tag.Get("json") != "-" {
				missing = append(missing, unset(fv, path+"."+f.Name)...)
			}
		}
		return missing
	}
	if v.IsZero() {
		return []string{path}
	}
	return nil
}
