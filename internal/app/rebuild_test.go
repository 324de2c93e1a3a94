package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// fleetConfig configures a collector.
func fleetConfig(t *testing.T, nats, ledgerURL, dir string) *Config {
	t.Helper()
	c, err := LoadConfig(LoadOptions{Environ: []string{}, Dir: dir, Flags: map[string]string{
		FlagKeys()["nats"]: nats, FlagKeys()["ledger"]: ledgerURL, FlagKeys()["state-dir"]: filepath.Join(dir, "state"),
		FlagKeys()["evidence-dir"]: filepath.Join(dir, "evidence"), FlagKeys()["archive-events"]: "off", FlagKeys()["http-listen"]: "off",
	}})
	must(t, err)
	return c
}

// collecting runs a collector until the function that it gives is called.
func collecting(t *testing.T, cfg *Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- RunCollector(ctx, cfg, RoleOptions{Started: func(Addresses) { close(started) }}, zerolog.Nop())
	}()
	select {
	case <-started:
	case err := <-ended:
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		cancel()
		must(t, <-ended)
	}
}

// begin begins a collector, and ends it at once should it start.
func begin(t *testing.T, cfg *Config, o RoleOptions) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Started = func(Addresses) { cancel() }
	return RunCollector(ctx, cfg, o, zerolog.Nop())
}

func sampleResults(batch string, from, to int64) []schemas.Result {
	var all []schemas.Result
	for i := from; i < to; i++ {
		all = append(all, schemas.Result{
			Request: schemas.Request{Batch: batch, Index: i, Tombstone: fmt.Sprint("t", i), Output: fmt.Sprint("out/", i), Actor: "ops"},
			Outcome: schemas.OutcomeRestored, Attempts: 1, Size: 10, Target: fmt.Sprint("/root/out/", i), Worker: "w", FinishedAt: time.Unix(5, 0).UTC(),
		})
	}
	return all
}

// recorded is what the ledger of a fleet says.
func recorded(t *testing.T, where string) (batches map[string]schemas.Summary, results map[string][]schemas.Result, failures []schemas.Failure) {
	t.Helper()
	l, err := ledger.OpenReader(t.Context(), where)
	must(t, err)
	defer func() { must(t, l.Close()) }()
	batches, results = map[string]schemas.Summary{}, map[string][]schemas.Result{}
	all, err := l.Batches(t.Context(), 0)
	must(t, err)
	for _, s := range all {
		batches[s.ID] = s
		for r, err := range l.Results(t.Context(), s.ID, ledger.Filter{}) {
			must(t, err)
			results[s.ID] = append(results[s.ID], r)
		}
		for f, err := range l.Failures(t.Context(), s.ID) {
			must(t, err)
			failures = append(failures, f)
		}
	}
	return batches, results, failures
}

