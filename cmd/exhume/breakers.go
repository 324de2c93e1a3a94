package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/exhume/exhume/schemas"
)

// unusual says that a breaker keeps work from being done.
func unusual(b schemas.BreakerStatus) bool { return b.State != schemas.BreakerClosed || b.Most > 0 }

// breakersText is how the breakers of a worker stand, as far as they keep work from
// being done.
func breakersText(all []schemas.BreakerStatus) string {
	var parts []string
	for _, b := range all {
		if unusual(b) {
			parts = append(parts, b.Of+" "+stateText(b))
		}
	}
	if len(parts) == 0 {
		return string(schemas.BreakerClosed)
	}
	return strings.Join(parts, ", ")
}

// stateText is how a breaker stands, in a word or two.
func stateText(b schemas.BreakerStatus) string {
	switch {
	case b.Sick:
		return "sick"
	case b.State == schemas.BreakerClosed:
		return fmt.Sprintf("at most %d", b.Most)
	default:
		return string(b.State)
	}
}

// waitText is what workers wait for, nothing when none waits.
func waitText(workers []schemas.WorkerStatus) string {
	n, first := 0, schemas.BreakerStatus{}
	for _, w := range workers {
		if i := slices.IndexFunc(w.Breakers, unusual); i >= 0 {
			n++
			first = w.Breakers[i]
		}
	}
	if n == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of them held up: %s %s", n, first.Of, stateText(first))
	if first.Reason != "" {
		text += " (" + first.Reason + ")"
	}
	return text
}

// breakerText says what a breaker keeps a worker from.
func breakerText(b schemas.BreakerStatus) string {
	what := b.Of
	if b.Of == schemas.BreakerArchive {
		what = "the archive"
	}
	if b.State == schemas.BreakerClosed {
		return fmt.Sprintf("begins again slowly with %s, with %d items at a time", what, b.Most)
	}
	text := fmt.Sprintf("waits for %s: its breaker is %s", what, b.State)
	if b.Sick {
		text = "has stepped aside: it cannot write to " + what
	}
	text += " since " + moment(b.Since)
	if !b.NextProbe.IsZero() {
		text += ", next probe at " + moment(b.NextProbe)
	}
	return text + ": " + b.Reason
}
