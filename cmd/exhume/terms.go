package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/exhume/exhume/schemas"
)

// termsFlags say how a batch is worked on.
type termsFlags struct {
	priority, canary, maxFailures, onFailures string
	maxInFlight, canaryErrors                 int64
	hold                                      bool
}

// add adds the flags of a batch that is submitted.
func (f *termsFlags) add(fs *pflag.FlagSet) {
	f.addChangeable(fs)
	fs.StringVar(&f.canary, "canary", "", "restore a sample first, this `many` items or this share (5%), spread over the manifest, and go on only if it succeeds")
	fs.Int64Var(&f.canaryErrors, "canary-max-errors", 0, "go on by itself although up to this `many` items of the sample fail")
}

// addHold adds the flag of a batch that somebody else restores.
func (f *termsFlags) addHold(fs *pflag.FlagSet) {
	fs.BoolVar(&f.hold, "hold", false, "submit only: nothing is restored before 'exhume batch start'")
}

// addChangeable adds those that can be changed later.
func (f *termsFlags) addChangeable(fs *pflag.FlagSet) {
	fs.StringVar(&f.priority, "priority", "", "`urgent|normal|bulk`: 16, 4 and 1 parts of the workers' time where all three have work (default normal)")
	fs.Int64Var(&f.maxInFlight, "max-in-flight", 0, "at most this `many` items in the hands of all workers, or one message of up to 64 of them, 0 for no bound")
	fs.StringVar(&f.maxFailures, "max-failures", "", "stop when more items fail than this `many` (50), than this share (1%), or this share of at least so many results (1%@500); what is in hand then, some groups of 512, is finished; none for no bound")
	fs.StringVar(&f.onFailures, "on-max-failures", "pause", "what happens then: `pause|abort`")
}

// terms are what the flags say of a batch of so many items.
func (f *termsFlags) terms(total int64) (t schemas.Terms, err error) {
	if err := oneOf("priority", f.priority, "", "urgent", "normal", "bulk"); err != nil {
		return t, err
	}
	if err := oneOf("on-max-failures", f.onFailures, "pause", "abort"); err != nil {
		return t, err
	}
	t.Priority = schemas.Priority(f.priority)
	if t.MaxInFlight = f.maxInFlight; t.MaxInFlight < 0 {
		return t, fmt.Errorf("--max-in-flight %d: want 0 or more", f.maxInFlight)
	}
	if t.MaxFailures, err = parseThreshold(f.maxFailures); err != nil {
		return t, err
	}
	if t.MaxFailures != nil {
		t.MaxFailures.Action = schemas.StopAction(f.onFailures)
	}
	size, err := sampleSize(f.canary, total)
	if err != nil {
		return t, err
	}
	if f.canaryErrors < 0 || f.canaryErrors > 0 && size == 0 {
		return t, fmt.Errorf("--canary-max-errors %d: want 0 or more, together with --canary", f.canaryErrors)
	}
	if size > 0 {
		t.Canary = &schemas.Canary{Size: size, MaxErrors: f.canaryErrors}
	}
	return t, nil
}

// check says what is wrong with the flags before the total is known.
func (f *termsFlags) check() error {
	_, err := f.terms(1)
	return err
}

// sampleSize reads the size of a sample of so many items.
func sampleSize(s string, total int64) (int64, error) {
	if s == "" {
		return 0, nil
	}
	bad := fmt.Errorf("--canary %q: want a number of items (200) or a share (5%%)", s)
	if share, ok := strings.CutSuffix(s, "%"); ok {
		p, err := strconv.ParseFloat(share, 64)
		if err != nil || !(p > 0 && p <= 100) {
			return 0, bad
		}
		return min(max(1, int64(math.Ceil(p*float64(total)/100))), max(total, 1)), nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return 0, bad
	}
	return min(n, max(total, 1)), nil
}

// parseThreshold reads how many items may fail, nil for no bound.
func parseThreshold(s string) (*schemas.Threshold, error) {
	if s == "" || s == "none" {
		return nil, nil
	}
	bad := fmt.Errorf("--max-failures %q: want a number of items (50), a share (1%%), a share of at least so many results (1%%@500), or none", s)
	share, sample, sampled := strings.Cut(s, "@")
	t := &schemas.Threshold{}
	if sampled {
		n, err := strconv.ParseInt(sample, 10, 64)
		if err != nil || n < 1 {
			return nil, bad
		}
		t.MinSample = n
	}
	if percent, ok := strings.CutSuffix(share, "%"); ok {
		p, err := strconv.ParseFloat(percent, 64)
		if err != nil || !(p >= 0 && p <= 100) {
			return nil, bad
		}
		t.Percent = &p
		return t, nil
	}
	n, err := strconv.ParseInt(share, 10, 64)
	if err != nil || n < 0 || sampled {
		return nil, bad
	}
	t.Count = &n
	return t, nil
}
