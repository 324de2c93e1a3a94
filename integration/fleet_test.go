package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/producer/client"
	"github.com/exhume/exhume/schemas"
)

// startNATS runs a NATS server with JetStream on a loopback port until the test
// ends, and gives its URL.
func startNATS(t testing.TB) string {
	t.Helper()
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true,
		JetStreamMaxStore: 1 << 50, MaxPayload: 8 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return ns.ClientURL()
}

// role is a running role of a fleet.
type role struct {
	name   string
	cmd    *exec.Cmd
	ended  chan struct{}
	err    error // when it has ended
	mu     sync.Mutex
	stderr bytes.Buffer
	http   string
}

// start starts a role in a directory of its own below the world and waits until
// it works. It is stopped when the test ends.
func (w *world) start(t testing.TB, name string, env []string, args ...string) *role {
	t.Helper()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return w.startProgram(t, program, name, env, args...)
}

// startProgram starts a role of a program.
func (w *world) startProgram(t testing.TB, program, name string, env []string, args ...string) *role {
	t.Helper()
	dir := w.path("roles", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &role{name: name, cmd: exec.Command(program, args...), ended: make(chan struct{})}
	r.cmd.Dir = dir
	r.cmd.Env = append(append(cleanEnv(), env...), "EXHUME_HTTP_LISTEN=127.0.0.1:0")
	out, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(r.ended)
		r.follow(out, ready)
		r.err = r.cmd.Wait()
	}()
	t.Cleanup(func() { r.stop(t) })
	select {
	case <-ready:
	case <-r.ended:
		t.Fatalf("%s ended: %v\n%s", name, r.err, r.said())
	case <-time.After(time.Minute):
		t.Fatalf("%s does not start:\n%s", name, r.said())
	}
	return r
}

// follow reads what the role says, until it ends.
func (r *role) follow(out io.Reader, ready chan<- struct{}) {
	in := bufio.NewScanner(out)
	for in.Scan() {
		r.mu.Lock()
		r.stderr.WriteString(in.Text() + "\n")
		r.mu.Unlock()
		if at, ok := strings.CutPrefix(in.Text(), "HTTP: "); ok {
			r.http = strings.TrimSuffix(at, "/metrics")
		}
		if strings.HasSuffix(in.Text(), " is ready.") && ready != nil {
			close(ready)
			ready = nil
		}
	}
}

func (r *role) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stderr.String()
}

