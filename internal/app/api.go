package app

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/console"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// apiVersion is the version of the control API, which changes with its messages.
const apiVersion = "1.0.0"

// answer answers the control API and tells of batches that change.
func (p *process) answer(ctx context.Context, r *recording) (stop func(), err error) {
	p.tellOf(ctx, r)
	return p.broker.Serve(r.service(), apiVersion)
}

// stand keeps the batch of single requests open.
func (p *process) stand(ctx context.Context, r *recording) error {
	return r.control.Stand(ctx, schemas.Settings{Root: p.cfg.Exhume.SingleRoot, Overwrite: p.cfg.Exhume.Overwrite, Mode: p.cfg.Exhume.Mode.Bits()})
}

func faultNotFound(err error) error  { return fault.New(schemas.CodeBatchNotFound, "%w", err) }
func faultAmbiguous(err error) error { return fault.New(schemas.CodeBatchAmbiguous, "%w", err) }

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
func (p *process) publishFleet(token string, temporary bool) (url string, err error) {
	at := p.broker.Address()
	if at == "" {
		return "", nil
	}
	url = "nats://" + at
	if err := (localFleet{URL: url, Token: token, Temporary: temporary}).publish(p.cfg); err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	return url, nil
}
