package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/micro"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// service answers with what it is asked.
type service struct {
	calls   atomic.Int64
	batches []schemas.Summary
	results []schemas.Result
	err     error
	// hold, if set, is waited for by Why, which says so in holding.
	hold, holding chan struct{}
}

func (s *service) Open(_ context.Context, b schemas.Batch) (schemas.Summary, error) {
	s.calls.Add(1)
	return schemas.Summary{Batch: b}, s.err
}

func (s *service) Seal(_ context.Context, id string, total int64, sum string) (schemas.Summary, error) {
	return schemas.Summary{Batch: schemas.Batch{ID: id, Total: total, ManifestSHA256: sum}}, s.err
}

func (s *service) Get(_ context.Context, ref string) (schemas.BatchReport, error) {
	s.calls.Add(1)
	return schemas.BatchReport{Summary: schemas.Summary{Batch: schemas.Batch{ID: ref}}, OpenItems: 7}, s.err
}

func (s *service) List(_ context.Context, q schemas.BatchList) (schemas.BatchListing, error) {
	all := s.batches[min(q.Skip, len(s.batches)):]
	if q.Limit > 0 {
		all = all[:min(q.Limit, len(all))]
	}
	return schemas.BatchListing{Batches: all}, s.err
}

func (s *service) Results(_ context.Context, q schemas.ResultsQuery) (schemas.ResultsPage, error) {
	p := schemas.ResultsPage{Batch: q.Batch}
	for _, r := range s.results {
		switch {
		case r.Index < q.From || q.Code != "" && r.Code != q.Code:
		case len(p.Results) == schemas.MaxResultsPage:
			p.Next = r.Index
			return p, s.err
		default:
			p.Results = append(p.Results, r)
		}
	}
	return p, s.err
}

func (s *service) Why(_ context.Context, ref string) (schemas.Whereabouts, error) {
	if s.hold != nil {
		close(s.holding)
		<-s.hold
	}
	return schemas.Whereabouts{Batch: ref, Waiting: 3}, s.err
}

func serve(t testing.TB, b *Broker, s Service) (stop func()) {
	t.Helper()
	stop, err := b.Serve(s, "1.2.3")
	must(t, err)
	t.Cleanup(stop)
	return stop
}

