package integration

import (
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

// A batch outlives that its archive and its ledger go away and come back, one
// after the other, and no item pays for it (I1 to I8).
func TestFleetOutlivesItsDatabases(t *testing.T) {
	t.Parallel()
	const items = 20_000
	w := harness.New(t)
	archived, kept := dbtest.StartPostgres(t), dbtest.StartPostgres(t)
	t.Cleanup(archived.Close)
	t.Cleanup(kept.Close)
	w.Config.Backend.Backend, w.Config.Backend.URL = archive.Postgres, archived.Database(t)
	w.StoreSynthetic(t, items)
	env, roles := w.FleetWith(t, kept.Database(t), 2)
	wait := w.Submitted(t, env, "b", w.Path("root"))

	recorded := func() float64 { return roles[0].Metric(t, "exhume_collector_recorded_total") }
	harness.WaitFor(t, "the batch is under way", func() bool { return recorded() > items/20 })
	archived.Stop()
	for _, r := range roles[1:] {
		harness.WaitFor(t, "the breaker of "+r.Name+" opens", func() bool { return r.Metric(t, "exhume_worker_breaker_state", `state="open"`) > 0 })
	}
	archived.Start(t)
	before := recorded()
	harness.WaitFor(t, "the batch goes on", func() bool { return recorded() > before+items/20 })

	kept.Kill()
	harness.WaitFor(t, "the collector says that it is not ready", func() bool { return !roles[0].Ready(t) })
	kept.Start(t)
	if wait() != 0 {
		t.FailNow()
	}
	harness.StopAll(t, roles)
	w.CheckInvariants(t, "b")
}

// A batch outlives that the object storage which its bytes come from and go to is
// killed and comes back.
func TestFleetOutlivesItsObjectStorage(t *testing.T) {
	t.Parallel()
	s3 := s3test.StartOwnServer(t)
	w := harness.Fixture(t, "sqlite")
	from, to := s3.Bucket(t), s3.Bucket(t)
	store, err := objects.Open(objects.Config{Endpoint: s3.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	moveBytes(t, w, store, from)
	tombstones := []string{}
	for _, e := range w.Expected(t) {
		if e.State == "ok" {
			tombstones = append(tombstones, e.Tombstone)
		}
	}
	const items = 4_000
	w.Manifest(t, "manifest.jsonl", items, func(i int64) harness.Row { return harness.Spread(tombstones[i%int64(len(tombstones))], i) })
	env, roles := w.Fleet(t, 2, "EXHUME_S3_ENDPOINT="+s3.Endpoint(), "EXHUME_S3_ACCESS_KEY="+s3test.AccessKey,
		"EXHUME_S3_SECRET_KEY="+s3test.SecretKey, "EXHUME_S3_SOURCES=s3://"+from+"/artifacts,file://"+w.Path("files"), "EXHUME_GROUP_SIZE=64")
	wait := w.Submitted(t, env, "b", "s3://"+to+"/restored")
	recorded := func() float64 { return roles[0].Metric(t, "exhume_collector_recorded_total") }
	for share := range 2 {
		harness.WaitFor(t, "the batch is under way", func() bool { return recorded() > float64(items*(share+1)/10) })
		s3.Kill()
		for _, r := range roles[1:] {
			harness.WaitFor(t, "the breaker of "+r.Name+" opens", func() bool { return r.Metric(t, "exhume_worker_breaker_state", `state="open"`) > 0 })
		}
		s3.Start(t)
	}
	if wait() != 0 {
		t.FailNow()
	}
	_, counted, err := w.Ledger(t).Audit(t.Context(), "b")
	if err != nil || counted.Restored != items {
		t.Errorf("counted %+v, %v", counted, err)
	}
	for _, r := range w.Results(t, "b") {
		if r.Outcome != schemas.OutcomeRestored || r.Attempts != 1 {
			t.Errorf("item %d: %s %s after %d attempts: %s", r.Index, r.Outcome, r.Code, r.Attempts, r.Detail)
		}
	}
}
