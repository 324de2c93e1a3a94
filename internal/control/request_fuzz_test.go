package control

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"testing"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// keyPart is what keys of a bucket are made of.
var keyPart = regexp.MustCompile(`^[-_A-Za-z0-9]+$`)

// What anybody asks of the control API is refused as a bad request, or can be
// done: ids can be parts of keys, and bounds are bounds.
func FuzzRequests(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var q struct {
			schemas.Command
			schemas.Terms
			Limits []schemas.Limit `json:"limits"`
		}
		if json.Unmarshal(data, &q) != nil {
			return
		}
		refused := func(err error) bool {
			if err != nil && fault.CodeOf(err) != schemas.CodeBadRequest {
				t.Errorf("%s: %v", data, err)
			}
			return err != nil
		}
		if !refused(checkCommand(q.Command)) && (q.Actor == "" || len(q.Actor) > maxActor || len(q.Note) > maxNote || !commandID.MatchString(q.ID)) {
			t.Errorf("command %+v", q.Command)
		}
		if !refused(checkTerms(q.Terms)) {
			checkDoable(t, q.Terms)
		}
		for _, l := range q.Limits {
			if refused(checkLimit(l)) {
				continue
			}
			if !keyPart.MatchString(l.Scope) || !(l.Items == 0 || l.Items >= minItems) || l.Bytes < 0 {
				t.Errorf("limit %+v", l)
			}
			if set := setLimit(setLimit(nil, l), l); len(set) > 1 || len(set) == 1 && set[0] != l {
				t.Errorf("limit %+v is kept as %+v", l, set)
			}
		}
	})
}

// Questions that make no sense are bad requests, and the ledger is asked nothing
// that it was not made for.
func FuzzQuestions(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLibrary(30)
		a := NewAnswers(&strict{l, t}, l, nil)
		ask := func(q any, answer func() error) {
			t.Helper()
			if json.Unmarshal(data, q) != nil {
				return
			}
			err := answer()
			if code := fault.CodeOf(err); err != nil && code != schemas.CodeBadRequest && code != schemas.CodeBatchNotFound {
				t.Errorf("%T %s: %v", q, data, err)
			}
		}
		var list schemas.BatchList
		ask(&list, func() error {
			got, err := a.List(t.Context(), list)
			if err == nil && len(got.Batches) != max(0, len(l.batches)-list.Skip) && len(got.Batches) != list.Limit {
				t.Errorf("%+v: %d batches", list, len(got.Batches))
			}
			return err
		})
		var results schemas.ResultsQuery
		ask(&results, func() error {
			got, err := a.Results(t.Context(), results)
			if len(got.Results) > schemas.MaxResultsPage || results.Limit > 0 && len(got.Results) > results.Limit {
				t.Errorf("%+v: %d results", results, len(got.Results))
			}
			return err
		})
		var why schemas.WhyQuery
		ask(&why, func() error {
			got, err := a.Why(t.Context(), why)
			if len(got.Items) > max(0, why.Items) {
				t.Errorf("%+v: %d items", why, len(got.Items))
			}
			return err
		})
		var letters schemas.LettersQuery
		ask(&letters, func() error {
			_, err := a.Letters(t.Context(), letters)
			return err
		})
	})
}

// strict is a library that refuses what no ledger understands.
type strict struct {
	*library
	t *testing.T
}

func (s *strict) Batches(ctx context.Context, limit int) ([]schemas.Summary, error) {
	if limit < 0 {
		s.t.Errorf("%d batches are wanted", limit)
	}
	all, err := s.library.Batches(ctx, limit)
	return slices.Clone(all), err
}

func (s *strict) Missing(ctx context.Context, id string, limit int) ([]int64, error) {
	if limit < 1 || limit > schemas.MaxWhyItems {
		s.t.Errorf("%d items are wanted", limit)
	}
	return s.library.Missing(ctx, id, limit)
}

// checkDoable holds terms that were accepted against what is done with them.
func checkDoable(t *testing.T, terms schemas.Terms) {
	t.Helper()
	if w := terms.Priority.Weight(); w < 1 || terms.MaxInFlight < 0 {
		t.Errorf("terms %+v, weight %d", terms, w)
	}
	for _, total := range []int64{1, 7, 1000} {
		if n := schemas.PerMessage(total, terms.MaxInFlight); n < 1 || n > schemas.MaxRequests {
			t.Errorf("%d of %d items in a message", n, total)
		}
		f := terms.MaxFailures
		if f != nil && f.FailedBefore == 0 && f.DoneBefore == 0 {
			under := f.Count != nil && *f.Count >= total || f.Percent != nil && (*f.Percent >= 100 || f.MinSample > total)
			if f.Exceeded(schemas.Counts{Restored: total}) || f.Exceeded(schemas.Counts{Failed: total}) == under {
				t.Errorf("%s of %d", f, total)
			}
		}
		if c := terms.Canary; c != nil {
			in := int64(0)
			for i := range total {
				if c.Has(i, total) {
					in++
				}
			}
			if in != min(c.Size, total) || in < 1 {
				t.Errorf("%d of %d items in a sample of %d", in, total, c.Size)
			}
		}
	}
}
