package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// apiName is what the control API is called in lists of services, and the queue
// group that collectors share it in.
const apiName = "exhume"

// Service is what answers the control API; see schemas.SubjectsAPI. Its methods
// are called from several goroutines. The code that an error carries travels
// with it; its text must be without secrets.
type Service interface {
	Open(ctx context.Context, b schemas.Batch) (schemas.Summary, error)
	Kept(ctx context.Context, id string) (int64, error)
	Keep(ctx context.Context, k schemas.Kept) error
	Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (schemas.Summary, error)
	Get(ctx context.Context, ref string) (schemas.BatchReport, error)
	List(ctx context.Context, q schemas.BatchList) (schemas.BatchListing, error)
	Results(ctx context.Context, q schemas.ResultsQuery) (schemas.ResultsPage, error)
	Why(ctx context.Context, q schemas.WhyQuery) (schemas.Whereabouts, error)
	Events(ctx context.Context, ref string) (schemas.BatchEvents, error)
	Change(ctx context.Context, q schemas.BatchChange) (schemas.Summary, error)
	SetTerms(ctx context.Context, q schemas.BatchTerms) (schemas.Summary, error)
	Skip(ctx context.Context, q schemas.ItemSkip) (schemas.Summary, error)
	Copy(ctx context.Context, q schemas.BatchCopy) (schemas.BatchCopied, error)
	Audit(ctx context.Context, ref string) (schemas.Audit, error)
	// Letters may be called again with a lower limit, when a page is too large for
	// a message.
	Letters(ctx context.Context, q schemas.LettersQuery) (schemas.LettersPage, error)
	LetterGroups(ctx context.Context, q schemas.LettersQuery) (schemas.LetterGroups, error)
	Fleet(ctx context.Context) (schemas.Fleet, error)
	ChangeFleet(ctx context.Context, q schemas.FleetChange) (schemas.Steering, error)
}

// Serve answers the control API until it is stopped. Where several processes
// serve it, each call goes to one of them. The version is the program's, of the
// form 1.2.3. Stop returns when the calls that had come are answered.
func (b *Broker) Serve(s Service, version string) (stop func(), err error) {
	svc, err := micro.AddService(b.nc, micro.Config{
		Name: apiName, Version: version, Description: "restores archived artifacts: opens, steers and reports batches", QueueGroup: apiName,
	})
	if err != nil {
		return nil, fmt.Errorf("control API: %w", err)
	}
	stop = func() { b.stopService(svc) }
	for _, e := range []struct {
		name, subject string
		handle        micro.HandlerFunc
	}{
		{"batch-open", schemas.APIBatchOpen, handler(b, s.Open)},
		{"batch-kept", schemas.APIBatchKept, handler(b, func(ctx context.Context, q schemas.BatchRef) (to schemas.KeptTo, err error) {
			to.Next, err = s.Kept(ctx, q.Ref)
			return to, err
		})},
		{"batch-keep", schemas.APIBatchKeep, handler(b, func(ctx context.Context, k schemas.Kept) (schemas.Empty, error) {
			return schemas.Empty{}, s.Keep(ctx, k)
		})},
		{"batch-seal", schemas.APIBatchSeal, handler(b, func(ctx context.Context, q schemas.BatchSeal) (schemas.Summary, error) {
			return s.Seal(ctx, q.ID, q.Total, q.ManifestSHA256)
		})},
		{"batch-get", schemas.APIBatchGet, handler(b, byRef(s.Get))},
		{"batch-list", schemas.APIBatchList, handler(b, s.List)},
		{"batch-results", schemas.APIBatchResults, handler(b, s.Results)},
		{"batch-why", schemas.APIBatchWhy, handler(b, s.Why)},
		{"batch-events", schemas.APIBatchEvents, handler(b, byRef(s.Events))},
		{"batch-change", schemas.APIBatchChange, handler(b, s.Change)},
		{"batch-terms", schemas.APIBatchTerms, handler(b, s.SetTerms)},
		{"batch-skip", schemas.APIBatchSkip, handler(b, s.Skip)},
		{"batch-copy", schemas.APIBatchCopy, handler(b, s.Copy)},
		{"batch-audit", schemas.APIBatchAudit, handler(b, byRef(s.Audit))},
		{"dlq-list", schemas.APILetters, handler(b, func(ctx context.Context, q schemas.LettersQuery) (schemas.LettersPage, error) {
			return lettersThatFit(ctx, s, q, int(b.nc.MaxPayload()))
		})},
		{"dlq-groups", schemas.APILetterGroups, handler(b, s.LetterGroups)},
		{"fleet-get", schemas.APIFleetGet, handler(b, func(ctx context.Context, _ schemas.Empty) (schemas.Fleet, error) {
			return s.Fleet(ctx)
		})},
		{"fleet-change", schemas.APIFleetChange, handler(b, s.ChangeFleet)},
	} {
		if err := svc.AddEndpoint(e.name, e.handle, micro.WithEndpointSubject(e.subject)); err != nil {
			stop()
			return nil, fmt.Errorf("control API: %s: %w", e.subject, err)
		}
	}
	// From here on the server knows, so that no call finds nobody.
	if err := b.nc.FlushTimeout(callTimeout); err != nil {
		stop()
		return nil, fmt.Errorf("control API: %w", err)
	}
	return stop, nil
}

