package app

import (
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// The predecessor's settings of retries mean here what they meant there, but that
// no delay exceeds the longest one.
func TestRetryPolicy(t *testing.T) {
	t.Parallel()
	seed := 7
	base := RetryConfig{Enabled: true, MaxAttempts: 3, InitialDelay: 2, MaxDelay: 5, Multiplier: 2, Jitter: 0.25}
	with := func(change func(*RetryConfig)) RetryConfig {
		c := base
		change(&c)
		return c
	}
	again := func(d time.Duration) worker.Verdict { return worker.Verdict{Action: worker.TryAgain, Delay: d} }
	finish := worker.Verdict{Action: worker.Finish}
	for _, c := range []struct {
		name     string
		cfg      RetryConfig
		attempt  int
		min, max worker.Verdict
	}{
		{"first", base, 1, again(1500 * time.Millisecond), again(2 * time.Second)},
		{"second", base, 2, again(3 * time.Second), again(4 * time.Second)},
		{"last", base, 3, finish, finish},
		{"capped", with(func(c *RetryConfig) { c.MaxAttempts = 9 }), 5, again(3750 * time.Millisecond), again(5 * time.Second)},
		{"without jitter", with(func(c *RetryConfig) { c.Jitter = 0 }), 2, again(4 * time.Second), again(4 * time.Second)},
		{"full jitter", with(func(c *RetryConfig) { c.Jitter = 1 }), 2, again(0), again(4 * time.Second)},
		{"switched off", with(func(c *RetryConfig) { c.Enabled = false }), 1, finish, finish},
		{"no delay", with(func(c *RetryConfig) { c.InitialDelay, c.MaxDelay = 0, 0 }), 1, again(0), again(1)},
		{"with a seed", with(func(c *RetryConfig) { c.Seed = &seed }), 1, again(1500 * time.Millisecond), again(2 * time.Second)},
	} {
		p := retryPolicy(&Config{Retry: c.cfg})
		for range 200 {
			got := worker.Decide(p, schemas.CodeArchiveBusy, c.attempt)
			if got.Action != c.min.Action || got.Delay < c.min.Delay || got.Delay > c.max.Delay {
				t.Fatalf("%s: %+v, want %+v to %+v", c.name, got, c.min, c.max)
			}
		}
	}
	draw := func() (all []time.Duration) {
		p := retryPolicy(&Config{Retry: with(func(c *RetryConfig) { c.Seed = &seed })})
		for range 5 {
			all = append(all, worker.Decide(p, schemas.CodeArchiveBusy, 1).Delay)
		}
		return all
	}
	first := draw()
	for i, d := range draw() {
		if d != first[i] || i > 0 && d == first[0] {
			t.Errorf("delays of one seed: %v, then %s", first, d)
		}
	}
}
