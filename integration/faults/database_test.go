package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/dbtest"
)

// The archive dies, hangs, is slow or busy.
func TestArchive(t *testing.T) {
	strike(t, []fault{
		{"killed", true, archiveKilled},
		{"flapping", true, archiveFlaps(6, 200*time.Millisecond)},
		{"down-for-a-minute", true, archiveFlaps(1, time.Minute)},
		{"hanging", true, archiveHangs},
		{"slow-with-errors", true, archiveSlow},
		{"busy", false, archiveBusy},
	})
}

// The ledger's database dies, is away, or does not say whether it has committed.
func TestLedger(t *testing.T) {
	strike(t, []fault{
		{"killed", false, ledgerKilled},
		{"flapping", true, ledgerFlaps},
		{"unknown-commit", false, unknownCommit},
	})
}

func postgresOf(t *testing.T) string { return dbtest.PostgresURL(t) }

// archiveKilled kills the archive's server and starts it again, twice: the breaker
// opens, and an outage costs no attempt: I1, I5, I6.
func archiveKilled(t *testing.T, random *rand.Rand) {
	db := dbtest.StartPostgres(t)
	t.Cleanup(db.Close)
	tr := newTrial(t, random, 2000, db.Database(t))
	tr.start(2)
	tr.submit(500)
	for _, from := range []float64{0.1, 0.5} {
		tr.at(from, from+0.3)
		db.Kill()
		tr.breakersOpen()
		db.Start(t)
	}
	tr.finish()
}

// breakersOpen waits until every worker has noticed that something is away.
func (tr *trial) breakersOpen() {
	tr.Helper()
	for _, r := range tr.workers {
		harness.WaitAtMost(tr.T, recovery, "the breaker of "+r.Name+" to open", func() bool { return r.Metric(tr.T, "exhume_worker_breaker_state", `state="open"`) > 0 })
	}
}

// throughProxy is a trial whose archive is reached through a proxy, by workers and
// collector alike.
func throughProxy(t *testing.T, random *rand.Rand, items int) (*trial, *harness.Proxy) {
	t.Helper()
	url := postgresOf(t)
	tr := newTrial(t, random, items, url)
	net := harness.NewProxy(t, harness.Address(t, url), random.Uint64())
	tr.env = append(tr.env, "CODEX_ARCHIVE_URL="+harness.Via(t, url, net))
	return tr, net
}

// archiveFlaps takes the archive away for so long, again and again: no attempt is
// lost, however often the breaker opens and closes: I1, I5, I6.
func archiveFlaps(times int, each time.Duration) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr, net := throughProxy(t, random, 2000)
		tr.start(2)
		tr.submit(500)
		for i := range times {
			share := 0.8 / float64(times)
			tr.at(share*float64(i), share*float64(i+1))
			net.Set(harness.Break{Refuse: true})
			<-time.After(each/2 + time.Duration(random.Int64N(int64(each))))
			net.Set(harness.Break{})
		}
		tr.finish()
	}
}

// archiveHangs has the archive accept everything and never answer. It watches that a
// hung archive counts like a dead one, and costs no attempt either: I1, I5, I6.
func archiveHangs(t *testing.T, random *rand.Rand) {
	tr, net := throughProxy(t, random, 2000)
	tr.start(2)
	tr.submit(500)
	tr.at(0.1, 0.6)
	net.Set(harness.Break{HoldDown: true})
	tr.breakersOpen()
	net.Set(harness.Break{})
	tr.finish()
}

// archiveSlow has the archive take ten times as long, and lose one connection of
// twenty that asks something. Lost connections cost no attempt: I1, I5, I6.
func archiveSlow(t *testing.T, random *rand.Rand) {
	tr, net := throughProxy(t, random, 1000)
	tr.start(2)
	tr.submit(300)
	tr.at(0.05, 0.2)
	net.Set(harness.Break{Delay: 20 * time.Millisecond, Errors: 0.05})
	tr.at(0.6, 0.8)
	net.Set(harness.Break{})
	if net.Struck() == 0 {
		t.Error("no connection was lost")
	}
	tr.finish()
}

