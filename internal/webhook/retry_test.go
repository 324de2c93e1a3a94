package webhook

import (
	"testing"
	"time"
)

func TestDelay(t *testing.T) {
	t.Parallel()
	for failures, most := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, 1 << 30: 5 * time.Minute,
	} {
		for range 100 {
			if d := delay(failures); d > most || d < most/2 {
				t.Fatalf("after %d failures %v, want up to %v", failures, d, most)
			}
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 18, 34, 16, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-5": 0, "0": 0, "120": 2 * time.Minute, "4000000000": time.Hour, "99999999999999999999": 0,
		"Sun, 22 Nov 2026 18:35:16 GMT": time.Minute,
		"Sun, 22 Nov 2026 18:30:16 GMT": 0,
		"Sun, 22 Nov 2099 18:35:16 GMT": time.Hour,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