// stopService takes no more calls and waits for those in hand.
func (b *Broker) stopService(svc micro.Service) {
	_ = svc.Stop() // fails only on a connection that is closed
	if b.nc.FlushTimeout(tryTimeout) != nil {
		return // the server does not answer, so that nobody waits for an answer
	}
	handled := make(chan struct{})
	if b.nc.Barrier(func() { close(handled) }) != nil {
		return
	}
	select {
	case <-handled:
	case <-time.After(callTimeout):
	}
}

// byRef makes of a method that wants a reference one that wants a BatchRef.
func byRef[A any](method func(context.Context, string) (A, error)) func(context.Context, schemas.BatchRef) (A, error) {
	return func(ctx context.Context, q schemas.BatchRef) (A, error) { return method(ctx, q.Ref) }
}

// lettersThatFit asks for fewer letters until they fit into a message: only the
// service knows where the next page begins.
func lettersThatFit(ctx context.Context, s Service, q schemas.LettersQuery, most int) (schemas.LettersPage, error) {
	for {
		p, err := s.Letters(ctx, q)
		if err != nil || len(p.Letters) < 2 {
			return p, err
		}
		data, err := json.Marshal(p)
		if err != nil || len(data) <= most {
			return p, err
		}
		q.Limit = len(p.Letters) / 2
	}
}

// handler makes of a method what answers a message.
func handler[Q, A any](b *Broker, method func(context.Context, Q) (A, error)) micro.HandlerFunc {
	return func(r micro.Request) {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		var q Q
		err := json.Unmarshal(r.Data(), &q)
		if err != nil {
			err = fault.New(schemas.CodeBadRequest, "%s: the request cannot be understood: %w", r.Subject(), err)
		}
		var data []byte
		if err == nil {
			var a A
			if a, err = method(ctx, q); err == nil {
				data, err = encode(a, int(b.nc.MaxPayload()))
			}
		}
		if err == nil {
			err = r.Respond(data)
		} else {
			err = respondError(r, err)
		}
		if err != nil {
			b.opts.Log.Warn().Err(err).Str("subject", r.Subject()).Msg("cannot answer a call of the control API")
		}
	}
}

func respondError(r micro.Request, err error) error {
	e := schemas.APIError{Code: fault.CodeOf(err), Detail: oneLine(err.Error())}
	data, merr := json.Marshal(e)
	if merr != nil {
		return merr
	}
	return r.Error(string(e.Code), e.Detail, data)
}

// encode writes an answer of at most so many bytes. One that can be cut is cut if
// it must be.
func encode(a any, most int) ([]byte, error) {
	for {
		data, err := json.Marshal(a)
		if err != nil || len(data) <= most {
			return data, err
		}
		half, ok := halve(a)
		if !ok {
			return nil, fmt.Errorf("the answer has %d bytes and the broker takes %d at most: raise max_payload in the server's configuration", len(data), most)
		}
		a = half
	}
}

// halve gives the first half of a page, which tells where to go on. Of what has no
// pages it leaves out what counts least.
func halve(a any) (half any, ok bool) {
	switch p := a.(type) {
	case schemas.ResultsPage:
		n := len(p.Results) / 2
		if n == 0 {
			return nil, false
		}
		p.Next, p.Results = p.Results[n].Index, p.Results[:n]
		return p, true
	case schemas.BatchListing:
		n := len(p.Batches) / 2
		p.Batches, p.More = p.Batches[:n], true
		return p, n > 0
	case schemas.BatchEvents:
		n := len(p.Events)
		p.Events = p.Events[n-n/2:] // the newest
		return p, n > 1
	case schemas.LetterGroups:
		p.Groups, ok = fewerSamples(p.Groups)
		return p, ok
	case schemas.WorkerStatus:
		n := len(p.InHand)
		p.InHand = p.InHand[:n/2]
		return p, n > 0
	case schemas.Fleet:
		p.Workers, ok = lessInHand(p.Workers)
		return p, ok
	case schemas.Whereabouts:
		if p.Workers, ok = lessInHand(p.Workers); ok {
			return p, true
		}
		n := len(p.Items)
		p.Items = p.Items[:n/2]
		return p, n > 0
	}
	return nil, false
}

// fewerSamples halves the samples of each group, if there are any.
func fewerSamples(groups []schemas.LetterGroup) (_ []schemas.LetterGroup, ok bool) {
	groups = slices.Clone(groups)
	for i := range groups {
		n := len(groups[i].Samples)
		groups[i].Samples = groups[i].Samples[:n/2]
		ok = ok || n > 0
	}
	return groups, ok
}

// lessInHand halves what is told of the items in each worker's hand, if anything is.
func lessInHand(workers []schemas.WorkerStatus) (_ []schemas.WorkerStatus, ok bool) {
	workers = slices.Clone(workers)
	for i := range workers {
		n := len(workers[i].InHand)
		workers[i].InHand = workers[i].InHand[:n/2]
		ok = ok || n > 0
	}
	return workers, ok
}
