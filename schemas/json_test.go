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
	index, size, total, ms := int64(7), int64(410), int64(294), 1.25
	sum := "bfe09a6aed85f21db093649c9b431f76353794d3b630b2f788859ea96a2ff6a2"
	request := Request{
		Batch: "b-1", Index: index, Tombstone: "9039c97b-1acb-4124-a066-1c30c7ed65f4", Output: "out/naïve <a>.go",
		Actor: "ops", Labels: map[string]string{"ticket": "OPS-1"},
	}
	result := Result{
		Request: request, Outcome: OutcomeFailed, Code: CodeIntegrityMismatch, Detail: "content is longer", Attempts: 2,
		Item: "i-1", Repo: "acme/app", Path: "a.go", SHA256: sum, Size: size, Target: "/srv/out/a.go", Worker: "w-1", FinishedAt: at,
		Durations: Durations{Queue: 1, Read: 2, Decode: 3, Write: 4, Total: 5.125},
	}
	counts := Counts{Restored: 1, Unchanged: 2, Failed: 3, Skipped: 4, Cancelled: 5, Bytes: 6}
	batch := Batch{
		ID: "b-1", State: StatePartial, Settings: Settings{Root: "/srv", Overwrite: OverwriteNever, Mode: 0o644}, Actor: "ops",
		Manifest: "m.json", ManifestSHA256: sum, Archive: "sqlite:///./a.sqlite", Total: total, CreatedAt: at, SealedAt: at, EndedAt: at,
	}
	return map[string]any{
		"request-group": RequestGroup{Batch: "b-1", First: index, Published: at, NotBefore: at, Items: []RequestItem{{
			Tombstone: request.Tombstone, Output: request.Output, Actor: "ops", Labels: request.Labels,
		}}},
		"result":         result,
		"result-group":   ResultGroup{Batch: "b-1", Worker: "w-1", Results: []Result{result}},
		"batch":          batch,
		"summary":        Summary{Batch: batch, Counts: counts},
		"single-request": SingleRequest{Tombstone: request.Tombstone, Output: request.Output, Actor: "ops", Labels: request.Labels},
		"retry":          Retry{Attempts: 1, Causes: []Code{CodeArchiveBusy}, LastError: "locked", NextTry: at},
		"api-error":      APIError{Code: CodeNoCollector, Detail: "no collector answers"},
		"batch-seal":     BatchSeal{ID: "b-1", Total: total, ManifestSHA256: sum},
		"batch-ref":      BatchRef{Ref: "latest"},
		"batch-report": BatchReport{
			Summary: Summary{Batch: batch, Counts: counts}, OpenItems: 279, FailedByCode: map[Code]int64{CodeTooLarge: 3},
		},
		"batch-list":    BatchList{Limit: 10, Skip: 20},
		"batch-listing": BatchListing{Batches: []Summary{{Batch: batch, Counts: counts}}, More: true},
		"results-query": ResultsQuery{Batch: "latest", From: index, Limit: 10, Outcome: OutcomeFailed, Code: CodeTooLarge},
		"results-page":  ResultsPage{Batch: "b-1", Results: []Result{result}, Next: 8},
		"whereabouts": Whereabouts{
			Batch: "b-1", State: StateRunning, Total: total, Open: 279, Published: total, Waiting: 5, InHand: 4, Retrying: 3,
			Causes: map[Code]int64{CodeArchiveBusy: 3}, NextTry: at, Unrecorded: 1,
		},
		"evidence": Record{
			Action: ActionRestore, Actor: "ops", Attempt: 1, Backend: "sqlite", Batch: "b-1", Code: CodeTooLarge, CompressedSize: 21,
			Counts: &counts, DecompressionMS: &ms, DurationMS: &ms, Index: &index, Manifest: "m.json", ManifestSHA256: sum,
			Outcome: OutcomeRestored, Path: "/srv/a", Phase: PhaseEnd, Prev: sum, Reason: "r", Repo: "acme", Root: "/srv", Seq: 1,
			SHA256: sum, Size: &size, State: StateSucceeded, Tombstone: "t", Total: &total, TS: "2026-11-22T18:34:16Z", URL: "u",
			Worker: "w-1", WriteMS: &ms,
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
