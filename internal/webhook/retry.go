package webhook

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

const (
	// minDelay and maxDelay bound how long an event that was not accepted waits.
	minDelay = time.Second
	maxDelay = 5 * time.Minute
	// maxRetryAfter bounds how long a receiver is left alone because it said so.
	maxRetryAfter = time.Hour
)

// delay is how long a batch's next event waits after so many failures in a row,
// from 1: the most doubles each time, and chance takes up to half of it off.
func delay(failures int) time.Duration {
	most := min(minDelay<<min(failures-1, 16), maxDelay)
	return most - rand.N(most/2) //nolint:gosec // spreads load, guards nothing
}

// retryAfter reads the header of that name: seconds, or a date. It is 0 for what
// is neither, or over.
func retryAfter(text string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(s)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
