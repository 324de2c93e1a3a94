package worker

import (
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	full := func() float64 { return 1 }
	base := RetryPolicy{MaxAttempts: 3, Initial: time.Second, MaxDelay: 10 * time.Second, Multiplier: 4, Jitter: full}
	with := func(change func(*RetryPolicy)) RetryPolicy {
		p := base
		change(&p)
		return p
	}
	for _, c := range []struct {
		name    string
		policy  RetryPolicy
		code    schemas.Code
		attempt int
		want    Verdict
	}{
		{"success", base, "", 1, Verdict{Finish, 0}},
		{"permanent", base, schemas.CodeTombstoneNotFound, 1, Verdict{Finish, 0}},
		{"poison", base, schemas.CodeBadRequest, 1, Verdict{Finish, 0}},
		{"unknown code", base, "new_code", 1, Verdict{Finish, 0}},
		{"sick", base, schemas.CodeDestinationFull, 1, Verdict{HandBack, 0}},
		{"sick is never counted", base, schemas.CodeDestinationIO, 99, Verdict{HandBack, 0}},
		{"first retry", base, schemas.CodeArchiveBusy, 1, Verdict{TryAgain, time.Second}},
		{"second retry", base, schemas.CodeArchiveBusy, 2, Verdict{TryAgain, 4 * time.Second}},
		{"last attempt", base, schemas.CodeArchiveBusy, 3, Verdict{Finish, 0}},
		{"beyond the last", base, schemas.CodeArchiveBusy, 4, Verdict{Finish, 0}},
		{"capped", with(func(p *RetryPolicy) { p.MaxAttempts = 9 }), schemas.CodeArchiveBusy, 4, Verdict{TryAgain, 10 * time.Second}},
		{"never overflows", with(func(p *RetryPolicy) { p.MaxAttempts = 1e6 }), schemas.CodeArchiveBusy, 1e5, Verdict{TryAgain, 10 * time.Second}},
		{"jitter", with(func(p *RetryPolicy) { p.Jitter = func() float64 { return 0.25 } }), schemas.CodeArchiveBusy, 2, Verdict{TryAgain, time.Second}},
		{"no retries", with(func(p *RetryPolicy) { p.MaxAttempts = 1 }), schemas.CodeArchiveBusy, 1, Verdict{Finish, 0}},
		{"defaults", RetryPolicy{Jitter: full}, schemas.CodeDestinationBusy, 4, Verdict{TryAgain, 8 * time.Second}},
		{"default limit", RetryPolicy{Jitter: full}, schemas.CodeDestinationBusy, 5, Verdict{Finish, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := Decide(c.policy, c.code, c.attempt); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestFullJitterStaysBelowTheDelay(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if d := Decide(RetryPolicy{}, schemas.CodeArchiveBusy, 2).Delay; d < 0 || d > 2*time.Second {
			t.Fatalf("delay %s", d)
		}
	}
}
