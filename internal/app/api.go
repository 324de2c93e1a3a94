package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/console"
	"github.com/exhume/exhume/internal/control"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// apiVersion is the version of the control API, which changes with its messages.
const apiVersion = "1.0.0"

// service is what answers the control API.
type service struct {
	*control.Control
	*control.Answers
}

// records is a ledger as the control role asks it.
type records struct{ *ledger.Reader }

func (r records) Batch(ctx context.Context, ref string) (schemas.Summary, error) {
	s, err := r.Reader.Batch(ctx, ref)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		err = fault.New(schemas.CodeBatchNotFound, "%w", err)
	case errors.Is(err, ledger.ErrAmbiguous):
		err = fault.New(schemas.CodeBatchAmbiguous, "%w", err)
	}
	return s, err
}

func (r records) Results(ctx context.Context, q schemas.ResultsQuery) iter.Seq2[schemas.Result, error] {
	return r.Reader.Results(ctx, q.Batch, ledger.Filter{Outcome: q.Outcome, Code: q.Code, From: q.From})
}

// answer answers the control API, tells of batches that change, and keeps the
// batch of single requests open.
func (p *process) answer(ctx context.Context, r *recording) (stop func(), err error) {
	if err := r.control.Stand(ctx, schemas.Settings{Root: p.cfg.Exhume.SingleRoot, Overwrite: p.cfg.Exhume.Overwrite, Mode: p.cfg.Exhume.Mode.Bits()}); err != nil {
		return nil, err
	}
	r.collector.Changed = func(s schemas.Summary) {
		if err := p.broker.Progress(s); err != nil {
			p.log.Debug().Err(err).Str("batch", s.ID).Msg("cannot tell of a batch's progress")
		}
	}
	p.metrics.Gauge("exhume_collector_lag_messages", "Messages of results that are not recorded yet.", func() float64 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		n, err := p.broker.Unrecorded(ctx)
		if err != nil {
			return -1
		}
		return float64(n)
	})
	return p.broker.Serve(service{r.control, control.NewAnswers(records{r.ledger.Reader}, p.broker)}, apiVersion)
}

// ledgerCheck says whether the ledger answers.
func ledgerCheck(l *ledger.Ledger) console.Check {
	return console.Check{Name: "ledger", Probe: func(ctx context.Context) error {
		_, err := l.Batches(ctx, 1)
		return err
	}}
}

// listenOptions make an embedded broker listen, for those who have the new token.
func listenOptions(address string) (_ []broker.EmbedOption, token string) {
	if address == "" || address == "off" {
		return nil, ""
	}
	token = rand.Text()
	return []broker.EmbedOption{broker.Listen(address, broker.Credentials{Token: token})}, token
}

// publishFleet tells other processes of this user how to reach the broker.
func (p *process) publishFleet(token string) (url string, err error) {
	at := p.broker.Address()
	if at == "" {
		return "", nil
	}
	url = "nats://" + at
	if err := (localFleet{URL: url, Token: token}).publish(p.cfg); err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	return url, nil
}
