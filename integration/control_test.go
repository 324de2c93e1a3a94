package integration

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/schemas"
)

// inHand is how many items the workers that answer have in hand.
func inHand(t *testing.T, w *harness.World, env []string) (n int64) {
	t.Helper()
	for _, s := range harness.Ask[schemas.Fleet](t, w, env, "workers").Workers {
		n += s.Items
	}
	return n
}

// A batch is limited, paused, resumed, cancelled and made whole again, by the
// command line, with a second worker that joins under way.
func TestSteering(t *testing.T) {
	t.Parallel()
	const items = 4000
	w, sums := harness.Synthetic(t, items)
	env, roles := w.Fleet(t, 1, "EXHUME_REPORT_DIR="+w.Path("reports"))
	w.Must(t, env, "limits", "set", "--items", "500", "--reason", "office hours")
	w.Must(t, env, "submit", "manifest.jsonl", "--by", "ops", "--batch", "b", "--root", w.Path("root"))
	begun := time.Now()
	harness.WaitFor(t, "the first results", func() bool { return w.Batch(t, env, "b").Counts.Done() > 0 })
	roles = append(roles, w.Start(t, "worker9", env, "worker", "--worker-name", "w9"))

	w.Must(t, env, "batch", "pause", "b", "--by", "ops", "--reason", "backup")
	paused := time.Now()
	if s := w.Batch(t, env, "b"); s.State != schemas.StatePaused || s.Reason != schemas.ReasonPaused || s.Note != "backup" {
		t.Fatalf("paused: %+v", s.Batch)
	}
	harness.WaitFor(t, "the items in hand", func() bool { return inHand(t, w, env) == 0 })
	if took := time.Since(paused); took > 10*time.Second {
		t.Errorf("items were in hand %s after the pause", took)
	}
	var before int64
	harness.WaitFor(t, "what was in hand to be recorded", func() bool {
		why := harness.Ask[schemas.Whereabouts](t, w, env, "batch", "why", "b")
		before = why.Open
		return why.Unrecorded == 0
	})
	// The limit held until then: 500 a second, and what is taken at once.
	if done, most := float64(items-before), 500*time.Since(begun).Seconds()+1024; done > most {
		t.Errorf("%g items were done, under the limit %g may be", done, most)
	}
	if out, _ := w.Must(t, env, "batch", "why", "b"); !strings.Contains(out, "paused (paused_by_operator) by ops") || !strings.Contains(out, "wait in the queue") {
		t.Errorf("why says:\n%s", out)
	}
	if _, said, code := w.Exhume(t, env, "batch", "retry", "b", "--yes"); code != 7 || !strings.Contains(said, "it has ended") {
		t.Errorf("retry of a paused batch: exit code %d, %s", code, said)
	}
	if again := w.Batch(t, env, "b").OpenItems; again != before {
		t.Errorf("%d items were open, then %d, while the batch was paused", before, again)
	}
	w.Must(t, env, "item", "skip", "b", fmt.Sprint(items-1), "--reason", "known to be damaged")
	w.Must(t, env, "batch", "set", "b", "--priority", "urgent", "--max-in-flight", "200")
	w.Must(t, env, "batch", "resume", "b")
	harness.WaitFor(t, "results after the pause", func() bool { return w.Batch(t, env, "b").OpenItems < before })

	if _, said, code := w.Exhume(t, env, "batch", "cancel", "b"); code != 2 || !strings.Contains(said, "items are open and will be cancelled") {
		t.Errorf("cancel without --yes: exit code %d, %s", code, said)
	}
	w.Must(t, env, "batch", "cancel", "b", "--yes", "--reason", "wrong root")
	if _, said, code := w.Exhume(t, env, "batch", "watch", "b", "--exit-status"); code != 8 {
		t.Errorf("watch of a cancelled batch: exit code %d\n%s", code, said)
	}
	s := w.Batch(t, env, "b")
	if s.State != schemas.StateCancelled || s.Reason != schemas.ReasonCancelled || s.Counts.Cancelled == 0 || s.Counts.Restored == 0 || s.Counts.Done() != items {
		t.Errorf("%s (%s): %+v", s.State, s.Reason, s.Counts)
	}
	w.Audited(t, env, "b")
	reported(t, w, "b", s.Counts)
	var changes []string
	for _, e := range harness.Ask[schemas.BatchEvents](t, w, env, "batch", "history", "b").Events {
		// The first results may come before the seal, which sets it running then.
		if e.Change != schemas.ChangeBegin {
			changes = append(changes, string(e.Change))
		}
	}
	if got := strings.Join(changes, " "); got != "open seal pause skip set resume cancel complete" {
		t.Errorf("history: %s", got)
	}

	// What was cancelled or skipped is restored after all, without the limit.
	w.Must(t, env, "limits", "set", "--items", "0")
	if _, said := w.Must(t, env, "batch", "retry", "b", "--outcome", "cancelled", "--outcome", "skipped", "--dry-run"); !strings.Contains(said, fmt.Sprint(s.Counts.Cancelled+s.Counts.Skipped)) {
		t.Errorf("retry --dry-run says %s", said)
	}
	w.Must(t, env, "batch", "retry", "b", "--outcome", "cancelled", "--outcome", "skipped", "--yes", "--batch", "again")
	w.Must(t, env, "batch", "watch", "again", "--exit-status")
	w.Audited(t, env, "again")
	if again := w.Batch(t, env, "again"); again.Source == nil || again.Source.Batch != "b" || again.Counts.Restored != s.Counts.Cancelled+s.Counts.Skipped {
		t.Errorf("%+v, %+v", again.Source, again.Counts)
	}
	for out, sum := range sums {
		if got := harness.FileSHA256(w.Path("root", out)); got != sum {
			t.Fatalf("%s has SHA-256 %s, want %s", out, got, sum)
		}
	}
	if out, said, code := w.Exhume(t, env, "batch", "verify", "again"); code != 0 {
		t.Errorf("verify: exit code %d\n%s%s", code, out, said)
	}
	harness.StopAll(t, roles)
	for _, id := range []string{"b", "again"} {
		s, err := w.Ledger(t).Batch(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		w.CheckRecords(t, w.Ledger(t), s)
	}
}

// reported checks that a batch has its report, whose tables have as many rows as
// there are items of that kind.
func reported(t *testing.T, w *harness.World, id string, n schemas.Counts) {
	t.Helper()
	dir := w.Path("reports", id)
	harness.WaitFor(t, "the report of batch "+id, func() bool { _, err := os.Stat(filepath.Join(dir, "report.json")); return err == nil })
	for name, want := range map[string]int64{"restored.csv": n.Restored + n.Unchanged, "failed.csv": n.Failed, "skipped.csv": n.Skipped + n.Cancelled} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(bufio.NewReader(f)).ReadAll()
		_ = f.Close()
		if err != nil || int64(len(rows)-1) != want {
			t.Errorf("%s has %d rows, want %d: %v", name, len(rows)-1, want, err)
		}
	}
}

