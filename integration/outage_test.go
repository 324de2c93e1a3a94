package integration

import (
	"slices"
	"testing"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

// submitted starts a submission that waits for its batch, and gives what reads
// its exit code.
func (w *world) submitted(t *testing.T, env []string, batch, root string) (wait func() int) {
	t.Helper()
	done := make(chan int, 1)
	go func() {
		_, said, code := w.exhume(t, env, "submit", "manifest.jsonl", "--by", "tester", "--batch", batch, "--root", root, "--wait")
		if code != 0 {
			t.Errorf("submit: exit code %d\n%s", code, said)
		}
		done <- code
	}()
	return func() int { return <-done }
}

// A batch outlives that its archive and its ledger go away and come back, one
// after the other, and no item pays for it (I1 to I8).
func TestFleetOutlivesItsDatabases(t *testing.T) {
	t.Parallel()
	const items = 20_000
	dir := t.TempDir()
	w := &world{dir: dir, cfg: testConfig(t, dir)}
	archived, kept := dbtest.StartPostgres(t), dbtest.StartPostgres(t)
	t.Cleanup(archived.Close)
	t.Cleanup(kept.Close)
	w.cfg.Backend.Backend, w.cfg.Backend.URL = archive.Postgres, archived.Database(t)
	w.storeSynthetic(t, items)
	env, roles := w.fleetWith(t, kept.Database(t), 2)
	wait := w.submitted(t, env, "b", w.path("root"))

	recorded := func() float64 { return roles[0].metric(t, "exhume_collector_recorded_total") }
	waitFor(t, "the batch is under way", func() bool { return recorded() > items/20 })
	archived.Stop()
	for _, r := range roles[1:] {
		waitFor(t, "the breaker of "+r.name+" opens", func() bool { return r.metric(t, `exhume_worker_breaker_state{state="open"}`) == 1 })
	}
	archived.Start(t)
	before := recorded()
	waitFor(t, "the batch goes on", func() bool { return recorded() > before+items/20 })

	kept.Kill()
	waitFor(t, "the collector says that it is not ready", func() bool { return !roles[0].ready(t) })
	kept.Start(t)
	if wait() != 0 {
		t.FailNow()
	}
	for _, r := range slices.Backward(roles) {
		r.stop(t)
	}
	w.checkInvariants(t, "b")
}

// A batch outlives that the object storage which its bytes come from and go to is
// killed and comes back.
func TestFleetOutlivesItsObjectStorage(t *testing.T) {
	t.Parallel()
	s3 := s3test.StartOwnServer(t)
	w := fixture(t, "sqlite")
	from, to := s3.Bucket(t), s3.Bucket(t)
	store, err := objects.Open(objects.Config{Endpoint: s3.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.moveBytes(t, store, from)
	tombstones := []string{}
	for _, e := range w.expected(t) {
		if e.State == "ok" {
			tombstones = append(tombstones, e.Tombstone)
		}
	}
	const items = 4_000
	w.manifest(t, "manifest.jsonl", tombstones, items)
	env, roles := w.fleet(t, 2, "EXHUME_S3_ENDPOINT="+s3.Endpoint(), "EXHUME_S3_ACCESS_KEY="+s3test.AccessKey,
		"EXHUME_S3_SECRET_KEY="+s3test.SecretKey, "EXHUME_S3_SOURCES=s3://"+from+"/artifacts,file://"+w.path("files"), "EXHUME_GROUP_SIZE=64")
	wait := w.submitted(t, env, "b", "s3://"+to+"/restored")
	recorded := func() float64 { return roles[0].metric(t, "exhume_collector_recorded_total") }
	for share := range 2 {
		waitFor(t, "the batch is under way", func() bool { return recorded() > float64(items*(share+1)/10) })
		s3.Kill()
		for _, r := range roles[1:] {
			waitFor(t, "the breaker of "+r.name+" opens", func() bool { return r.metric(t, `exhume_worker_breaker_state{state="open"}`) == 1 })
		}
		s3.Start(t)
	}
	if wait() != 0 {
		t.FailNow()
	}
	_, counted, err := w.ledger(t).Audit(t.Context(), "b")
	if err != nil || counted.Restored != items {
		t.Errorf("counted %+v, %v", counted, err)
	}
	for _, r := range w.results(t, "b") {
		if r.Outcome != schemas.OutcomeRestored || r.Attempts != 1 {
			t.Errorf("item %d: %s %s after %d attempts: %s", r.Index, r.Outcome, r.Code, r.Attempts, r.Detail)
		}
	}
}
