package schemas

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/golden"
)

func standing(state State, reason Reason, sealed bool, n Counts) Summary {
	s := Summary{Batch: Batch{ID: "b", State: state, Standing: Standing{Reason: reason}, Total: 10}, Counts: n}
	if sealed {
		s.SealedAt, s.Since = time.Unix(1, 0), time.Unix(1, 0)
	}
	return s
}

// Every change, from every state.
func TestApply(t *testing.T) {
	t.Parallel()
	none, some, all := Counts{}, Counts{Restored: 3, Failed: 1}, Counts{Restored: 10}
	mixed, failed := Counts{Restored: 9, Failed: 1}, Counts{Failed: 10}
	cancelled := Counts{Restored: 4, Cancelled: 6}
	for _, c := range []struct {
		from   Summary
		on     Change
		to     State // empty: refused
		reason Reason
	}{
		{standing(StateOpen, ReasonSubmitting, false, none), ChangeSeal, StateSealed, ReasonQueued},
		{standing(StateOpen, ReasonSubmitting, false, some), ChangeSeal, StateRunning, ReasonWorking},
		{standing(StateSealed, ReasonQueued, true, none), ChangeBegin, StateRunning, ReasonWorking},
		{standing(StateOpen, ReasonSubmitting, false, none), ChangeBegin, "", ""},
		{standing(StateOpen, ReasonSubmitting, false, none), ChangePause, StatePaused, ReasonPaused},
		{standing(StateSealed, ReasonQueued, true, none), ChangePause, StatePaused, ReasonPaused},
		{standing(StateRunning, ReasonWorking, true, some), ChangePause, StatePaused, ReasonPaused},
		{standing(StateRunning, ReasonCancelling, true, some), ChangePause, "", ""},
		{standing(StatePaused, ReasonHeld, false, none), ChangePause, StatePaused, ReasonPaused},
		{standing(StatePaused, ReasonHeld, false, none), ChangeSeal, StatePaused, ReasonHeld},
		{standing(StatePaused, ReasonHeld, false, none), ChangeResume, StateOpen, ReasonSubmitting},
		{standing(StatePaused, ReasonHeld, true, none), ChangeResume, StateSealed, ReasonQueued},
		{standing(StatePaused, ReasonHeld, true, some), ChangeResume, StateRunning, ReasonWorking},
		{standing(StateRunning, ReasonWorking, true, some), ChangeResume, "", ""},
		{standing(StateOpen, ReasonSubmitting, false, none), ChangeCancel, StateRunning, ReasonCancelling},
		{standing(StateSealed, ReasonQueued, true, none), ChangeCancel, StateRunning, ReasonCancelling},
		{standing(StateRunning, ReasonWorking, true, none), ChangeCancel, StateRunning, ReasonCancelling},
		{standing(StatePaused, ReasonPaused, true, none), ChangeCancel, StateRunning, ReasonCancelling},
		{standing(StateRunning, ReasonCancelling, true, none), ChangeCancel, "", ""},
		{standing(StateRunning, ReasonCancelling, true, none), ChangeAbort, StateRunning, ReasonAborting},
		{standing(StateRunning, ReasonAborting, true, none), ChangeCancel, "", ""},
		{standing(StateRunning, ReasonCancelling, false, none), ChangeSeal, StateRunning, ReasonCancelling},
		{standing(StateRunning, ReasonWorking, true, all), ChangeComplete, StateSucceeded, ReasonAllRestored},
		{standing(StateRunning, ReasonWorking, true, mixed), ChangeComplete, StatePartial, ReasonSomeLeft},
		{standing(StateRunning, ReasonWorking, true, failed), ChangeComplete, StateFailed, ReasonNoneRestored},
		{standing(StateRunning, ReasonCancelling, true, cancelled), ChangeComplete, StateCancelled, ReasonCancelled},
		{standing(StateRunning, ReasonCancelling, true, all), ChangeComplete, StateSucceeded, ReasonAllRestored},
		{standing(StateRunning, ReasonAborting, true, cancelled), ChangeComplete, StateAborted, ReasonTooManyFailures},
		{standing(StatePaused, ReasonPaused, true, all), ChangeComplete, StateSucceeded, ReasonAllRestored},
		{standing(StateOpen, ReasonSubmitting, false, all), ChangeComplete, "", ""},
	} {
		s := c.from
		e, ok := s.Apply(c.on, Standing{By: "", Note: "n"}, time.Unix(5, 0))
		switch {
		case c.to == "" && (ok || s.State != c.from.State || s.Reason != c.from.Reason):
			t.Errorf("%s (%s) on %s: not refused, %s", c.from.State, c.from.Reason, c.on, s.State)
		case c.to != "" && (!ok || s.State != c.to || s.Reason != c.reason || e.To != c.to || e.From != c.from.State || e.Reason != c.reason):
			t.Errorf("%s (%s) on %s: %v, %s (%s), want %s (%s); event %+v", c.from.State, c.from.Reason, c.on, ok, s.State, s.Reason, c.to, c.reason, e)
		}
	}
	for _, final := range []State{StateSucceeded, StatePartial, StateFailed, StateCancelled, StateAborted} {
		for _, on := range []Change{ChangeSeal, ChangeBegin, ChangePause, ChangeResume, ChangeCancel, ChangeAbort, ChangeComplete} {
			s := standing(final, "", true, all)
			if _, ok := s.Apply(on, Standing{}, time.Unix(5, 0)); ok {
				t.Errorf("%s on %s is not refused", final, on)
			}
		}
	}
}

