package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/producer/client"
	"github.com/exhume/exhume/schemas"
)

// A fleet of separate processes restores the predecessor's archives of all three
// kinds to the last byte, and fails what cannot be restored as one process does.
func TestFleet(t *testing.T) {
	for _, backend := range []string{archive.SQLite, archive.Postgres, archive.MariaDB} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			w := harness.ServerFixture(t, backend)
			env, roles := w.Fleet(t, 2)
			out, said, code := w.Exhume(t, env, "submit", "manifest_all.json", "--by", "tester", "--wait", "-o", "name")
			if code != 3 {
				t.Fatalf("exit code %d\n%s", code, said)
			}
			id := strings.TrimSpace(out)
			w.CheckSums(t, 294)
			failed, by := map[schemas.Code]int{}, map[string]int{}
			for _, r := range w.Results(t, id) {
				by[r.Worker]++
				if r.Outcome == schemas.OutcomeFailed {
					failed[r.Code]++
				}
			}
			if diff := cmp.Diff(map[schemas.Code]int{schemas.CodeArtifactPurged: 7, schemas.CodeTombstoneNotFound: 3}, failed); diff != "" {
				t.Errorf("failures by code (-want +got):\n%s", diff)
			}
			if len(by) == 0 || by["w0"]+by["w1"] != 304 {
				t.Errorf("items by worker: %v", by)
			}
			// The same again is known, and asked of the fleet alone.
			_, said, code = w.Exhume(t, env, "batch-restore", "manifest_all.json", "--by", "tester")
			if code != 3 || !strings.Contains(said, "submitted before") {
				t.Errorf("again: exit code %d\n%s", code, said)
			}
			noLedger := slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "EXHUME_LEDGER_URL=") })
			out, said, code = w.Exhume(t, noLedger, "batch", "results", id, "--outcome", "failed", "-o", "jsonl")
			if code != 0 || strings.Count(out, "\n") != 10 {
				t.Errorf("results by the control API: exit code %d\n%s%s", code, out, said)
			}
			if out, said, code = w.Exhume(t, env, "doctor"); code != 0 {
				t.Errorf("doctor: exit code %d\n%s%s", code, out, said)
			}
			harness.StopAll(t, roles)
			w.CheckInvariants(t, id)
		})
	}
}

// When one of two collectors is killed in the middle of a batch the other goes
// on, and nothing is counted twice.
func TestFleetLosesACollector(t *testing.T) {
	t.Parallel()
	const items = 20_000
	w, sums := harness.Synthetic(t, items)
	env, roles := w.Fleet(t, 1)
	second := w.Start(t, "collector2", env, "collector")
	submitted := make(chan int, 1)
	go func() {
		_, said, code := w.Exhume(t, env, "submit", "manifest.jsonl", "--by", "tester", "--batch", "b", "--root", w.Path("out"), "--wait")
		if code != 0 {
			t.Errorf("exit code %d\n%s", code, said)
		}
		submitted <- code
	}()
	l := w.Ledger(t)
	for { // until the second one has recorded something
		if s, found, err := l.Find(t.Context(), "b"); err != nil {
			t.Fatal(err)
		} else if found && s.Counts.Done() > items/10 {
			break
		}
	}
	second.Kill()
	<-submitted
	_, counted, err := l.Audit(t.Context(), "b")
	if err != nil || counted.Restored != items {
		t.Errorf("counted %+v, %v", counted, err)
	}
	harness.StopAll(t, roles)
	if got := harness.FilesBelow(t, w.Path("out")); len(got) != len(sums) {
		t.Errorf("%d files, want %d", len(got), len(sums))
	}
	// Each item has its line in one log or the other, and both verify.
	lines, ends := 0, 0
	for _, c := range []string{"collector", "collector2"} {
		log := w.Path("roles", c, ".codex", "evidence", evidence.FileName)
		n, err := evidence.Verify(log)
		if err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		lines += int(n.Lines)
		ends += strings.Count(string(text), `"phase":"end"`)
	}
	if lines < items+2 || ends != 1 {
		t.Errorf("%d lines of evidence for %d items, %d of them for the end", lines, items, ends)
	}
}

