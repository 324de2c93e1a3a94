package app

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/internal/webhook"
	"github.com/exhume/exhume/schemas"
)

// hook tells a webhook what happens to batches. A nil one tells nobody.
type hook struct {
	sender *webhook.Sender
	from   hookLedger
	wake   chan struct{}
}

// hookLedger is the ledger as the outbox of a webhook.
type hookLedger struct{ *ledger.Ledger }

// Summary is a batch, if it is there.
func (l hookLedger) Summary(ctx context.Context, id string) (schemas.Summary, bool, error) {
	return l.Find(ctx, id)
}

// hookConfigured is the setting that remembers that there is a webhook.
const hookConfigured = "webhook"

// openHook makes the configured webhook ready, nil when there is none. What has
// happened before there was one is not told.
func openHook(ctx context.Context, cfg *Config, l *ledger.Ledger, log zerolog.Logger) (*hook, error) {
	now := time.Now().UTC()
	known := ""
	if cfg.Webhook.URL != "" {
		known = "yes"
	}
	before, _, err := l.Setting(ctx, hookConfigured)
	if err != nil {
		return nil, err
	}
	if before != known {
		if known != "" {
			if err := l.TellFromNow(ctx, now); err != nil {
				return nil, err
			}
		}
		if _, err := l.ChangeSetting(ctx, hookConfigured, func(string) (string, error) { return known, nil }, nil); err != nil {
			return nil, err
		}
	}
	if known == "" {
		return nil, nil
	}
	sender, err := webhook.New(webhook.Config{URL: cfg.Webhook.URL, Secret: cfg.Webhook.Secret, Insecure: cfg.Webhook.Insecure, Log: log})
	if err != nil {
		return nil, err
	}
	return &hook{sender: sender, from: hookLedger{l}, wake: make(chan struct{}, 1)}, nil
}

// run tells until the context ends.
func (h *hook) run(ctx context.Context) error {
	if h == nil {
		return nil
	}
	return h.sender.Run(ctx, h.from, h.wake)
}

// changed says that there may be something to tell.
func (h *hook) changed() {
	if h == nil {
		return
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}