func TestApplyRemembersWhoAndWhy(t *testing.T) {
	t.Parallel()
	s := standing(StateRunning, ReasonWorking, true, Counts{Restored: 4})
	at := time.Unix(7, 0)
	if _, ok := s.Apply(ChangeAbort, Standing{By: "ops", Note: "wrong root"}, at); !ok || s.By != "ops" || s.Note != "wrong root" || !s.Since.Equal(at) {
		t.Fatalf("%+v", s.Standing)
	}
	s.Counts.Cancelled = 6
	if _, ok := s.Apply(ChangeComplete, Standing{}, at.Add(time.Second)); !ok || s.State != StateAborted || s.Reason != ReasonAborted ||
		s.By != "ops" || s.Note != "wrong root" || !s.EndedAt.Equal(at.Add(time.Second)) {
		t.Errorf("%+v", s.Batch)
	}
}

// What was cancelled before all of it was submitted has not succeeded, although
// all that was submitted is there.
func TestCancelledWhileSubmitted(t *testing.T) {
	t.Parallel()
	s := standing(StateRunning, ReasonCancelling, true, Counts{Restored: 10})
	s.SealedAt = s.Since.Add(time.Second)
	if _, ok := s.Apply(ChangeComplete, Standing{}, time.Unix(9, 0)); !ok || s.State != StateCancelled {
		t.Errorf("%s", s.State)
	}
}

func TestTransitionsHaveTheirConditions(t *testing.T) {
	t.Parallel()
	for _, tr := range Transitions() {
		if conditions[tr.When] == nil {
			t.Errorf("%+v: unknown condition", tr)
		}
		if tr.From.Final() || !slices.Contains(ActiveStates(), tr.From) {
			t.Errorf("%+v: leaves a final state", tr)
		}
	}
}

// The picture in the documents is drawn from the table.
func TestTransitionsAreDrawn(t *testing.T) {
	t.Parallel()
	const path, begin, end = "../deploy/CONTROL.md", "by its test -->\n", "<!-- end of states -->"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the states", path)
	}
	golden.Compare(t, path, []byte(head+begin+drawing()+end+tail))
}

// drawing is the table of transitions as a Mermaid diagram.
func drawing() string {
	var b strings.Builder
	b.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> open: open\n    [*] --> paused: open, held\n")
	for _, tr := range Transitions() {
		when := ""
		if tr.When != "" {
			when = ", " + tr.When
		}
		fmt.Fprintf(&b, "    %s --> %s: %s%s\n", tr.From, tr.To, tr.On, when)
	}
	for _, s := range []State{StateSucceeded, StatePartial, StateFailed, StateCancelled, StateAborted} {
		fmt.Fprintf(&b, "    %s --> [*]\n", s)
	}
	b.WriteString("```\n")
	return b.String()
}

// A small batch is divided among workers, a large one takes few messages.
func TestPerMessage(t *testing.T) {
	t.Parallel()
	for total, want := range map[int64]int64{0: 1, 1: 1, 300: 1, 5_000: 19, 20_000: 64, 1_000_000_000: 64} {
		if got := PerMessage(total, 0); got != want || got > MaxRequests {
			t.Errorf("PerMessage(%d) = %d, want %d", total, got, want)
		}
	}
	if got := PerMessage(1_000_000, 10); got != 10 {
		t.Errorf("at most 10 in flight: %d in a message", got)
	}
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	count, percent := int64(50), 1.0
	for _, c := range []struct {
		t    *Threshold
		n    Counts
		want bool
	}{
		{nil, Counts{Failed: 1000}, false},
		{&Threshold{Count: &count}, Counts{Failed: 50}, false},
		{&Threshold{Count: &count}, Counts{Failed: 51}, true},
		{&Threshold{Count: &count, FailedBefore: 51}, Counts{Failed: 101}, false},
		{&Threshold{Percent: &percent}, Counts{Failed: 1, Restored: 98}, true},
		{&Threshold{Percent: &percent}, Counts{Failed: 1, Restored: 99}, false},
		{&Threshold{Percent: &percent, MinSample: 500}, Counts{Failed: 400, Restored: 99}, false},
		{&Threshold{Percent: &percent, MinSample: 500}, Counts{Failed: 401, Restored: 99}, true},
		{&Threshold{Percent: &percent, MinSample: 100, FailedBefore: 50, DoneBefore: 100}, Counts{Failed: 60, Restored: 139}, false},
		{&Threshold{Percent: &percent, MinSample: 100, FailedBefore: 50, DoneBefore: 100}, Counts{Failed: 60, Restored: 140}, true},
	} {
		if got := c.t.Exceeded(c.n); got != c.want {
			t.Errorf("%s of %+v: %v", c.t, c.n, got)
		}
	}
}

func TestNormalise(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`tombstone "9039c97b-1acb-4124-a066-1c30c7ed65f4": no such item`:               `tombstone "…": no such item`,
		"content is 410 bytes, 411 are declared":                                       "content is <n> bytes, <n> are declared",
		"open /srv/out/a.go: permission denied":                                        "open <path>: permission denied",
		"s3://bucket/a/b is away after 1.5s":                                           "<url> is away after <n>",
		"9039c97b-1acb-4124-a066-1c30c7ed65f4 died":                                    "<id> died",
		"has bfe09a6aed85f21db093649c9b431f76353794d3b630b2f788859ea96a2ff6a2, wanted": "has <digest>, wanted",
	} {
		if got := Normalise(in); got != want || Normalise(got) != got {
			t.Errorf("%q: %q, again %q, want %q", in, got, Normalise(got), want)
		}
	}
}