func TestAPI(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{})
	serve(t, b, &service{batches: []schemas.Summary{{Batch: schemas.Batch{ID: "b"}}}})
	api := connect(t, Options{URL: b.Address()}).API()
	batch := schemas.Batch{ID: "b", Settings: schemas.Settings{Root: "/srv"}, CreatedAt: time.Now().UTC().Round(0)}
	for name, call := range map[string]func() (got, want any, err error){
		"open": func() (any, any, error) {
			got, err := api.Open(t.Context(), batch)
			return got, schemas.Summary{Batch: batch}, err
		},
		"seal": func() (any, any, error) {
			got, err := api.Seal(t.Context(), "b", 5, "abc")
			return got, schemas.Summary{Batch: schemas.Batch{ID: "b", Total: 5, ManifestSHA256: "abc"}}, err
		},
		"get": func() (any, any, error) {
			got, err := api.Get(t.Context(), "latest")
			return got, schemas.BatchReport{Summary: schemas.Summary{Batch: schemas.Batch{ID: "latest"}}, OpenItems: 7}, err
		},
		"list": func() (any, any, error) {
			got, err := api.List(t.Context(), 0)
			return got, []schemas.Summary{{Batch: schemas.Batch{ID: "b"}}}, err
		},
		"results": func() (any, any, error) {
			got, err := api.Results(t.Context(), schemas.ResultsQuery{Batch: "b"})
			return got, schemas.ResultsPage{Batch: "b"}, err
		},
		"why": func() (any, any, error) {
			got, err := api.Why(t.Context(), "b")
			return got, schemas.Whereabouts{Batch: "b", Waiting: 3}, err
		},
	} {
		got, want, err := call()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestAPIErrors(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	_, err := b.API().Get(t.Context(), "b")
	if !fault.Is(err, schemas.CodeNoCollector) || !strings.Contains(err.Error(), "is one running?") {
		t.Errorf("without a collector: %v", err)
	}
	if class := fault.CodeOf(err).Class(); class != schemas.ClassBackendDown {
		t.Errorf("class %s", class)
	}
	s := &service{}
	serve(t, b, s)
	for _, code := range []schemas.Code{schemas.CodeBatchAmbiguous, schemas.CodeBatchNotFound} {
		s.err = fmt.Errorf("get: %w", fault.New(code, "no batch\n%q", "b"))
		if _, err := b.API().Get(t.Context(), "b"); !fault.Is(err, code) || err.Error() != `get: no batch "b"` {
			t.Errorf("%s: got error %v", code, err)
		}
	}
	msg, err := b.nc.Request(schemas.APIBatchGet, []byte(`{}`), time.Minute)
	must(t, err)
	var body schemas.APIError
	must(t, json.Unmarshal(msg.Data, &body))
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != string(schemas.CodeBatchNotFound) || body.Code != schemas.CodeBatchNotFound || body.Detail != `get: no batch "b"` {
		t.Errorf("header %s, body %+v", code, body)
	}
	msg, err = b.nc.Request(schemas.APIBatchGet, []byte(`nonsense`), time.Minute)
	must(t, err)
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != string(schemas.CodeBadRequest) {
		t.Errorf("nonsense: code %s", code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.API().Get(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// An error without a code does not get one that would mislead.
func TestAPIErrorWithoutCode(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	serve(t, b, &service{err: errors.New("disk full")})
	_, err := b.API().Get(t.Context(), "a")
	if _, coded := errors.AsType[*fault.Error](err); coded || err == nil || err.Error() != "disk full" {
		t.Errorf("got %#v", err)
	}
}

// Answers are cut where the broker would not take them, and nothing is left out.
func TestAPIPages(t *testing.T) {
	t.Parallel()
	small := startServer(t, "max_payload: 64KB")
	b := connect(t, Options{URL: small.url()})
	s := &service{}
	for i := range int64(2500) {
		r := schemas.Result{Request: schemas.Request{Index: 2 * i}, Outcome: schemas.OutcomeFailed, Detail: strings.Repeat("x", 200)}
		if i%10 == 0 {
			r.Code = schemas.CodeTooLarge
		}
		s.results = append(s.results, r)
		s.batches = append(s.batches, schemas.Summary{Batch: schemas.Batch{ID: fmt.Sprint("b-", i), Manifest: strings.Repeat("x", 200)}})
	}
	serve(t, b, s)
	for _, limit := range []int{0, 1, 700, 2500, 9999} {
		got, err := b.API().List(t.Context(), limit)
		want := s.batches
		if limit > 0 {
			want = want[:min(limit, len(want))]
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("limit %d: %v\n%s", limit, err, diff)
		}
	}
	for code, n := range map[schemas.Code]int{"": 2500, schemas.CodeTooLarge: 250} {
		var got []schemas.Result
		for q := (schemas.ResultsQuery{Batch: "b", Code: code}); ; {
			p, err := b.API().Results(t.Context(), q)
			must(t, err)
			got = append(got, p.Results...)
			if q.From = p.Next; q.From == 0 {
				break
			}
		}
		if len(got) != n || !slices.IsSortedFunc(got, func(a, b schemas.Result) int { return int(a.Index - b.Index) }) {
			t.Errorf("code %q: %d results, want %d", code, len(got), n)
		}
	}
	s.results = []schemas.Result{{Detail: strings.Repeat("x", 100<<10)}}
	if _, err := b.API().Results(t.Context(), schemas.ResultsQuery{Batch: "b"}); err == nil || !strings.Contains(err.Error(), "raise max_payload") {
		t.Errorf("got error %v", err)
	}
}

// Collectors share the calls, and one that stops answers those in its hand first.
func TestCollectorsShareTheAPI(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{})
	one, two := &service{}, &service{hold: make(chan struct{}), holding: make(chan struct{})}
	serve(t, b, one)
	second := connect(t, Options{URL: b.Address()})
	stopTwo := serve(t, second, two)
	caller := connect(t, Options{URL: b.Address()})
	for one.calls.Load() == 0 || two.calls.Load() == 0 {
		_, err := caller.API().Get(t.Context(), "b")
		must(t, err)
	}

	answered := make(chan error, 1)
	why := func() {
		_, err := caller.API().Why(t.Context(), "b")
		answered <- err
	}
	for held := false; !held; {
		go why()
		select {
		case <-two.holding:
			held = true
		case err := <-answered: // by the other one
			must(t, err)
		}
	}
	stopped := make(chan struct{})
	go func() {
		stopTwo()
		close(stopped)
	}()
	for before, n := two.calls.Load(), 0; n < 20; n++ { // all go to the one that is left
		_, err := caller.API().Get(t.Context(), "b")
		must(t, err)
		if now := two.calls.Load(); now != before {
			before, n = now, 0 // it did not know yet
		}
	}
	select {
	case <-stopped:
		t.Error("it stopped with a call in its hand")
	default:
	}
	close(two.hold)
	must(t, <-answered)
	<-stopped
}

// The API shows in lists of services, as 'nats micro ls' makes them.
func TestServiceIsListed(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	serve(t, b, &service{})
	msg, err := b.nc.Request("$SRV.INFO.exhume", nil, time.Minute)
	must(t, err)
	var info micro.Info
	must(t, json.Unmarshal(msg.Data, &info))
	var subjects []string
	for _, e := range info.Endpoints {
		subjects = append(subjects, e.Subject)
	}
	slices.Sort(subjects)
	want := []string{schemas.APIBatchGet, schemas.APIBatchList, schemas.APIBatchOpen, schemas.APIBatchResults, schemas.APIBatchSeal, schemas.APIBatchWhy}
	if diff := cmp.Diff(want, subjects); diff != "" || info.Version != "1.2.3" {
		t.Errorf("version %s\n%s", info.Version, diff)
	}
}

func TestServeRefusesABadVersion(t *testing.T) {
	t.Parallel()
	if _, err := embed(t, t.TempDir()).Serve(&service{}, "dev"); err == nil || !strings.Contains(err.Error(), "control API") {
		t.Errorf("got error %v", err)
	}
}

func TestWhereabouts(t *testing.T) {
	t.Parallel()
	b := withBatch(t, t.TempDir(), 10)
	held := take(t, b, 4, 0)
	must(t, held[0].Ack())
	waitInHand(t, b, 3)
	due := time.Now().Add(time.Hour).UTC().Round(0)
	for index, r := range map[int64]schemas.Retry{
		1: {NextTry: due, Causes: []schemas.Code{schemas.CodeArchiveBusy, schemas.CodeArchiveError}},
		2: {NextTry: due.Add(time.Minute), Causes: []schemas.Code{schemas.CodeArchiveError}},
		3: {NextTry: time.Now().Add(-time.Minute), Causes: []schemas.Code{schemas.CodeArchiveBusy}}, // tried meanwhile
	} {
		must(t, b.SetRetry(t.Context(), "b", index, r))
	}
	must(t, b.SetRetry(t.Context(), "b2", 1, schemas.Retry{NextTry: due}))
	must(t, b.PublishResults(t.Context(), schemas.ResultGroup{Batch: "b", Worker: "w"}))
	got, err := b.Whereabouts(t.Context(), "b")
	must(t, err)
	want := schemas.Whereabouts{
		Published: 10, Waiting: 6, InHand: 3, Retrying: 2, NextTry: due, Causes: map[schemas.Code]int64{schemas.CodeArchiveError: 2}, Unrecorded: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := b.Whereabouts(t.Context(), "missing"); err == nil || !strings.Contains(err.Error(), "restart the collector") {
		t.Errorf("got error %v", err)
	}
}

func TestWatchEvents(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{})
	other := connect(t, Options{URL: b.Address()})
	seen := make(chan schemas.Summary, 10)
	stop, err := other.WatchEvents("b", func(s schemas.Summary) { seen <- s })
	must(t, err)
	want := schemas.Summary{Batch: schemas.Batch{ID: "b", State: schemas.StateRunning, Total: 5}, Counts: schemas.Counts{Restored: 2}}
	must(t, b.Progress(schemas.Summary{Batch: schemas.Batch{ID: "other"}}))
	must(t, b.nc.Publish(schemas.BatchEventSubject("b"), []byte("nonsense")))
	must(t, b.Progress(want))
	if diff := cmp.Diff(want, <-seen); diff != "" {
		t.Error(diff)
	}
	want.State = schemas.StatePartial
	must(t, b.Announce(want))
	if diff := cmp.Diff(want, <-seen); diff != "" {
		t.Error(diff)
	}
	stop()
	must(t, other.Ping(t.Context()))
	must(t, b.Announce(want))
	must(t, b.Ping(t.Context()))
	must(t, other.Ping(t.Context()))
	if len(seen) > 0 {
		t.Error("it goes on after it was stopped")
	}
}
