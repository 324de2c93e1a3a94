package broker

import (
	"context"
	"encoding/json"
	"fmt"
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
	Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (schemas.Summary, error)
	Get(ctx context.Context, ref string) (schemas.BatchReport, error)
	List(ctx context.Context, q schemas.BatchList) (schemas.BatchListing, error)
	Results(ctx context.Context, q schemas.ResultsQuery) (schemas.ResultsPage, error)
	Why(ctx context.Context, ref string) (schemas.Whereabouts, error)
}

// Serve answers the control API until it is stopped. Where several processes
// serve it, each call goes to one of them. The version is the program's, of the
// form 1.2.3. Stop returns when the calls that had come are answered.
func (b *Broker) Serve(s Service, version string) (stop func(), err error) {
	svc, err := micro.AddService(b.nc, micro.Config{
		Name: apiName, Version: version, Description: "restores archived artifacts: opens, seals and reports batches", QueueGroup: apiName,
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
		{"batch-seal", schemas.APIBatchSeal, handler(b, func(ctx context.Context, q schemas.BatchSeal) (schemas.Summary, error) {
			return s.Seal(ctx, q.ID, q.Total, q.ManifestSHA256)
		})},
		{"batch-get", schemas.APIBatchGet, handler(b, func(ctx context.Context, q schemas.BatchRef) (schemas.BatchReport, error) {
			return s.Get(ctx, q.Ref)
		})},
		{"batch-list", schemas.APIBatchList, handler(b, s.List)},
		{"batch-results", schemas.APIBatchResults, handler(b, s.Results)},
		{"batch-why", schemas.APIBatchWhy, handler(b, func(ctx context.Context, q schemas.BatchRef) (schemas.Whereabouts, error) {
			return s.Why(ctx, q.Ref)
		})},
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

// encode writes an answer of at most so many bytes. A page is cut if it must be.
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

// halve cuts a page in two and gives the first half, which tells where to go on.
func halve(a any) (any, bool) {
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
	}
	return nil, false
}