// Any system with a NATS connection can ask for one item and hear of its result.
func TestSingleRequests(t *testing.T) {
	t.Parallel()
	w := harness.Fixture(t, "sqlite")
	root := w.Path("single")
	w.Fleet(t, 1, "EXHUME_SINGLE_ROOT="+root)
	nc, err := nats.Connect(w.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	events, err := nc.SubscribeSync("exhume.event.item.>")
	if err != nil {
		t.Fatal(err)
	}
	good := w.Expected(t)[0]
	publish := func(id, payload string) {
		t.Helper()
		m := nats.NewMsg("exhume.restore.single")
		m.Data = []byte(payload)
		m.Header.Set("Exhume-Request-Id", id)
		if _, err := nc.RequestMsg(m, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	publish("bad", "rubbish")
	publish("unknown", `{"tombstone":"00000000-0000-4000-8000-000000000000","output":"x","actor":"helpdesk"}`)
	publish("outside", `{"tombstone":"`+good.Tombstone+`","output":"../x","actor":"helpdesk"}`)
	publish("good", `{"tombstone":"`+good.Tombstone+`","output":"dir/file","actor":"helpdesk"}`)
	got := map[string]schemas.Code{}
	for len(got) < 4 {
		m, err := events.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("%v after %v", err, got)
		}
		var r schemas.Result
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Fatal(err)
		}
		got[strings.TrimPrefix(m.Subject, "exhume.event.item.")] = r.Code
	}
	want := map[string]schemas.Code{
		"bad": schemas.CodeBadRequest, "unknown": schemas.CodeTombstoneNotFound, "outside": schemas.CodePathRefused, "good": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("codes by request (-want +got):\n%s", diff)
	}
	if sum := harness.FileSHA256(filepath.Join(root, "dir", "file")); sum != good.SHA256 {
		t.Errorf("SHA-256 %s, want %s", sum, good.SHA256)
	}

	c, err := client.Connect(t.Context(), client.Options{URL: w.NATS})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing is left to send
	pending, err := c.Restore(t.Context(), "", schemas.SingleRequest{Tombstone: good.Tombstone, Output: "dir/file", Actor: "helpdesk"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := pending.Wait(t.Context()); err != nil || r.Outcome != schemas.OutcomeUnchanged || r.SHA256 != good.SHA256 {
		t.Errorf("got %+v, %v", r, err)
	}
	_, counts, err := w.Ledger(t).Audit(t.Context(), schemas.Single)
	if err != nil || counts.Restored != 1 || counts.Unchanged != 1 || counts.Failed != 3 {
		t.Errorf("counted %+v, %v", counts, err)
	}
}

// 'exhume up' is a fleet that other commands with its state directory find.
func TestUp(t *testing.T) {
	t.Parallel()
	w := harness.Fixture(t, "sqlite")
	state := "EXHUME_STATE_DIR=" + w.Config.Exhume.StateDir
	env := []string{state, "CODEX_ARCHIVE_URL=" + w.Config.Backend.URL, "CODEX_EVIDENCE_DIR=" + w.Config.Exhume.EvidenceDir, "EXHUME_LISTEN=127.0.0.1:0"}
	up := w.Start(t, "up", env, "up")
	out, said, code := w.Exhume(t, env, "submit", "manifest.json", "--by", "tester", "-o", "name")
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, said)
	}
	id := strings.TrimSpace(out)
	if _, said, code = w.Exhume(t, env, "batch", "watch", id, "--exit-status"); code != 0 {
		t.Errorf("watch: exit code %d\n%s", code, said)
	}
	if _, said, code = w.Exhume(t, env, "batch-restore", "manifest.csv", "--by", "tester"); code != 0 || !strings.Contains(said, "294 unchanged") {
		t.Errorf("batch-restore: exit code %d\n%s", code, said)
	}
	joining := w.Start(t, "joining", env, "worker")
	if out, said, code := w.Exhume(t, env, "probe", strings.TrimPrefix(up.HTTP(), "http://")); code != 0 {
		t.Errorf("probe: exit code %d\n%s%s", code, out, said)
	}
	if stranger := connectError(strings.Fields(up.Said())); stranger == nil {
		t.Error("whoever has no token can connect")
	}
	joining.Stop(t)
	up.Stop(t)
	w.CheckSums(t, 294)
	w.CheckInvariants(t, id)
	address := filepath.Join(w.Config.Exhume.StateDir, "fleet.json")
	if _, err := os.Stat(address); err == nil {
		t.Error("a fleet that has stopped leaves its address behind")
	}
	if _, said, code = w.Exhume(t, env, "submit", "manifest.json", "--by", "tester"); code == 0 || !strings.Contains(said, "no fleet") {
		t.Errorf("submit to nobody: exit code %d\n%s", code, said)
	}
	// One that is killed does, which holds nobody up.
	w.Start(t, "killed", env, "up").Kill()
	if _, err := os.Stat(address); err != nil {
		t.Fatal(err)
	}
	if _, said, code = w.Exhume(t, env, "batch-restore", "manifest.json", "--by", "tester", "--batch", "later"); code != 0 {
		t.Errorf("after a kill: exit code %d\n%s", code, said)
	}
	if _, err := os.Stat(address); err == nil {
		t.Error("the address of a fleet that was killed is still there")
	}
}

// connectError tries to connect to the broker that 'exhume up' names.
func connectError(said []string) error {
	at := said[slices.Index(said, "Broker:")+1]
	nc, err := nats.Connect(at)
	if err == nil {
		nc.Close()
	}
	return err
}
