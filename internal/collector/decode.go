package collector

import (
	"encoding/json"
	"errors"
	"fmt"

	// The same rules as encoding/json, twice as fast.
	fastjson "github.com/go-json-experiment/json/v1"

	"github.com/exhume/exhume/schemas"
)

// decode reads one message of results and failed attempts. With an error it still
// gives those that can be told: those that can be read, and as a result a failure
// for each one of which only the item is known, so that its batch can end.
func decode(data []byte) ([]schemas.Result, []schemas.Failure, error) {
	var g schemas.ResultGroup
	if err := fastjson.Unmarshal(data, &g); err == nil && allValid(&g) {
		return g.Results, g.Failures, nil
	}
	var parts struct {
		Worker   string            `json:"worker"`
		Results  []json.RawMessage `json:"results"`
		Failures []json.RawMessage `json:"failures"`
	}
	var errs []error
	if err := json.Unmarshal(data, &parts); err != nil {
		errs = append(errs, err) // what could be read of it is here all the same
	}
	var results []schemas.Result
	for _, part := range parts.Results {
		r, known, err := decodeOne(part)
		if err != nil {
			errs = append(errs, err)
			r.Worker = parts.Worker
		}
		if known {
			results = append(results, r)
		}
	}
	var failures []schemas.Failure
	for _, part := range parts.Failures {
		var f schemas.Failure
		if err := json.Unmarshal(part, &f); err != nil {
			errs = append(errs, fmt.Errorf("failed attempt: %w", err))
		} else if !validFailure(&f) {
			errs = append(errs, fmt.Errorf("failed attempt %d at item %d of batch %q", f.Number, f.Index, f.Batch))
		} else {
			failures = append(failures, f)
		}
	}
	return results, failures, errors.Join(errs...)
}

func allValid(g *schemas.ResultGroup) bool {
	for i := range g.Results {
		if !valid(&g.Results[i]) {
			return false
		}
	}
	for i := range g.Failures {
		if !validFailure(&g.Failures[i]) {
			return false
		}
	}
	return true
}

// valid says whether a result names an item and an outcome.
func valid(r *schemas.Result) bool {
	switch r.Outcome {
	case schemas.OutcomeRestored, schemas.OutcomeUnchanged, schemas.OutcomeFailed, schemas.OutcomeSkipped, schemas.OutcomeCancelled:
		return r.Batch != ""
	}
	return false
}

// validFailure says whether a failure names an item and an attempt.
func validFailure(f *schemas.Failure) bool { return f.Batch != "" && f.Number > 0 }

// decodeOne reads one result; known says whether it is known which item it is of.
func decodeOne(data []byte) (r schemas.Result, known bool, err error) {
	if err = json.Unmarshal(data, &r); err == nil && valid(&r) {
		return r, true, nil
	}
	if err == nil {
		err = fmt.Errorf("batch %q, outcome %q", r.Batch, r.Outcome)
	}
	var id struct {
		Batch string `json:"batch"`
		Index *int64 `json:"index"`
	}
	if json.Unmarshal(data, &id) != nil || id.Batch == "" || id.Index == nil {
		return schemas.Result{}, false, err
	}
	r = schemas.Result{
		Request: schemas.Request{Batch: id.Batch, Index: *id.Index, Tombstone: r.Tombstone, Output: r.Output, Actor: r.Actor},
		Outcome: schemas.OutcomeFailed, Code: schemas.CodeInternal, Attempts: 1,
		Detail: fmt.Sprintf("the worker's result cannot be understood: %v; payload %s", err, quote(data)),
	}
	return r, true, err
}

// quote is a payload as far as it can be kept in a line.
func quote(data []byte) string { return fmt.Sprintf("%.512q", data) }
