package faults

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// Everything goes wrong, one thing after the other, for as long as a large batch lasts.
func TestSoak(t *testing.T) {
	strike(t, []fault{{"random-faults", true, soak}})
}

const (
	// soakArtifacts are what the items of a soak share.
	soakArtifacts = 1000
	// soakRate bounds the items in a second, so that a batch lasts for many faults.
	soakRate = 2500
)

// soak restores ITEMS items (20,000 unless told otherwise) while faults strike every few
// seconds, each when the one before has been recovered from. It prints what it has seen
// and checks all invariants, during (I2, I3, I6) and after (I1 to I8).
func soak(t *testing.T, random *rand.Rand) {
	s := newSoak(t, random)
	began := time.Now()
	s.submit()
	s.strikes()
	took := time.Since(began)
	s.settled()
	s.stopWatching()
	harness.StopAll(t, s.roles())
	if t.Failed() {
		t.Log(s.said())
		return
	}
	s.tell(took)
	s.CheckInvariants(t, batch)
}

// soaking is a trial that is too large to be looked at as a whole all the time.
type soaking struct {
	*trial
	sums   []string // of the artifacts
	broker *harness.NATS
	db     *dbtest.Postgres // the ledger's
	// nets are between the workers and the broker, and the archive.
	nets   map[string]*harness.Proxy
	ledger *ledger.Reader

	struck     map[string]int
	recoveries []time.Duration
	worst      string // what was recovered from latest
	fell       int    // roles that have ended by themselves
	stopped    chan struct{}
	watching   sync.WaitGroup
}

func newSoak(t *testing.T, random *rand.Rand) *soaking {
	t.Helper()
	items, err := strconv.Atoi(cmp.Or(os.Getenv("ITEMS"), "20000"))
	if err != nil || items < soakArtifacts {
		t.Fatalf("ITEMS is %q: want a number from %d on", os.Getenv("ITEMS"), soakArtifacts)
	}
	w := harness.New(t)
	url := dbtest.PostgresURL(t)
	w.Config.Backend.Backend, w.Config.Backend.URL = archive.Postgres, url
	s := &soaking{
		trial:  &trial{World: w, T: t, random: random, items: items, root: w.Path("root")},
		broker: harness.NewNATS(t), db: dbtest.StartPostgres(t),
		struck: map[string]int{}, stopped: make(chan struct{}),
	}
	t.Cleanup(s.db.Close)
	s.fill()
	w.NATS = s.broker.URL
	s.nets = map[string]*harness.Proxy{
		"broker":  harness.NewProxy(t, harness.Address(t, s.broker.URL), random.Uint64()),
		"archive": harness.NewProxy(t, harness.Address(t, url), random.Uint64()),
	}
	s.trial.ledger = s.db.Database(t)
	s.start(0, "EXHUME_REPORT_DIR=off")
	for range 3 {
		s.join("EXHUME_NATS_URL="+harness.Via(t, s.broker.URL, s.nets["broker"]), "CODEX_ARCHIVE_URL="+harness.Via(t, url, s.nets["archive"]))
	}
	s.ledger = s.Ledger(t)
	return s
}

// fill makes the archive and the manifest. Of a hundred items two are not there.
func (s *soaking) fill() {
	s.Helper()
	s.Store(s.T, func(yield func(string, []byte) bool) {
		for i := range soakArtifacts {
			content := noise(s.random, 100+s.random.IntN(2000))
			s.sums = append(s.sums, sha(content))
			if !yield(fmt.Sprint("artifact/", i), content) {
				return
			}
		}
	})
	rows := s.Rows(s.T)
	s.Manifest(s.T, "manifest.jsonl", int64(s.items), func(i int64) harness.Row {
		if missing(i) {
			return harness.Row{Tombstone: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), Output: soakOutput(i)}
		}
		return harness.Row{Tombstone: rows[i%soakArtifacts].Tombstone, Output: soakOutput(i)}
	})
}

func missing(i int64) bool { return i%50 == 7 }

func soakOutput(i int64) string { return fmt.Sprintf("out/%d/%d", i/1000, i) }

// submit submits the batch and begins to watch.
func (s *soaking) submit() {
	s.Helper()
	rate := min(s.items/60, soakRate)
	s.Must(s.T, s.env, "limits", "set", "--items", fmt.Sprint(rate))
	s.wait = s.Submitted(s.T, s.env, batch, s.root, 3)
	s.watching.Go(s.watchOver)
	s.Cleanup(s.stopWatching)
}

