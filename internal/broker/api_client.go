package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// API calls the control API, which the collectors of the fleet serve. It is safe
// for concurrent use.
//
// Errors have the text and the code that the collector gave them. Without a
// collector the code is CodeNoCollector; where the server does not let the user
// call or hear the answer it is CodeBrokerDenied; without an answer in time it is
// CodeBrokerDown, and it is unknown whether the call did anything. Each call can
// be repeated.
type API struct{ b *Broker }

// API is the control API at this broker.
func (b *Broker) API() *API { return &API{b} }

// Open opens a batch, or finds the one that has its id already.
func (a *API) Open(ctx context.Context, b schemas.Batch) (s schemas.Summary, err error) {
	return s, a.call(ctx, schemas.APIBatchOpen, b, &s)
}

// Kept is the lowest index of a batch whose request is not kept. A collector of an
// older program does not answer, as if there was none.
func (a *API) Kept(ctx context.Context, id string) (int64, error) {
	var to schemas.KeptTo
	err := a.call(ctx, schemas.APIBatchKept, schemas.BatchRef{Ref: id}, &to)
	return to.Next, err
}

// Keep keeps requests until their batch ends.
func (a *API) Keep(ctx context.Context, k schemas.Kept) error {
	return a.call(ctx, schemas.APIBatchKeep, k, &schemas.Empty{})
}

// Seal says that all requests of a batch are published: so many items, from a
// manifest with this SHA-256.
func (a *API) Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (s schemas.Summary, err error) {
	return s, a.call(ctx, schemas.APIBatchSeal, schemas.BatchSeal{ID: id, Total: total, ManifestSHA256: manifestSHA256}, &s)
}

// Get reports about one batch; for ref see schemas.BatchRef.
func (a *API) Get(ctx context.Context, ref string) (r schemas.BatchReport, err error) {
	return r, a.call(ctx, schemas.APIBatchGet, schemas.BatchRef{Ref: ref}, &r)
}

// List lists batches, newest first, at most limit, all when it is 0.
func (a *API) List(ctx context.Context, limit int) (all []schemas.Summary, err error) {
	for {
		q := schemas.BatchList{Skip: len(all)}
		if limit > 0 {
			q.Limit = limit - len(all)
		}
		var page schemas.BatchListing
		if err := a.call(ctx, schemas.APIBatchList, q, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Batches...)
		if !page.More || len(page.Batches) == 0 || limit > 0 && len(all) >= limit {
			return all, nil
		}
	}
}

// Results gives one page of results.
func (a *API) Results(ctx context.Context, q schemas.ResultsQuery) (p schemas.ResultsPage, err error) {
	return p, a.call(ctx, schemas.APIBatchResults, q, &p)
}

// Why tells where the items of a batch are that have no result yet.
func (a *API) Why(ctx context.Context, q schemas.WhyQuery) (w schemas.Whereabouts, err error) {
	return w, a.call(ctx, schemas.APIBatchWhy, q, &w)
}

// Events gives the newest events of a batch, oldest first; for ref see
// schemas.BatchRef.
func (a *API) Events(ctx context.Context, ref string) (e schemas.BatchEvents, err error) {
	return e, a.call(ctx, schemas.APIBatchEvents, schemas.BatchRef{Ref: ref}, &e)
}

// Change pauses, resumes, cancels or aborts a batch.
func (a *API) Change(ctx context.Context, q schemas.BatchChange) (s schemas.Summary, err error) {
	return s, a.call(ctx, schemas.APIBatchChange, q, &s)
}

// SetTerms changes how a batch is worked on.
func (a *API) SetTerms(ctx context.Context, q schemas.BatchTerms) (s schemas.Summary, err error) {
	return s, a.call(ctx, schemas.APIBatchTerms, q, &s)
}

// Skip leaves items of a batch out.
func (a *API) Skip(ctx context.Context, q schemas.ItemSkip) (s schemas.Summary, err error) {
	return s, a.call(ctx, schemas.APIBatchSkip, q, &s)
}

// Copy makes a new batch of items of one that has ended.
func (a *API) Copy(ctx context.Context, q schemas.BatchCopy) (c schemas.BatchCopied, err error) {
	return c, a.call(ctx, schemas.APIBatchCopy, q, &c)
}

// Audit compares what ledger, evidence and queue say of a batch; for ref see
// schemas.BatchRef.
func (a *API) Audit(ctx context.Context, ref string) (r schemas.Audit, err error) {
	return r, a.call(ctx, schemas.APIBatchAudit, schemas.BatchRef{Ref: ref}, &r)
}

// Letters gives one page of dead letters.
func (a *API) Letters(ctx context.Context, q schemas.LettersQuery) (p schemas.LettersPage, err error) {
	return p, a.call(ctx, schemas.APILetters, q, &p)
}

// LetterGroups gives dead letters in groups of alike ones.
func (a *API) LetterGroups(ctx context.Context, q schemas.LettersQuery) (g schemas.LetterGroups, err error) {
	return g, a.call(ctx, schemas.APILetterGroups, q, &g)
}

// Fleet tells what holds for the fleet, and how its workers stand.
func (a *API) Fleet(ctx context.Context) (f schemas.Fleet, err error) {
	return f, a.call(ctx, schemas.APIFleetGet, schemas.Empty{}, &f)
}

// ChangeFleet changes what holds for the fleet.
func (a *API) ChangeFleet(ctx context.Context, q schemas.FleetChange) (s schemas.Steering, err error) {
	return s, a.call(ctx, schemas.APIFleetChange, q, &s)
}

func (a *API) call(ctx context.Context, subject string, question, answer any) error {
	data, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var msg *nats.Msg
	err = a.b.permitted(bounded, func(ctx context.Context) (err error) {
		msg, err = a.b.nc.RequestWithContext(ctx, subject, data)
		return err
	}, a.b.toAsk(subject)...)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fault.Is(err, schemas.CodeBrokerDenied):
		return err
	case errors.Is(err, nats.ErrNoResponders):
		return fault.New(schemas.CodeNoCollector, "%s: no collector answers: is one running?", a.b.opts)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%s: the question has %d bytes and the broker takes %d at most: raise max_payload in the server's configuration",
			subject, len(data), a.b.nc.MaxPayload())
	case err != nil:
		return fault.New(schemas.CodeBrokerDown, "%s: no answer to %s: %w", a.b.opts, subject, err)
	}
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != "" {
		return answeredError(msg, schemas.Code(code))
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("%s: the answer cannot be understood: %w; is the collector of another version?", subject, err)
	}
	return nil
}

// answeredError is the error that a collector answered with. Where it has no
// code of its own, none is made up.
func answeredError(msg *nats.Msg, code schemas.Code) error {
	text := msg.Header.Get(micro.ErrorHeader)
	if code == schemas.CodeInternal {
		return errors.New(text)
	}
	return fault.New(code, "%s", text)
}

// oneLine makes a text fit for a header.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