// spoiled is a world of which every so many-th item is not in the archive.
func spoiled(t *testing.T, items, every int) *harness.World {
	t.Helper()
	w, _ := harness.Synthetic(t, items)
	data, err := os.ReadFile(w.Path("manifest.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	i := 0
	for line := range strings.Lines(string(data)) {
		if i++; i%every == 0 {
			line = fmt.Sprintf("{\"tombstone\":\"00000000-0000-4000-8000-%012d\",\"output\":\"out/none/%d\"}\n", i, i)
		}
		out.WriteString(line)
	}
	if err := os.WriteFile(w.Path("manifest.jsonl"), []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// A sample that fails holds the batch, one that is restored lets it go on.
func TestCanaryOfAFleet(t *testing.T) {
	t.Parallel()
	const items = 2000
	w := spoiled(t, items, 100)
	env, roles := w.Fleet(t, 2)
	submit := func(id string, more ...string) {
		w.Must(t, env, append([]string{"submit", "manifest.jsonl", "--by", "ops", "--batch", id, "--root", w.Path(id)}, more...)...)
	}
	submit("held", "--canary", "10%")
	harness.WaitFor(t, "the sample", func() bool { return w.Batch(t, env, "held").State == schemas.StatePaused })
	s := w.Batch(t, env, "held")
	if s.Reason != schemas.ReasonCanaryFailed || s.Counts.Done() != 200 || s.Counts.Failed != 20 {
		t.Errorf("%s: %+v", s.Reason, s.Counts)
	}
	if out, _ := w.Must(t, env, "batch", "why", "held"); !strings.Contains(out, "20 of the 200 items of the sample failed, 0 may") {
		t.Errorf("why says:\n%s", out)
	}
	submit("passed", "--canary", "200", "--canary-max-errors", "20")
	if _, said, code := w.Exhume(t, env, "batch", "watch", "passed", "--exit-status"); code != 3 {
		t.Errorf("watch: exit code %d\n%s", code, said)
	}
	w.Must(t, env, "batch", "resume", "held", "--reason", "they are known")
	if _, said, code := w.Exhume(t, env, "batch", "watch", "held", "--exit-status"); code != 3 {
		t.Errorf("watch: exit code %d\n%s", code, said)
	}
	for _, id := range []string{"held", "passed"} {
		if n := w.Batch(t, env, id).Counts; n.Restored != items-items/100 || n.Failed != items/100 {
			t.Errorf("%s: %+v", id, n)
		}
		w.Audited(t, env, id)
	}

	// The dead letters of all are one group, and can be restored again.
	groups := harness.Ask[[]schemas.LetterGroup](t, w, env, "dlq", "list")
	if len(groups) != 1 || groups[0].Count != 2*items/100 || groups[0].Batches != 2 || groups[0].Code != schemas.CodeTombstoneNotFound || len(groups[0].Samples) != 3 {
		t.Errorf("%+v", groups)
	}
	letter := groups[0].Samples[0]
	if out, _ := w.Must(t, env, "dlq", "show", letter.ID()); !strings.Contains(out, letter.Tombstone) || !strings.Contains(out, "Remedy") {
		t.Errorf("dlq show says:\n%s", out)
	}
	out, _ := w.Must(t, env, "dlq", "retry", "--yes", "--by", "ops")
	made := strings.Fields(out)
	if len(made) != 2 {
		t.Fatalf("dlq retry made %q", made)
	}
	for _, id := range made {
		if _, said, code := w.Exhume(t, env, "batch", "watch", id, "--exit-status"); code != 4 {
			t.Errorf("watch: exit code %d\n%s", code, said)
		}
	}
	for _, id := range made {
		w.Audited(t, env, id)
	}
	harness.StopAll(t, roles)
	w.CheckInvariants(t, "held")
	w.CheckInvariants(t, "passed")
}

// told is a webhook that remembers what it is told.
type told struct {
	*httptest.Server
	mu     sync.Mutex
	events []schemas.BatchEvent
	bad    []string
}

func newTold(t *testing.T, key []byte) *told {
	h := &told{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var said schemas.Webhook
		if err == nil {
			err = json.Unmarshal(body, &said)
		}
		mac := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(mac, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
		h.mu.Lock()
		defer h.mu.Unlock()
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); err != nil || r.Header.Get("webhook-signature") != want {
			h.bad = append(h.bad, fmt.Sprintf("%v: %s", err, body))
		}
		h.events = append(h.events, said.Data.Event)
	}))
	t.Cleanup(h.Close)
	return h
}

// changes are those of a batch that it was told of, in order.
func (h *told) changes(batch string) (all []string, bad []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e.Batch == batch {
			all = append(all, string(e.Change))
		}
	}
	return all, h.bad
}

// Too many failures stop a batch; one that is held waits for its start. A webhook
// is told of all of it.
func TestThresholdAndHold(t *testing.T) {
	t.Parallel()
	w := spoiled(t, 2000, 10)
	key := []byte("0123456789abcdef01234567")
	hook := newTold(t, key)
	env, roles := w.Fleet(t, 1, "EXHUME_WEBHOOK_URL="+hook.URL+"/hook", "EXHUME_WEBHOOK_SECRET=whsec_"+base64.StdEncoding.EncodeToString(key))
	w.Must(t, env, "submit", "manifest.jsonl", "--by", "ops", "--batch", "b", "--root", w.Path("b"), "--hold", "--max-failures", "5%@100", "--on-max-failures", "abort")
	if s := w.Batch(t, env, "b"); s.State != schemas.StatePaused || s.Reason != schemas.ReasonHeld || s.Counts.Done() != 0 {
		t.Errorf("held: %s (%s), %+v", s.State, s.Reason, s.Counts)
	}
	// Not all of them are done before the first are recorded.
	w.Must(t, env, "limits", "set", "--items", "500")
	w.Must(t, env, "batch", "start", "b")
	if _, said, code := w.Exhume(t, env, "batch", "watch", "b", "--exit-status"); code != 4 {
		t.Errorf("watch: exit code %d\n%s", code, said)
	}
	if s := w.Batch(t, env, "b"); s.State != schemas.StateAborted || s.Counts.Cancelled == 0 || s.Counts.Failed == 0 || s.Counts.Done() != 2000 {
		t.Errorf("%s (%s): %+v", s.State, s.Reason, s.Counts)
	}
	w.Audited(t, env, "b")
	harness.WaitFor(t, "the webhook", func() bool { all, _ := hook.changes("b"); return len(all) >= 6 })
	if all, bad := hook.changes("b"); strings.Join(all, " ") != "open seal resume begin abort complete" || len(bad) > 0 {
		t.Errorf("the webhook was told %q; wrong: %q", all, bad)
	}
	harness.StopAll(t, roles)
	w.CheckInvariants(t, "b")
}

// A batch is cancelled although no worker runs, and although the collector is
// killed while that happens.
func TestCancelWithoutWorkers(t *testing.T) {
	t.Parallel()
	w, _ := harness.Synthetic(t, 5000)
	env, roles := w.Fleet(t, 0)
	for _, id := range []string{"a", "b"} {
		w.Must(t, env, "submit", "manifest.jsonl", "--by", "ops", "--batch", id, "--root", w.Path(id))
	}
	w.Must(t, env, "batch", "cancel", "a", "--yes", "--abort")
	if _, said, code := w.Exhume(t, env, "batch", "watch", "a", "--exit-status"); code != 4 {
		t.Errorf("watch: exit code %d\n%s", code, said)
	}
	w.Must(t, env, "batch", "cancel", "b", "--yes")
	roles[0].Kill()
	again := w.Start(t, "collector", env, "collector")
	if _, said, code := w.Exhume(t, env, "batch", "watch", "b", "--exit-status"); code != 8 {
		t.Errorf("watch: exit code %d\n%s", code, said)
	}
	for _, id := range []string{"a", "b"} {
		if n := w.Batch(t, env, id).Counts; n.Cancelled != 5000 {
			t.Errorf("%s: %+v", id, n)
		}
		w.Audited(t, env, id)
	}
	again.Stop(t)
	w.CheckInvariants(t, "a")
	w.CheckInvariants(t, "b")
}

// Each change is made although the collector is killed at once, and a worker is
// killed while items are in its hand.
func TestSteeringOutlivesKills(t *testing.T) {
	t.Parallel()
	const items = 4000
	w, _ := harness.Synthetic(t, items)
	env, roles := w.Fleet(t, 2)
	w.Must(t, env, "limits", "set", "--items", "800")
	w.Must(t, env, "submit", "manifest.jsonl", "--by", "ops", "--batch", "b", "--root", w.Path("root"), "--canary", "100")
	collector := roles[0]
	restart := func() {
		collector.Kill()
		collector = w.Start(t, "collector", env, "collector")
	}
	restart()
	harness.WaitFor(t, "the sample to pass", func() bool { return w.Batch(t, env, "b").Counts.Done() > 100 })
	w.Must(t, env, "batch", "pause", "b")
	restart()
	if s := w.Batch(t, env, "b"); s.State != schemas.StatePaused {
		t.Errorf("after a kill: %s (%s)", s.State, s.Reason)
	}
	w.Must(t, env, "batch", "resume", "b")
	restart()
	roles[1].Kill()
	roles = append(roles, w.Start(t, "worker9", env, "worker", "--worker-name", "w9")) // which tidies up after it
	harness.WaitFor(t, "results after the kills", func() bool {
		s := w.Batch(t, env, "b")
		return s.State == schemas.StateRunning && s.Counts.Done() > 1000
	})
	w.Must(t, env, "batch", "cancel", "b", "--yes")
	restart()
	if _, said, code := w.Exhume(t, env, "batch", "watch", "b", "--exit-status"); code != 8 {
		t.Errorf("watch: exit code %d\n%s", code, said)
	}
	w.Audited(t, env, "b")
	// What a killed collector had in hand comes again when its lease ends, and is
	// noted in the archive then.
	harness.StopAll(t, roles[2:]) // before it, for they may have results yet
	harness.WaitFor(t, "the results that were in hand", func() bool { return collector.Metric(t, "exhume_collector_lag_messages") == 0 })
	collector.Stop(t)
	w.CheckInvariants(t, "b")
}

// A batch that one process restores is steered by others in the same directory.
func TestSteerAnEmbeddedFleet(t *testing.T) {
	t.Parallel()
	w, _ := harness.Synthetic(t, 3000)
	none := []string{}
	restore := func(id string, more ...string) (said string, code int) {
		_, said, code = w.Exhume(t, none, append([]string{"batch-restore", "manifest.jsonl", "--by", "ops", "--batch", id, "--root", w.Path(id)}, more...)...)
		return said, code
	}
	if _, said, code := w.Exhume(t, none, "limits", "set", "--items", "100"); code != 6 || !strings.Contains(said, "no batch was restored from here yet") {
		t.Errorf("limits set: exit code %d, %s", code, said)
	}
	if said, code := restore("b", "--max-in-flight", "100", "--canary", "30"); code != 0 {
		t.Fatalf("batch-restore: exit code %d\n%s", code, said)
	}
	w.Must(t, none, "limits", "set", "--items", "300")
	w.Must(t, none, "batch", "clone", "b", "--root", w.Path("second"), "--yes", "--batch", "c", "--hold")
	up := w.Start(t, "up", []string{"EXHUME_STATE_DIR=" + w.Path(".exhume"), "CODEX_EVIDENCE_DIR=" + w.Path(".codex", "evidence"), "CODEX_ARCHIVE_URL=" + w.Config.Backend.URL, "EXHUME_LISTEN=127.0.0.1:0"}, "up")
	w.Must(t, none, "batch", "start", "c")
	harness.WaitFor(t, "the first results", func() bool { return w.Batch(t, none, "c").Counts.Done() > 0 })
	w.Must(t, none, "batch", "pause", "--all", "--reason", "backup")
	if s := w.Batch(t, none, "c"); s.State != schemas.StatePaused || s.Reason != schemas.ReasonFleetPaused {
		t.Errorf("%s (%s)", s.State, s.Reason)
	}
	w.Must(t, none, "batch", "resume", "--all")
	w.Must(t, none, "limits", "set", "--items", "0")
	w.Must(t, none, "batch", "watch", "c", "--exit-status")
	w.Audited(t, none, "c")
	up.Stop(t)
	w.Audited(t, none, "c") // and without a fleet
	w.CheckInvariants(t, "c")

	w.Must(t, none, "limits", "set", "--items", "300")
	ended := make(chan int, 1)
	go func() {
		said, code := restore("d")
		t.Log(said)
		ended <- code
	}()
	harness.WaitFor(t, "the first results", func() bool {
		_, _, code := w.Exhume(t, none, "batch", "show", "d")
		return code == 0 && w.Batch(t, none, "d").Counts.Done() > 0
	})
	w.Must(t, none, "batch", "pause", "d")
	harness.WaitFor(t, "the pause", func() bool { return inHand(t, w, none) == 0 })
	w.Must(t, none, "batch", "resume", "d")
	w.Must(t, none, "batch", "cancel", "d", "--yes")
	if code := <-ended; code != 8 {
		t.Errorf("batch-restore of a cancelled batch: exit code %d", code)
	}
	w.Audited(t, none, "d")
	w.CheckInvariants(t, "d")

	// A cancel where nothing runs does all that is left.
	w.Must(t, none, "batch", "clone", "b", "--root", w.Path("e"), "--yes", "--batch", "e", "--hold")
	w.Must(t, none, "batch", "cancel", "e", "--yes")
	if s := w.Batch(t, none, "e"); s.State != schemas.StateCancelled || s.Counts.Cancelled != 3000 {
		t.Errorf("%s: %+v", s.State, s.Counts)
	}
	// One that stops by itself says so, and goes on when it is told to.
	if said, code := restore("f", "--max-failures", "0", "--overwrite", "never"); code != 0 {
		t.Errorf("batch-restore: exit code %d\n%s", code, said)
	}
}