// stop stops the role in order, which must work.
func (r *role) stop(t testing.TB) {
	t.Helper()
	select {
	case <-r.ended: // killed, or stopped before
		return
	default:
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	<-r.ended
	if r.err != nil {
		t.Errorf("%s: %v\n%s", r.name, r.err, r.said())
	}
}

func (r *role) kill() {
	_ = r.cmd.Process.Kill()
	<-r.ended
}

// fleetEnv is what the roles of a fleet have in common.
func (w *world) fleetEnv() []string {
	return []string{"EXHUME_NATS_URL=" + w.nats, "CODEX_ARCHIVE_URL=" + w.cfg.Backend.URL, "EXHUME_LEDGER_URL=" + w.cfg.Exhume.LedgerURL}
}

// exhume runs a command of the program in the world's directory to its end.
func (w *world) exhume(t testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd, out, errOut := w.command(t, args...)
	cmd.Env = append(cmd.Env, env...)
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// fleet is a world whose roles are processes of their own.
func (w *world) fleet(t testing.TB, workers int, env ...string) (_ []string, roles []*role) {
	t.Helper()
	return w.fleetWith(t, dbtest.PostgresURL(t), workers, env...)
}

// fleetWith is a fleet with this ledger.
func (w *world) fleetWith(t testing.TB, ledger string, workers int, env ...string) (_ []string, roles []*role) {
	t.Helper()
	w.nats = startNATS(t)
	w.cfg.Exhume.LedgerURL = ledger
	w.cfg.Exhume.EvidenceDir = w.path("roles", "collector", ".codex", "evidence")
	env = append(w.fleetEnv(), env...)
	if out, said, code := w.exhume(t, env, "migrate", "up"); code != 0 {
		t.Fatalf("migrate: exit code %d\n%s%s", code, out, said)
	}
	roles = append(roles, w.start(t, "collector", env, "collector"))
	for i := range workers {
		roles = append(roles, w.start(t, fmt.Sprint("worker", i), env, "worker", "--worker-name", fmt.Sprint("w", i)))
	}
	return env, roles
}

// A fleet of separate processes restores the predecessor's archives of all three
// kinds to the last byte, and fails what cannot be restored as one process does.
func TestFleet(t *testing.T) {
	for _, backend := range []string{archive.SQLite, archive.Postgres, archive.MariaDB} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			w := serverFixture(t, backend)
			env, roles := w.fleet(t, 2)
			out, said, code := w.exhume(t, env, "submit", "manifest_all.json", "--by", "tester", "--wait", "-o", "name")
			if code != 3 {
				t.Fatalf("exit code %d\n%s", code, said)
			}
			id := strings.TrimSpace(out)
			w.checkSums(t, 294)
			failed, by := map[schemas.Code]int{}, map[string]int{}
			for _, r := range w.results(t, id) {
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
			_, said, code = w.exhume(t, env, "batch-restore", "manifest_all.json", "--by", "tester")
			if code != 3 || !strings.Contains(said, "submitted before") {
				t.Errorf("again: exit code %d\n%s", code, said)
			}
			noLedger := slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "EXHUME_LEDGER_URL=") })
			out, said, code = w.exhume(t, noLedger, "batch", "results", id, "--outcome", "failed", "-o", "jsonl")
			if code != 0 || strings.Count(out, "\n") != 10 {
				t.Errorf("results by the control API: exit code %d\n%s%s", code, out, said)
			}
			if out, said, code = w.exhume(t, env, "doctor"); code != 0 {
				t.Errorf("doctor: exit code %d\n%s%s", code, out, said)
			}
			for _, r := range slices.Backward(roles) {
				r.stop(t)
			}
			w.checkInvariants(t, id)
		})
	}
}

// serverFixture is a fixture whose archive is in a database of the kind.
func serverFixture(t *testing.T, backend string) *world {
	t.Helper()
	w := fixture(t, backend)
	switch backend {
	case archive.Postgres:
		w.cfg.Backend.Backend, w.cfg.Backend.URL = backend, dbtest.PostgresURL(t)
		load(t, w.path("archive.sql"), "psql", "-q", "-v", "ON_ERROR_STOP=1", w.cfg.Backend.URL)
	case archive.MariaDB:
		w.cfg.Backend.Backend, w.cfg.Backend.URL = backend, dbtest.MariaDBURL(t)
		at, err := url.Parse(w.cfg.Backend.URL)
		if err != nil {
			t.Fatal(err)
		}
		load(t, w.path("archive.sql"), "mariadb", "--no-defaults", "-h", at.Hostname(), "-P", at.Port(), "-u", "root", strings.TrimPrefix(at.Path, "/"))
	}
	return w
}

// load feeds a dump to a database's own client.
func load(t *testing.T, dump string, client ...string) {
	t.Helper()
	f, err := os.Open(dump)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	cmd := exec.Command(client[0], client[1:]...)
	cmd.Stdin = f
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", client[0], err, out)
	}
}

