package broker

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

func TestRate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 123)
	at := func(ms float64) time.Time { return now.Add(seconds(ms / 1000)) }
	for name, c := range map[string]struct {
		have             rate
		units, perSecond float64
		at, free         time.Time
	}{
		"nothing was ever taken":       {rate{}, 100, 1000, now, at(0)}, // a tenth of a second may be made up for
		"it was free for long":         {rate{at(-5000), 1000}, 500, 1000, now, at(400)},
		"it was free for a moment":     {rate{at(-50), 1000}, 500, 1000, now, at(450)},
		"all is taken for a while":     {rate{at(700), 1000}, 500, 1000, at(700), at(1200)},
		"only asked":                   {rate{at(700), 1000}, 0, 1000, at(700), at(700)},
		"the limit was raised":         {rate{at(50_000), 10}, 1000, 1000, at(500), at(1500)},
		"the limit was lowered":        {rate{at(500), 1000}, 1, 10, at(50_000), at(50_100)},
		"raised when nothing was left": {rate{at(-50), 10}, 100, 1000, now, at(50)},
		"a clock is wrong":             {rate{at(1e9), 10}, 1, 10, at(3.6e6), at(3.6e6)},
		"far too much":                 {rate{at(0), 1}, 1e300, 1e-9, now, at(3.6e6)},
		"and then asked":               {rate{at(3.6e6), 1e-9}, 0, 1e300, now, now},
	} {
		r, got := c.have.take(now, c.units, c.perSecond)
		if got.Sub(c.at).Abs() > time.Microsecond || r.free.Sub(c.free).Abs() > time.Microsecond || r.perSecond != c.perSecond {
			t.Errorf("%s: at %s, free %s; want %s, %s", name, got.Sub(now), r.free.Sub(now), c.at.Sub(now), c.free.Sub(now))
		}
		back, err := parseRate(r.String())
		if err != nil || !back.free.Equal(r.free) || back.perSecond != r.perSecond {
			t.Errorf("%s: %q is read as %v, %v", name, r, back, err)
		}
	}
}

// Whoever takes units uses them when it may, over a minute: what is used is what
// the rate allows, whatever the sizes are and however the limit changes.
func TestRateOverTime(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	var r rate
	used, allowed, now := 0.0, 0.0, start
	for i := 0; now.Before(start.Add(time.Minute)); i++ {
		perSecond := 200.0
		if now.After(start.Add(30 * time.Second)) {
			perSecond = 1000
		}
		var at time.Time
		if _, at = r.take(now, 0, perSecond); at.After(now) {
			allowed += at.Sub(now).Seconds() * perSecond
			now = at
		}
		units := float64(1 + i%100)
		r, _ = r.take(now, units, perSecond) // afterwards, when it is known how many they were
		used += units
	}
	if used < 0.95*allowed || used > 1.05*allowed || allowed < 30_000 || allowed > 40_000 {
		t.Errorf("%g units were used of %g", used, allowed)
	}
}

// Several workers take units at the same time: none are given twice, and none get
// lost.
func TestReserveTogether(t *testing.T) {
	t.Parallel()
	b := listening(t, Credentials{})
	reserveTogether(t, func() *Broker { return connect(t, Options{URL: b.Address()}) })
}

func TestReserveTogetherInACluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	connectToCluster(t, servers)
	next := 0
	reserveTogether(t, func() *Broker {
		next++
		return connect(t, Options{URL: servers[next%len(servers)].url()})
	})
}

func reserveTogether(t *testing.T, connect func() *Broker) {
	t.Helper()
	// So slow that the last may be used in five minutes: however long this takes,
	// nothing is free before.
	const workers, each, units, perSecond = 8, 30, 5, 4
	const apart = 250 * time.Millisecond // of what each takes for the server's clock
	var mu sync.Mutex
	var times []time.Time
	var all sync.WaitGroup
	start := time.Now()
	for range workers {
		one := connect()
		all.Go(func() {
			for range each {
				at, err := one.Reserve(t.Context(), "fleet.items", units, perSecond)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				times = append(times, at)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.SortFunc(times, time.Time.Compare)
	if len(times) != workers*each {
		t.Fatalf("%d reservations", len(times))
	}
	if d := times[0].Sub(start); d < 0 || d > time.Minute {
		t.Errorf("the first may be used after %s", d)
	}
	for i := 2; i < len(times); i++ { // the second one makes up for a tenth of a second
		if got, want := times[i].Sub(times[i-1]), seconds(units/float64(perSecond)); (got - want).Abs() > apart {
			t.Fatalf("reservation %d may be used %s after the one before, want %s", i, got, want)
		}
	}
	took := times[len(times)-1].Sub(times[0]).Seconds()
	if got := units * float64(len(times)-1) / took; got < 0.95*perSecond || got > 1.05*perSecond {
		t.Errorf("%g units a second, want %d", got, perSecond)
	}
	// Asking takes nothing, and other scopes are not concerned.
	one := connect()
	for range 2 {
		at, err := one.Reserve(t.Context(), "fleet.items", 0, perSecond)
		must(t, err)
		if d := at.Sub(times[len(times)-1]) - seconds(units/float64(perSecond)); d.Abs() > apart {
			t.Errorf("the next may be used %s later than that", d)
		}
	}
	at, err := one.Reserve(t.Context(), schemas.ScopeBatch("b")+".bytes", 1000, perSecond)
	must(t, err)
	if at.After(time.Now()) {
		t.Errorf("another scope may be used at %s only", at)
	}
	// A higher limit does not wait for what a lower one put off.
	at, err = one.Reserve(t.Context(), "fleet.items", 0, 1000*perSecond)
	must(t, err)
	if d := time.Until(at); d > time.Second {
		t.Errorf("after the limit was raised the next may be used in %s", d)
	}
}

func TestReserveNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	for _, c := range [][2]float64{{1, 0}, {-1, 1}, {1, -1}} {
		if _, err := b.Reserve(t.Context(), "fleet.items", c[0], c[1]); err == nil || !strings.Contains(err.Error(), "want 0 or more, and a rate above 0") {
			t.Errorf("%v: got error %v", c, err)
		}
	}
	kv, err := b.bucket(t.Context(), schemas.BucketFleet)
	must(t, err)
	_, err = kv.PutString(t.Context(), "rate.fleet.items", "nonsense")
	must(t, err)
	if _, err := b.Reserve(t.Context(), "fleet.items", 1, 1); err == nil || !strings.Contains(err.Error(), "nats kv del EXHUME_FLEET rate.fleet.items") {
		t.Errorf("got error %v", err)
	}
	must(t, kv.Delete(t.Context(), "rate.fleet.items"))
	if _, err := b.Reserve(t.Context(), "fleet.items", 1, 1); err != nil {
		t.Error(err)
	}
}