func (s *soaking) stopWatching() {
	select {
	case <-s.stopped:
	default:
		close(s.stopped)
	}
	s.watching.Wait()
}

// watchOver looks at counters and files while everything breaks (I2, I3).
func (s *soaking) watchOver() {
	random := rand.New(rand.NewPCG(1, 2))
	var last int64
	for n := 0; ; n++ {
		select {
		case <-s.stopped:
			return
		case <-time.After(time.Second):
		}
		if sum, ok := s.find(); ok {
			if done := sum.Counts.Done(); done < last || sealed(sum) && done+sum.Open() != int64(s.items) {
				s.Errorf("I2: %d results, after %d, and %d open, of %d items", done, last, sum.Open(), s.items)
			}
			last = sum.Counts.Done()
		}
		if n%20 == 19 {
			s.audit()
		}
		for range 200 {
			s.look(random.Int64N(int64(s.items)))
		}
	}
}

// audit counts the results (I2), if the ledger lets it.
func (s *soaking) audit() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if kept, counted, err := s.ledger.Audit(ctx, batch); err == nil && kept != counted {
		s.Errorf("I2: kept %+v, counted %+v", kept, counted)
	}
}

// look looks at the file of an item, if there is one (I3).
func (s *soaking) look(i int64) {
	content, err := os.ReadFile(filepath.Join(s.root, soakOutput(i)))
	if err != nil {
		return
	}
	if sum := sha256.Sum256(content); missing(i) || hex.EncodeToString(sum[:]) != s.sums[i%soakArtifacts] {
		s.Errorf("I3: %s has SHA-256 %x", soakOutput(i), sum)
	}
}

// find is what the ledger says of the batch, if it can.
func (s *soaking) find() (schemas.Summary, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	sum, found, err := s.ledger.Find(ctx, batch)
	return sum, found && err == nil
}

// strikes has one fault after the other strike until the batch has ended.
func (s *soaking) strikes() {
	s.Helper()
	ended := make(chan int, 1)
	go func() { ended <- s.wait() }()
	names := slices.Sorted(maps.Keys(mishaps))
	for {
		select {
		case <-ended:
			return
		case <-time.After(500*time.Millisecond + s.upTo(3*time.Second)):
		}
		if sum, ok := s.find(); ok && sum.State.Final() {
			<-ended
			return
		}
		name := names[s.random.IntN(len(names))]
		if name == mostSlow && s.random.IntN(4) > 0 {
			continue // it takes as long as all others together
		}
		mishaps[name](s)
		s.struck[name]++
		s.recovered(name)
	}
}

// upTo is a time up to this one.
func (s *soaking) upTo(d time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(d)))
}

// recovered starts again what has ended by itself and waits until results are recorded
// once more, or until there are no more to come (I6).
func (s *soaking) recovered(name string) {
	s.Helper()
	healed := time.Now()
	for _, r := range s.roles() {
		if !r.Runs() {
			s.fell++
			s.Logf("%s has ended by itself after %s:\n%s", r.Name, name, tail(r.Said(), 1000))
			r.Restart(s.T)
		}
	}
	var before schemas.Summary
	known := false
	harness.WaitAtMost(s.T, recovery, "results after "+name, func() bool {
		now, ok := s.find()
		if ok && !known {
			before, known = now, true
		}
		return ok && (now.State.Final() || now.Counts.Done() > before.Counts.Done())
	})
	took := time.Since(healed)
	if len(s.recoveries) == 0 || took > slices.Max(s.recoveries) {
		s.worst = name
	}
	s.recoveries = append(s.recoveries, took)
}

