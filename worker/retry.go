package worker

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/exhume/exhume/schemas"
)

// RetryPolicy says when a failed item is tried again: after
// min(MaxDelay, Initial·Multiplier^n) for the n-th retry from 0, times Jitter,
// up to MaxAttempts attempts in all. Zero fields have defaults.
type RetryPolicy struct {
	// MaxAttempts counts the first attempt too (default 5; 1 never retries).
	MaxAttempts int
	// Initial is the longest delay before the first retry (default 1 s).
	Initial time.Duration
	// MaxDelay caps the delay (default 32 s).
	MaxDelay time.Duration
	// Multiplier is the growth from one retry to the next (default 2).
	Multiplier float64
	// Jitter draws the share of the delay that is waited, in [0, 1] (default:
	// uniform, "full jitter"). It is called from several goroutines.
	Jitter func() float64
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = 5
	}
	if p.Initial == 0 {
		p.Initial = time.Second
	}
	if p.MaxDelay == 0 {
		p.MaxDelay = 32 * time.Second
	}
	if p.Multiplier == 0 {
		p.Multiplier = 2
	}
	if p.Jitter == nil {
		p.Jitter = rand.Float64
	}
	return p
}

// Action is what becomes of an item after an attempt.
type Action int

// The actions.
const (
	// Finish: the result is final.
	Finish Action = iota
	// TryAgain: the item is tried again after the delay; the attempt counts.
	TryAgain
	// HandBack: the item goes to another worker at once; the attempt does not
	// count, and this worker steps aside.
	HandBack
)

// Verdict is a decision about an item.
type Verdict struct {
	Action Action
	Delay  time.Duration
}

// Decide says what becomes of an item whose attempt (the number of it, from 1)
// ended with the code; an empty code is success. It depends on nothing but its
// arguments.
func Decide(p RetryPolicy, code schemas.Code, attempt int) Verdict {
	if code == "" {
		return Verdict{Action: Finish}
	}
	switch code.Class() {
	case schemas.ClassWorkerSick:
		return Verdict{Action: HandBack}
	case schemas.ClassTransient:
		p = p.withDefaults()
		if attempt >= p.MaxAttempts {
			return Verdict{Action: Finish}
		}
		longest := float64(p.Initial) * math.Pow(p.Multiplier, float64(attempt-1))
		return Verdict{Action: TryAgain, Delay: time.Duration(p.Jitter() * min(longest, float64(p.MaxDelay)))}
	default:
		return Verdict{Action: Finish}
	}
}
