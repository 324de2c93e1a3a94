package collector

import (
	"encoding/json"
	"errors"
	"fmt"

	// The same rules as encoding/json, twice as fast.
	fastjson "github.com/go-json-experiment/json/v1"

	"github.com/exhume/exhume/schemas"
)

// decode reads one message of results. With an error it still gives the results
// that can be told: those that can be read, and a failure for each one of which
// only the item is known, so that its batch can end.
func decode(data []byte) ([]schemas.Result, error) {
	var g schemas.ResultGroup
	if err := fastjson.Unmarshal(data, &g); err == nil && allValid(g.Results) {
		return g.Results, nil
	}
	var parts struct {
		Worker  string            `json:"worker"`
		Results []json.RawMessage `json:"results"`
	}
	if err := json.Unmarshal(data, &parts); err != nil {
		return nil, err
	}
	var out []schemas.Result
	var errs []error
	for _, part := range parts.Results {
		r, known, err := decodeOne(part)
		if err != nil {
			errs = append(errs, err)
			r.Worker = parts.Worker
		}
		if known {
			out = append(out, r)
		}
	}
	return out, errors.Join(errs...)
}

func allValid(results []schemas.Result) bool {
	for i := range results {
		if !valid(&results[i]) {
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