// mishaps are the faults; each returns when it has healed.
var mishaps = map[string]func(s *soaking){
	"worker killed": func(s *soaking) {
		r := s.any(s.workers)
		r.Kill()
		r.Restart(s.T)
	},
	"worker frozen": func(s *soaking) { s.freeze(s.any(s.workers), s.upTo(10*time.Second)) },
	mostSlow:        func(s *soaking) { s.freeze(s.any(s.workers), beyondLeases) },
	"collector killed": func(s *soaking) {
		s.collector.Kill()
		s.collector.Restart(s.T)
	},
	"collector frozen": func(s *soaking) { s.freeze(s.collector, s.upTo(8*time.Second)) },
	"broker killed": func(s *soaking) {
		s.broker.Kill()
		s.lasts(3 * time.Second)
		s.broker.Start(s.T)
	},
	"broker frozen": func(s *soaking) {
		s.broker.Freeze(s.T)
		s.lasts(8 * time.Second)
		s.broker.Thaw()
	},
	"ledger killed": func(s *soaking) {
		s.db.Kill()
		s.lasts(3 * time.Second)
		s.db.Start(s.T)
	},
	"ledger frozen": func(s *soaking) {
		s.db.Freeze()
		s.lasts(8 * time.Second)
		s.db.Thaw()
	},
	"archive hung": func(s *soaking) { s.cut("archive", harness.Break{HoldDown: true}, 15*time.Second) },
	"archive away": func(s *soaking) { s.cut("archive", harness.Break{Refuse: true}, 5*time.Second) },
	"archive slow": func(s *soaking) {
		s.cut("archive", harness.Break{Delay: 20 * time.Millisecond, Errors: 0.05}, 10*time.Second)
	},
	"workers partitioned": func(s *soaking) { s.cut("broker", harness.Break{HoldUp: true, HoldDown: true}, 10*time.Second) },
	"workers unheard":     func(s *soaking) { s.cut("broker", harness.Break{HoldUp: true}, 10*time.Second) },
	"workers deaf":        func(s *soaking) { s.cut("broker", harness.Break{HoldDown: true}, 10*time.Second) },
	"connections reset": func(s *soaking) {
		for range 1 + s.random.IntN(5) {
			s.nets["broker"].Reset()
			s.nets["archive"].Reset()
			s.lasts(300 * time.Millisecond)
		}
	},
	"all killed": func(s *soaking) {
		s.broker.Kill()
		for _, r := range s.roles() {
			r.Kill()
		}
		s.db.Kill()
		s.db.Start(s.T)
		s.broker.Start(s.T)
		for _, i := range s.random.Perm(len(s.roles())) {
			s.roles()[i].Restart(s.T)
		}
	},
}

// lasts waits for up to so long.
func (s *soaking) lasts(most time.Duration) { <-time.After(s.upTo(most)) }

const (
	mostSlow = "worker frozen beyond its leases"
	// beyondLeases is longer than a lease lasts.
	beyondLeases = 32 * time.Second
)

// freeze has a role stand still for so long.
func (s *soaking) freeze(r *harness.Role, d time.Duration) {
	r.Freeze(s.T)
	<-time.After(d)
	r.Thaw()
}

// cut breaks the network to something for up to so long.
func (s *soaking) cut(net string, how harness.Break, most time.Duration) {
	s.nets[net].Set(how)
	s.lasts(most)
	s.nets[net].Set(harness.Break{})
}

// tell prints what became of the items, which must be what is true of them.
func (s *soaking) tell(took time.Duration) {
	s.Helper()
	seen := make([]int, s.items)
	var lost, double, wrong, uncaused int
	for r, err := range s.ledger.Results(s.Context(), batch, ledger.Filter{}) {
		if err != nil {
			s.Fatal(err)
		}
		seen[r.Index]++
		if missing(r.Index) != (r.Code == schemas.CodeTombstoneNotFound) || missing(r.Index) == harness.There(r.Outcome) ||
			harness.There(r.Outcome) && r.SHA256 != s.sums[r.Index%soakArtifacts] {
			wrong++
		}
		uncaused += max(0, r.Attempts-1)
	}
	for _, n := range seen {
		if n == 0 {
			lost++
		}
		double += max(0, n-1)
	}
	var kinds strings.Builder
	total := 0
	for _, name := range slices.Sorted(maps.Keys(s.struck)) {
		_, _ = fmt.Fprintf(&kinds, "\n    %4d %s", s.struck[name], name)
		total += s.struck[name]
	}
	slices.Sort(s.recoveries)
	s.Logf(`%d items in %s: %.0f items/s
    lost %d, counted twice %d, with another outcome than the true one %d, attempts without a cause %d
    %d faults; results were recorded again after a median of %s and %s at worst (%s); roles that ended by themselves: %d%s`,
		s.items, took.Round(time.Second), float64(s.items)/took.Seconds(), lost, double, wrong, uncaused,
		total, s.recoveries[len(s.recoveries)/2].Round(time.Millisecond), s.recoveries[len(s.recoveries)-1].Round(time.Millisecond), s.worst, s.fell, kinds.String())
	if lost+double+wrong+uncaused > 0 {
		s.Error("I1, I2, I5: these must be none")
	}
}
