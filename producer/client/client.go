// Package client lets a Go program ask a fleet of exhume to restore items: whole
// batches, or one at a time.
//
// Programs in other languages do the same with a NATS client alone; 'exhume
// schema asyncapi' prints what they send and receive.
package client

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
)

// Options say how the fleet's NATS server is reached. Either URL or Context must
// be set.
type Options struct {
	// URL is one address, or several with commas between: nats://host:4222.
	URL string
	// Context is the name of a context of the nats command line tool.
	Context string
	// Name is what the server calls the connection.
	Name string
	// Creds is a credentials file, NKey a file with an NKey seed.
	Creds, NKey    string
	User, Password string
	Token          string
	// CA, Cert and Key are PEM files.
	CA, Cert, Key string
	// StartTimeout is how long Connect waits for a fleet that is not there yet;
	// 0 does not wait.
	StartTimeout time.Duration
}

// Client is a connection to a fleet, which is restored for ever once it was
// made. It is safe for concurrent use.
type Client struct{ b *broker.Broker }

// Connect connects to a fleet that a collector has set up.
func Connect(ctx context.Context, o Options) (*Client, error) {
	b, err := broker.Connect(ctx, broker.Options{
		URL: o.URL, Context: o.Context, Name: o.Name, Creds: o.Creds, NKey: o.NKey, User: o.User, Password: o.Password, Token: o.Token,
		CA: o.CA, Cert: o.Cert, Key: o.Key, StartTimeout: o.StartTimeout, Log: zerolog.Nop(),
	})
	if err != nil {
		return nil, err
	}
	if err := b.Ready(ctx); err != nil {
		_ = b.Close() // the error that counts is the other one
		return nil, err
	}
	return &Client{b}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.b.Close() }

// Code is the stable code of an error of this package, schemas.CodeInternal when it
// has none. Its Info tells what can be done.
func Code(err error) schemas.Code { return fault.CodeOf(err) }

// Submit submits a batch: see producer.Submit. It does not wait for results; while
// the queue is full it waits for room, and tells Submission.Waiting.
func (c *Client) Submit(ctx context.Context, s producer.Submission) (producer.Submitted, error) {
	return producer.Submit(ctx, c.b.API(), c.b, s)
}

// Batch says how a batch stands. It is named by its id, the beginning of one, or
// "latest".
func (c *Client) Batch(ctx context.Context, ref string) (schemas.BatchReport, error) {
	return c.b.API().Get(ctx, ref)
}

// Pending is a single request whose result is awaited.
type Pending struct {
	// ID is the request's id.
	ID     string
	result chan schemas.Result
	stop   func()
}

// Restore asks for one item. When it returns, the fleet has the request and does
// not lose it. An empty id makes one up; a given one (schemas.CheckRequestID)
// makes it safe to ask again: within two minutes that is the same request.
//
// When it fails with schemas.CodeBrokerFull the queue has no room just now, and with
// schemas.CodeBrokerDown nobody knows whether the fleet has the request: ask again a
// little later, with the same id. See Code.
//
// The outputs of single requests lie below a root that the fleet's operator has
// set.
func (c *Client) Restore(ctx context.Context, id string, r schemas.SingleRequest) (*Pending, error) {
	if id == "" {
		id = uuid.NewString()
	}
	if !schemas.CheckRequestID(id) {
		return nil, fmt.Errorf("request id %q: want 1 to 64 letters, digits, '-' or '_'", id)
	}
	p := &Pending{ID: id, result: make(chan schemas.Result, 1)}
	var err error
	p.stop, err = c.b.WatchItem(id, func(r schemas.Result) {
		select {
		case p.result <- r:
		default: // announced again
		}
	})
	if err != nil {
		return nil, err
	}
	if err := c.b.PublishSingle(ctx, id, r); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// Wait waits for the result and must be called once. A result that failed is no
// error. When the context ends first the fleet goes on; the result is in the
// ledger, in the batch schemas.Single under the label schemas.LabelRequestID.
func (p *Pending) Wait(ctx context.Context) (schemas.Result, error) {
	defer p.stop()
	select {
	case r := <-p.result:
		return r, nil
	case <-ctx.Done():
		return schemas.Result{}, ctx.Err()
	}
}