// When one of two collectors is killed in the middle of a batch the other goes
// on, and nothing is counted twice.
func TestFleetLosesACollector(t *testing.T) {
	t.Parallel()
	const items = 20_000
	w, sums := synthetic(t, items)
	env, roles := w.fleet(t, 1)
	second := w.start(t, "collector2", env, "collector")
	submitted := make(chan int, 1)
	go func() {
		_, said, code := w.exhume(t, env, "submit", "manifest.jsonl", "--by", "tester", "--batch", "b", "--root", w.path("out"), "--wait")
		if code != 0 {
			t.Errorf("exit code %d\n%s", code, said)
		}
		submitted <- code
	}()
	l := w.ledger(t)
	for { // until the second one has recorded something
		if s, found, err := l.Find(t.Context(), "b"); err != nil {
			t.Fatal(err)
		} else if found && s.Counts.Done() > items/10 {
			break
		}
	}
	second.kill()
	<-submitted
	_, counted, err := l.Audit(t.Context(), "b")
	if err != nil || counted.Restored != items {
		t.Errorf("counted %+v, %v", counted, err)
	}
	for _, r := range slices.Backward(roles) {
		r.stop(t)
	}
	if got := filesBelow(t, w.path("out")); len(got) != len(sums) {
		t.Errorf("%d files, want %d", len(got), len(sums))
	}
	// Each item has its line in one log or the other, and both verify.
	lines, ends := 0, 0
	for _, c := range []string{"collector", "collector2"} {
		log := w.path("roles", c, ".codex", "evidence", evidence.FileName)
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

// ledger opens the world's ledger for questions until the test ends.
func (w *world) ledger(t *testing.T) *ledger.Reader {
	t.Helper()
	l, err := app.OpenLedgerReader(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Any system with a NATS connection can ask for one item and hear of its result.
func TestSingleRequests(t *testing.T) {
	t.Parallel()
	w := fixture(t, "sqlite")
	root := w.path("single")
	w.fleet(t, 1, "EXHUME_SINGLE_ROOT="+root)
	nc, err := nats.Connect(w.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	events, err := nc.SubscribeSync("exhume.event.item.>")
	if err != nil {
		t.Fatal(err)
	}
	good := w.expected(t)[0]
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
	if sum := fileSHA256(t, filepath.Join(root, "dir", "file")); sum != good.SHA256 {
		t.Errorf("SHA-256 %s, want %s", sum, good.SHA256)
	}

	c, err := client.Connect(t.Context(), client.Options{URL: w.nats})
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
	_, counts, err := w.ledger(t).Audit(t.Context(), schemas.Single)
	if err != nil || counts.Restored != 1 || counts.Unchanged != 1 || counts.Failed != 3 {
		t.Errorf("counted %+v, %v", counts, err)
	}
}

// 'exhume up' is a fleet that other commands with its state directory find.
func TestUp(t *testing.T) {
	t.Parallel()
	w := fixture(t, "sqlite")
	state := "EXHUME_STATE_DIR=" + w.cfg.Exhume.StateDir
	env := []string{state, "CODEX_ARCHIVE_URL=" + w.cfg.Backend.URL, "CODEX_EVIDENCE_DIR=" + w.cfg.Exhume.EvidenceDir, "EXHUME_LISTEN=127.0.0.1:0"}
	up := w.start(t, "up", env, "up")
	out, said, code := w.exhume(t, env, "submit", "manifest.json", "--by", "tester", "-o", "name")
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, said)
	}
	id := strings.TrimSpace(out)
	if _, said, code = w.exhume(t, env, "batch", "watch", id, "--exit-status"); code != 0 {
		t.Errorf("watch: exit code %d\n%s", code, said)
	}
	if _, said, code = w.exhume(t, env, "batch-restore", "manifest.csv", "--by", "tester"); code != 0 || !strings.Contains(said, "294 unchanged") {
		t.Errorf("batch-restore: exit code %d\n%s", code, said)
	}
	joining := w.start(t, "joining", env, "worker")
	if out, said, code := w.exhume(t, env, "probe", strings.TrimPrefix(up.http, "http://")); code != 0 {
		t.Errorf("probe: exit code %d\n%s%s", code, out, said)
	}
	if stranger := connectError(strings.Fields(up.said())); stranger == nil {
		t.Error("whoever has no token can connect")
	}
	joining.stop(t)
	up.stop(t)
	w.checkSums(t, 294)
	w.checkInvariants(t, id)
	address := filepath.Join(w.cfg.Exhume.StateDir, "fleet.json")
	if _, err := os.Stat(address); err == nil {
		t.Error("a fleet that has stopped leaves its address behind")
	}
	if _, said, code = w.exhume(t, env, "submit", "manifest.json", "--by", "tester"); code == 0 || !strings.Contains(said, "no fleet") {
		t.Errorf("submit to nobody: exit code %d\n%s", code, said)
	}
	// One that is killed does, which holds nobody up.
	w.start(t, "killed", env, "up").kill()
	if _, err := os.Stat(address); err != nil {
		t.Fatal(err)
	}
	if _, said, code = w.exhume(t, env, "batch-restore", "manifest.json", "--by", "tester", "--batch", "later"); code != 0 {
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
