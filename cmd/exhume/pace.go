package main

import (
	"math"
	"time"

	"github.com/exhume/exhume/schemas"
)

// paceWindow is over how long the pace of a batch is averaged: what was long ago
// says little about what is left.
const paceWindow = 15 * time.Second

// pace tells how fast a batch goes on.
type pace struct {
	// items and bytes a second.
	items, bytes float64
	last         time.Time
	done, size   int64
}

// observe takes a look at a batch at a time.
func (p *pace) observe(s schemas.Summary, now time.Time) {
	done, size := s.Counts.Done(), s.Counts.Bytes
	switch {
	case p.last.IsZero():
	case now.Sub(p.last) < 200*time.Millisecond && !s.State.Final():
		return // too soon to tell
	default:
		over := now.Sub(p.last).Seconds()
		weight := 1 - math.Exp(-over/paceWindow.Seconds())
		if p.items == 0 && p.bytes == 0 {
			weight = 1 // there is nothing to average with yet
		}
		p.items += weight * (float64(done-p.done)/over - p.items)
		p.bytes += weight * (float64(size-p.size)/over - p.bytes)
	}
	p.last, p.done, p.size = now, done, size
}

// left is how long the rest will take at this pace, when that can be said.
func (p *pace) left(s schemas.Summary) (time.Duration, bool) {
	if s.SealedAt.IsZero() || s.State == schemas.StatePaused || s.State.Final() || p.items < 0.01 {
		return 0, false
	}
	return time.Duration(float64(s.Open()) / p.items * float64(time.Second)), true
}
