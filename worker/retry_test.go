package worker

import (
	"math"
	"math/rand/v2"
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

// Every code at its limits: what it ends as depends on its class alone.
func TestDecideByClass(t *testing.T) {
	t.Parallel()
	p := RetryPolicy{MaxAttempts: 3, Initial: time.Second, MaxDelay: 10 * time.Second, Multiplier: 4, Jitter: func() float64 { return 1 }}
	want := map[schemas.Class][3]Verdict{ // of the first, the last but one and the last attempt
		schemas.ClassPermanent: {{Finish, 0}, {Finish, 0}, {Finish, 0}},
		schemas.ClassPoison:    {{Finish, 0}, {Finish, 0}, {Finish, 0}},
		schemas.ClassTransient: {{TryAgain, time.Second}, {TryAgain, 4 * time.Second}, {Finish, 0}},
		// Such an error is the guard's to wait out. An item that has it all the same
		// must end.
		schemas.ClassBackendDown: {{Finish, 0}, {Finish, 0}, {Finish, 0}},
		schemas.ClassWorkerSick:  {{HandBack, 0}, {HandBack, 0}, {HandBack, 0}},
	}
	for _, c := range schemas.Codes() {
		verdicts, ok := want[c.Class]
		if !ok {
			t.Errorf("%s has the class %s", c.Code, c.Class)
		}
		for i, v := range verdicts {
			if got := Decide(p, c.Code, i+1); got != v {
				t.Errorf("%s, attempt %d: %v, want %v", c.Code, i+1, got, v)
			}
		}
	}
}

// Whatever the settings are, a delay is neither below zero nor above the longest,
// and so is it drawn that each is as likely as another.
func TestDelaysStayWithinTheirBounds(t *testing.T) {
	t.Parallel()
	for range 20_000 {
		p := RetryPolicy{
			MaxAttempts: math.MaxInt, Initial: 1 + rand.N(time.Duration(math.MaxInt64)), MaxDelay: 1 + rand.N(time.Duration(1)<<rand.IntN(63)),
			Multiplier: math.Pow(10, 300*rand.Float64()-10),
		}
		attempt := 1 + rand.IntN(1<<rand.IntN(62))
		if v := Decide(p, schemas.CodeArchiveBusy, attempt); v.Action != TryAgain || v.Delay < 0 || v.Delay > p.MaxDelay {
			t.Fatalf("%+v, attempt %d: %+v", p, attempt, v)
		}
	}
	quarters := [4]int{}
	for range 4000 {
		d := Decide(RetryPolicy{}, schemas.CodeArchiveBusy, 2).Delay // of at most 2 s
		quarters[min(3, d/(500*time.Millisecond))]++
	}
	for i, n := range quarters {
		if n < 800 || n > 1200 {
			t.Errorf("%d of 4000 delays are in quarter %d", n, i+1)
		}
	}
}