// archiveBusy locks the archive's tables, so that what workers ask fails with
// what counts as an attempt, for less time than the attempts last. It watches that
// failed attempts are counted, told in the evidence and followed by others, and that
// no item fails before its last one: I1, I4, I5.
func archiveBusy(t *testing.T, random *rand.Rand) {
	url := postgresOf(t)
	tr := newTrial(t, random, 1500, url)
	db := connect(t, url)
	var name string
	if err := db.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	execute(t, db, fmt.Sprintf("ALTER DATABASE %s SET lock_timeout = '50ms'", name))
	const attempts = 12
	tr.Attempts = attempts
	tr.start(2, fmt.Sprintf("CODEX_ARCHIVE_RETRY_ATTEMPTS=%d", attempts), "CODEX_ARCHIVE_RETRY_INITIAL=0.3", "EXHUME_RETRY_MAX_DELAY=3")
	tr.submit(500)
	tr.at(0.1, 0.5)
	execute(t, db, "BEGIN")
	execute(t, db, "LOCK TABLE item, artifact IN ACCESS EXCLUSIVE MODE")
	harness.WaitAtMost(t, recovery, "failed attempts", func() bool {
		return tr.workers[0].Metric(t, "exhume_worker_failed_attempts_total") > 0 && tr.workers[1].Metric(t, "exhume_worker_failed_attempts_total") > 0
	})
	execute(t, db, "ROLLBACK")
	tr.finish()
	retried := 0
	for _, r := range tr.Results(t, batch) {
		if r.Attempts > 1 {
			retried++
		}
	}
	if retried == 0 {
		t.Error("no item took a second attempt")
	}
}

// ledgerKilled kills the ledger's server in the middle of a batch, twice: what was not
// committed is recorded again, once: I1, I2, I4.
func ledgerKilled(t *testing.T, random *rand.Rand) {
	db := dbtest.StartPostgres(t)
	t.Cleanup(db.Close)
	tr := newTrial(t, random, 2000, "")
	tr.ledger = db.Database(t)
	tr.start(2)
	tr.submit(400)
	for _, from := range []float64{0.1, 0.5} {
		tr.at(from, from+0.2)
		db.Kill()
		harness.WaitAtMost(t, recovery, "the collector to notice", func() bool { return !tr.collector.Ready(t) })
		db.Start(t)
	}
	tr.finish()
}

// ledgerByProxy is a trial with a ledger that only the collector reaches by a proxy.
func ledgerByProxy(t *testing.T, random *rand.Rand) (*trial, *harness.Proxy) {
	t.Helper()
	tr := newTrial(t, random, 2000, "")
	tr.ledger = postgresOf(t)
	tr.start(2)
	net := harness.NewProxy(t, harness.Address(t, tr.ledger), random.Uint64())
	tr.collector.Stop(t)
	tr.collector.Env = append(tr.collector.Env, "EXHUME_LEDGER_URL="+harness.Via(t, tr.ledger, net))
	tr.collector.Restart(t)
	return tr, net
}

// ledgerFlaps takes the ledger away again and again: I1, I2, I4, I6.
func ledgerFlaps(t *testing.T, random *rand.Rand) {
	tr, net := ledgerByProxy(t, random)
	tr.submit(400)
	for i := range 5 {
		tr.at(0.05+0.15*float64(i), 0.2+0.15*float64(i))
		net.Set(harness.Break{Refuse: true})
		<-time.After(time.Duration(random.Int64N(int64(time.Second))))
		net.Set(harness.Break{})
	}
	tr.finish()
}

// unknownCommit loses the connection to the ledger when it has been told to commit, as
// a failover does: sometimes it has, sometimes not, and the collector cannot know. It
// watches that a result counts once and has one line of evidence: I1, I2, I4.
func unknownCommit(t *testing.T, random *rand.Rand) {
	tr, net := ledgerByProxy(t, random)
	tr.submit(400)
	for i := range 6 {
		tr.at(0.05+0.12*float64(i), 0.15+0.12*float64(i))
		how, before := harness.Break{LoseAnswer: []byte("commit")}, net.Struck()
		if random.IntN(2) == 0 {
			how = harness.Break{LoseRequest: []byte("commit")}
		}
		net.Set(how)
		harness.WaitAtMost(t, recovery, "a commit", func() bool { return net.Struck() > before })
	}
	tr.finish()
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	return db
}

func execute(t *testing.T, db *pgx.Conn, query string) {
	t.Helper()
	if _, err := db.Exec(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}