// A fleet loses its ledger, then the evidence of one of its two collectors.
func TestRebuildAFleet(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	b, err := broker.Embed(filepath.Join(dir, "broker"), broker.Listen("127.0.0.1:0", broker.Credentials{}))
	must(t, err)
	defer func() { must(t, b.Close()) }()
	nats, where := "nats://"+b.Address(), dbtest.PostgresURL(t)
	_, err = ledger.MigrateUp(ctx, where)
	must(t, err)
	one, two := fleetConfig(t, nats, where, filepath.Join(dir, "one")), fleetConfig(t, nats, where, filepath.Join(dir, "two"))
	api := b.API()
	open := func(id string, total int64) {
		_, err := api.Open(ctx, schemas.Batch{ID: id, Actor: "ops", ManifestSHA256: "sha", Settings: schemas.Settings{Root: "/root"}})
		must(t, err)
		_, err = api.Seal(ctx, id, total, "sha")
		must(t, err)
	}
	// Each records one of two batches that end; the third goes on.
	for i, cfg := range []*Config{one, two} {
		stop := collecting(t, cfg)
		id := fmt.Sprint("ends-", i)
		open(id, 3)
		must(t, b.PublishResults(ctx, schemas.ResultGroup{Batch: id, Worker: "w", Failures: []schemas.Failure{{
			Batch: id, Index: 1, Tombstone: "t1", Output: "out/1", Actor: "ops", Number: 1, NextTry: time.Unix(4, 0).UTC(),
			Attempt: schemas.Attempt{At: time.Unix(3, 0).UTC(), Worker: "w", Code: schemas.CodeArchiveBusy, Detail: "locked"},
		}}}))
		must(t, b.PublishResults(ctx, schemas.ResultGroup{Batch: id, Worker: "w", Results: sampleResults(id, 0, 3)}))
		if i == 1 {
			open("goes-on", 10)
			must(t, b.PublishResults(ctx, schemas.ResultGroup{Batch: "goes-on", Worker: "w", Results: sampleResults("goes-on", 0, 4)}))
		}
		for {
			r, err := api.Get(ctx, id)
			must(t, err)
			n, err := b.Unrecorded(ctx)
			must(t, err)
			if r.State.Final() && n == 0 {
				break
			}
		}
		if i == 1 {
			_, err := RebuildLedger(ctx, cfg, RebuildOptions{}, zerolog.Nop())
			if used, ok := errors.AsType[*InUseError](err); !ok || !strings.Contains(used.Error(), "stop it first") {
				t.Errorf("beside a collector: %v", err)
			}
		}
		stop()
	}
	batches, results, failures := recorded(t, where)
	o := RebuildOptions{Actor: "ops", Reason: "the disk died", Beside: []string{two.Exhume.EvidenceDir}}
	same := func(where string) {
		t.Helper()
		nowBatches, nowResults, nowFailures := recorded(t, where)
		if diff := cmp.Diff(batches, nowBatches, cmpopts.EquateApproxTime(time.Minute)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(results, nowResults) + cmp.Diff(failures, nowFailures); diff != "" {
			t.Error(diff)
		}
		for _, cfg := range []*Config{one, two} {
			_, err := evidence.Verify(EvidencePath(cfg))
			must(t, err)
		}
		again, err := RebuildLedger(ctx, one, o, zerolog.Nop())
		if err != nil || again.Batches+again.Results+again.Attempts+again.Ended+again.Lines != 0 || again.Problems != nil {
			t.Errorf("once more: %+v, %v", again, err)
		}
	}
	same(where)

	// The ledger.
	where = dbtest.PostgresURL(t)
	one, two = fleetConfig(t, nats, where, filepath.Join(dir, "one")), fleetConfig(t, nats, where, filepath.Join(dir, "two"))
	for _, dry := range []bool{true, false} {
		dryRun := o
		dryRun.DryRun = dry
		out, err := RebuildLedger(ctx, one, dryRun, zerolog.Nop())
		if err != nil || out.Batches != 4 || out.Results != 10 || out.Attempts != 2 || out.Ended != 2 || out.Lines != 0 || out.Problems != nil {
			t.Errorf("dry run %v: %+v, %v", dry, out, err)
		}
	}
	same(where)

	// One that was broken off is repeated, although the ledger does not know what it
	// has added; meanwhile no collector starts.
	unfinish := func(since string) {
		t.Helper()
		l, err := ledger.Open(ctx, where)
		must(t, err)
		_, err = l.ChangeSetting(ctx, "rebuilding", func(string) (string, error) { return since, nil }, nil)
		must(t, errors.Join(err, l.SetPosition(ctx, schemas.EvidencePosition{}), l.Close()))
	}
	stale := func(cfg *Config, pos schemas.EvidencePosition) {
		t.Helper()
		l, err := ledger.OpenWith(ctx, where, ledger.Options{Writer: writerOf(cfg.Exhume.EvidenceDir)})
		must(t, err)
		must(t, errors.Join(l.SetPosition(ctx, pos), l.Close()))
	}
	unfinish("2026-01-01T00:00:00Z")
	stale(one, schemas.EvidencePosition{Offset: 77, Seq: 1, Prev: strings.Repeat("0", 64)})
	for _, cfg := range []*Config{one, two} {
		if err := begin(t, cfg, RoleOptions{AcceptEvidence: true}); fault.CodeOf(err) != schemas.CodeLedgerLost {
			t.Errorf("on half a ledger: %v", err)
		}
	}
	if v, err := VerifyEvidence(ctx, one, one.Exhume.EvidenceDir); err != nil || v.Ledger != "" || v.Unasked == "" {
		t.Errorf("%+v, %v", v, err)
	}
	same(where)
	// What is left of a collector whose evidence was lost with its directory is forgotten.
	if l, err := ledger.OpenReader(ctx, where); err != nil {
		t.Error(err)
	} else if n, err := l.Writers(ctx); err != nil || n != 1 { // the other one has not started since
		t.Errorf("%d evidence logs, %v", n, err)
	} else {
		must(t, l.Close())
	}

	// Only one rebuilds at a time, wherever its evidence is.
	alone, err := ledger.OpenWith(ctx, where, ledger.Options{Alone: true})
	must(t, err)
	_, err = RebuildLedger(ctx, two, RebuildOptions{}, zerolog.Nop())
	if _, ok := errors.AsType[*InUseError](err); !ok {
		t.Errorf("beside another: %v", err)
	}
	if err := begin(t, two, RoleOptions{}); !errors.Is(err, ledger.ErrAway) {
		t.Errorf("a collector beside it: %v", err)
	}
	must(t, alone.Close())

	// The log's last line, which no other vouches for.
	log, err := os.ReadFile(EvidencePath(one))
	must(t, err)
	must(t, os.WriteFile(EvidencePath(one), []byte(strings.TrimSuffix(string(log), "}\n")+" }\n"), 0o600))
	v, err := VerifyEvidence(ctx, one, one.Exhume.EvidenceDir)
	if _, ok := errors.AsType[*evidence.BrokenError](err); !ok {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := VerifyEvidence(ctx, two, one.Exhume.EvidenceDir); err != nil || v.Ledger != "" || v.Unasked != "" {
		t.Errorf("as another's: %+v, %v", v, err)
	}

	// A log that was moved away is not lost.
	must(t, os.WriteFile(EvidencePath(one), log, 0o600))
	if v, err := VerifyEvidence(ctx, one, one.Exhume.EvidenceDir); err != nil || v.Ledger == "" {
		t.Errorf("%+v, %v", v, err)
	}
	moved := filepath.Join(dir, "moved.jsonl")
	must(t, os.Rename(EvidencePath(one), moved))
	must(t, os.WriteFile(EvidencePath(one), nil, 0o600))
	o.Beside = append(o.Beside, moved)
	same(where)
	must(t, os.Rename(moved, EvidencePath(one)))
	o.Beside = o.Beside[:1]
	stale(one, v.End)

	// A new ledger does not know which logs there were.
	fresh := fleetConfig(t, nats, dbtest.PostgresURL(t), filepath.Join(dir, "one"))
	forgot, err := RebuildLedger(ctx, fresh, RebuildOptions{DryRun: true}, zerolog.Nop())
	if err != nil || !slices.ContainsFunc(forgot.Problems, func(p string) bool { return strings.HasPrefix(p, "whether other collectors") }) {
		t.Errorf("%+v, %v", forgot, err)
	}

	// The evidence of one: what stands in the other's is not lost.
	must(t, os.Remove(EvidencePath(one)))
	withoutOther, err := RebuildLedger(ctx, one, RebuildOptions{DryRun: true}, zerolog.Nop())
	if err != nil || withoutOther.Lines < 15 {
		t.Errorf("%+v, %v", withoutOther, err)
	}
	out, err := RebuildLedger(ctx, one, o, zerolog.Nop())
	if err != nil || out.Lines != 1+2+1+3+1 { // that they are rebuilt, two starts, attempt, items, end
		t.Errorf("%+v, %v", out, err)
	}
	same(where)

	// The fleet goes on with the batch that has not ended.
	stop := collecting(t, two)
	must(t, b.PublishResults(ctx, schemas.ResultGroup{Batch: "goes-on", Worker: "w", Results: sampleResults("goes-on", 4, 10)}))
	for {
		r, err := api.Get(ctx, "goes-on")
		must(t, err)
		if r.State == schemas.StateSucceeded {
			break
		}
	}
	stop()
}
