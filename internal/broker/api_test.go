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
	events  []schemas.BatchEvent
	workers []schemas.WorkerStatus
	kept    chan schemas.Kept
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

func (s *service) Kept(_ context.Context, id string) (int64, error) { return int64(len(id)), s.err }

func (s *service) Keep(_ context.Context, k schemas.Kept) error {
	s.kept <- k
	return s.err
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

func (s *service) Why(_ context.Context, q schemas.WhyQuery) (schemas.Whereabouts, error) {
	if s.hold != nil {
		close(s.holding)
		<-s.hold
	}
	w := schemas.Whereabouts{Batch: q.Ref, Waiting: 3, Workers: s.workers}
	for i := range int64(q.Items) {
		w.Items = append(w.Items, schemas.OpenItem{Index: i, Place: schemas.PlaceQueued})
	}
	return w, s.err
}

func (s *service) Events(_ context.Context, ref string) (schemas.BatchEvents, error) {
	return schemas.BatchEvents{Batch: ref, Events: s.events}, s.err
}

func (s *service) Change(_ context.Context, q schemas.BatchChange) (schemas.Summary, error) {
	return schemas.Summary{Batch: schemas.Batch{ID: q.Ref, Standing: schemas.Standing{By: q.Actor, Note: string(q.Change)}}}, s.err
}

func (s *service) SetTerms(_ context.Context, q schemas.BatchTerms) (schemas.Summary, error) {
	return schemas.Summary{Batch: schemas.Batch{ID: q.Ref, Terms: schemas.Terms{Priority: *q.Priority}}}, s.err
}

func (s *service) Skip(_ context.Context, q schemas.ItemSkip) (schemas.Summary, error) {
	return schemas.Summary{Batch: schemas.Batch{ID: q.Ref, Skips: []schemas.Skip{{Index: q.Indexes[0]}}}}, s.err
}

func (s *service) Copy(_ context.Context, q schemas.BatchCopy) (schemas.BatchCopied, error) {
	return schemas.BatchCopied{Items: q.Limit, Batch: &schemas.Summary{Batch: schemas.Batch{ID: q.As}}}, s.err
}

func (s *service) Audit(_ context.Context, ref string) (schemas.Audit, error) {
	return schemas.Audit{Batch: ref, Queued: 4}, s.err
}

// Letters has cursors that only it understands.
func (s *service) Letters(_ context.Context, q schemas.LettersQuery) (p schemas.LettersPage, err error) {
	first := 0
	if q.After != "" {
		if _, err := fmt.Sscanf(q.After, "behind %d", &first); err != nil {
			return p, err
		}
	}
	if q.Limit == 0 {
		q.Limit = schemas.MaxResultsPage
	}
	last := min(first+q.Limit, len(s.results))
	p.Letters = s.results[first:last]
	if last < len(s.results) {
		p.Next = fmt.Sprintf("behind %d", last)
	}
	return p, s.err
}

func (s *service) LetterGroups(_ context.Context, q schemas.LettersQuery) (schemas.LetterGroups, error) {
	g := schemas.LetterGroup{Code: q.Code, Count: int64(len(s.results)), Samples: s.results[:min(3, len(s.results))]}
	return schemas.LetterGroups{Groups: []schemas.LetterGroup{g}}, s.err
}

func (s *service) Fleet(context.Context) (schemas.Fleet, error) {
	return schemas.Fleet{Workers: s.workers}, s.err
}

func (s *service) ChangeFleet(_ context.Context, q schemas.FleetChange) (schemas.Steering, error) {
	return schemas.Steering{Limits: q.Limits}, s.err
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
	results := []schemas.Result{{Detail: "one"}, {Detail: "two"}}
	s := &service{batches: []schemas.Summary{{Batch: schemas.Batch{ID: "b"}}}, events: []schemas.BatchEvent{{No: 1}}, results: results, kept: make(chan schemas.Kept, 1)}
	serve(t, b, s)
	ref := schemas.BatchRef{Ref: "b"}
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
		"kept": func() (any, any, error) {
			got, err := api.Kept(t.Context(), "b-17")
			return got, int64(4), err
		},
		"keep": func() (any, any, error) {
			k := schemas.Kept{Batch: "b", First: 1, Last: 2, Body: []byte{0, 0xff}}
			must(t, api.Keep(t.Context(), k))
			return <-s.kept, k, nil
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
			return got, schemas.ResultsPage{Batch: "b", Results: results}, err
		},
		"why": func() (any, any, error) {
			got, err := api.Why(t.Context(), schemas.WhyQuery{BatchRef: ref, Items: 1})
			return got, schemas.Whereabouts{Batch: "b", Waiting: 3, Items: []schemas.OpenItem{{Place: schemas.PlaceQueued}}}, err
		},
		"events": func() (any, any, error) {
			got, err := api.Events(t.Context(), "b")
			return got, schemas.BatchEvents{Batch: "b", Events: []schemas.BatchEvent{{No: 1}}}, err
		},
		"change": func() (any, any, error) {
			got, err := api.Change(t.Context(), schemas.BatchChange{BatchRef: ref, Command: schemas.Command{Actor: "ops"}, Change: schemas.ChangePause})
			return got, schemas.Summary{Batch: schemas.Batch{ID: "b", Standing: schemas.Standing{By: "ops", Note: "pause"}}}, err
		},
		"terms": func() (any, any, error) {
			priority := schemas.PriorityBulk
			got, err := api.SetTerms(t.Context(), schemas.BatchTerms{BatchRef: ref, Priority: &priority})
			return got, schemas.Summary{Batch: schemas.Batch{ID: "b", Terms: schemas.Terms{Priority: priority}}}, err
		},
		"skip": func() (any, any, error) {
			got, err := api.Skip(t.Context(), schemas.ItemSkip{BatchRef: ref, Indexes: []int64{7}})
			return got, schemas.Summary{Batch: schemas.Batch{ID: "b", Skips: []schemas.Skip{{Index: 7}}}}, err
		},
		"copy": func() (any, any, error) {
			got, err := api.Copy(t.Context(), schemas.BatchCopy{BatchRef: ref, As: "c", Limit: 9})
			return got, schemas.BatchCopied{Items: 9, Batch: &schemas.Summary{Batch: schemas.Batch{ID: "c"}}}, err
		},
		"audit": func() (any, any, error) {
			got, err := api.Audit(t.Context(), "b")
			return got, schemas.Audit{Batch: "b", Queued: 4}, err
		},
		"letters": func() (any, any, error) {
			got, err := api.Letters(t.Context(), schemas.LettersQuery{Limit: 1})
			return got, schemas.LettersPage{Letters: results[:1], Next: "behind 1"}, err
		},
		"groups": func() (any, any, error) {
			got, err := api.LetterGroups(t.Context(), schemas.LettersQuery{ResultFilter: schemas.ResultFilter{Code: schemas.CodeTooLarge}})
			return got, schemas.LetterGroups{Groups: []schemas.LetterGroup{{Code: schemas.CodeTooLarge, Count: 2, Samples: results}}}, err
		},
		"fleet": func() (any, any, error) {
			got, err := api.Fleet(t.Context())
			return got, schemas.Fleet{Workers: nil}, err
		},
		"change fleet": func() (any, any, error) {
			limits := []schemas.Limit{{Scope: schemas.ScopeFleet, Items: 5}}
			got, err := api.ChangeFleet(t.Context(), schemas.FleetChange{Limits: limits})
			return got, schemas.Steering{Limits: limits}, err
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
		for q := (schemas.ResultsQuery{Batch: "b", ResultFilter: schemas.ResultFilter{Code: code}}); ; {
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
	var letters []schemas.Result
	for q := (schemas.LettersQuery{}); ; {
		p, err := b.API().Letters(t.Context(), q)
		must(t, err)
		letters = append(letters, p.Letters...)
		if q.After = p.Next; q.After == "" {
			break
		}
	}
	if diff := cmp.Diff(s.results, letters); diff != "" {
		t.Error(diff)
	}
	s.results = []schemas.Result{{Detail: strings.Repeat("x", 100<<10)}}
	if _, err := b.API().Results(t.Context(), schemas.ResultsQuery{Batch: "b"}); err == nil || !strings.Contains(err.Error(), "raise max_payload") {
		t.Errorf("got error %v", err)
	}
}

// Answers that have no pages leave out what counts least.
func TestAPIAnswersThatAreTooLarge(t *testing.T) {
	t.Parallel()
	small := startServer(t, "max_payload: 64KB")
	b := connect(t, Options{URL: small.url()})
	s := &service{
		results: []schemas.Result{{Detail: strings.Repeat("x", 30<<10)}, {Detail: strings.Repeat("x", 30<<10)}, {Detail: strings.Repeat("x", 30<<10)}},
		workers: []schemas.WorkerStatus{{Worker: "a", Items: 5000}, {Worker: "b", Items: 3}},
	}
	for i := range int64(5000) {
		s.events = append(s.events, schemas.BatchEvent{No: i + 1})
		s.workers[0].InHand = append(s.workers[0].InHand, schemas.InHand{Batch: "b", First: i, Last: i})
	}
	serve(t, b, s)
	api := b.API()

	e, err := api.Events(t.Context(), "b")
	must(t, err)
	if n := len(e.Events); n == 0 || e.Events[n-1].No != 5000 {
		t.Errorf("%d events, not the newest", n)
	}
	g, err := api.LetterGroups(t.Context(), schemas.LettersQuery{})
	must(t, err)
	if len(g.Groups) != 1 || g.Groups[0].Count != 3 || len(g.Groups[0].Samples) != 1 {
		t.Errorf("%d groups, %d samples", len(g.Groups), len(g.Groups[0].Samples))
	}
	f, err := api.Fleet(t.Context())
	must(t, err)
	if len(f.Workers) != 2 || f.Workers[0].Items != 5000 || len(f.Workers[0].InHand) == 0 {
		t.Errorf("got %d workers, the first with %d items", len(f.Workers), f.Workers[0].Items)
	}
	w, err := api.Why(t.Context(), schemas.WhyQuery{Items: schemas.MaxWhyItems})
	must(t, err)
	if len(w.Workers) != 2 || w.Workers[0].Items != 5000 || len(w.Items) < 500 || w.Items[0].Index != 0 {
		t.Errorf("got %d workers and %d items", len(w.Workers), len(w.Items))
	}
	if len(s.workers[0].InHand) != 5000 {
		t.Error("what the service gave was changed")
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
		_, err := caller.API().Why(t.Context(), schemas.WhyQuery{})
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
	want := []string{
		schemas.APIBatchAudit, schemas.APIBatchChange, schemas.APIBatchCopy, schemas.APIBatchEvents, schemas.APIBatchGet, schemas.APIBatchKeep,
		schemas.APIBatchKept, schemas.APIBatchList,
		schemas.APIBatchOpen, schemas.APIBatchResults, schemas.APIBatchSeal, schemas.APIBatchSkip, schemas.APIBatchTerms, schemas.APIBatchWhy,
		schemas.APILetterGroups, schemas.APILetters, schemas.APIFleetChange, schemas.APIFleetGet,
	}
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
