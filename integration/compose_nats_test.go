package integration

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/integration/harness"
)

// The users of deploy/nats/nats.conf may do what their roles need: a fleet works
// with them, single requests and retries included.
func TestComposeNATSUsers(t *testing.T) {
	w := harness.Fixture(t, "sqlite")
	for _, role := range []string{"COLLECTOR", "WORKER", "SUBMITTER"} {
		t.Setenv("NATS_"+role+"_PASSWORD", "secret-"+role)
	}
	t.Setenv("NATS_SERVER_NAME", "test")
	o, err := server.ProcessConfigFile("../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !o.SyncAlways || !o.JetStream {
		t.Errorf("sync always %v, JetStream %v", o.SyncAlways, o.JetStream)
	}
	o.Host, o.Port, o.HTTPPort, o.StoreDir, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir(), true, true
	o.JetStreamMaxStore = 1 << 40 // whatever this disk has
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	as := func(user string) []string {
		return []string{
			"EXHUME_NATS_URL=" + ns.ClientURL(), "CODEX_ARCHIVE_URL=" + w.Config.Backend.URL, "EXHUME_SINGLE_ROOT=" + w.Path("single"),
			"EXHUME_NATS_USER=" + strings.ToLower(user), "EXHUME_NATS_PASSWORD=secret-" + user,
		}
	}
	w.Start(t, "collector", as("COLLECTOR"), "collector")
	worker := w.Start(t, "worker", as("WORKER"), "worker")
	out, said, code := w.Exhume(t, as("SUBMITTER"), "submit", "manifest_all.json", "--by", "tester", "--wait", "-o", "name")
	if code != 3 {
		t.Fatalf("exit code %d\n%s\n%s", code, said, worker.Said())
	}
	w.CheckSums(t, 294)
	if out, said, code := w.Exhume(t, as("SUBMITTER"), "batch", "show", strings.TrimSpace(out)); code != 0 || !strings.Contains(out, "10 failed") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
	if strings.Contains(worker.Said(), "ermission") {
		t.Error(worker.Said())
	}
	// Who asks what only others may is told at once, and which right it takes.
	if _, said, code := w.Exhume(t, as("WORKER"), "batch", "list"); code != 7 || !strings.Contains(said, `allow it to publish to "exhume.api.>"`) {
		t.Errorf("exit code %d\n%s", code, said)
	}
	// A worker may neither submit nor speak for the collector.
	nc, err := nats.Connect(ns.ClientURL(), nats.UserInfo("worker", "secret-WORKER"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{"exhume.restore.b.new", "exhume.event.batch.b", "exhume.api.batch.open", "$JS.API.STREAM.DELETE.EXHUME_RESTORE"} {
		if err := errors.Join(nc.Publish(subject, nil), nc.Flush()); err != nil {
			t.Fatal(err)
		}
		if err := nc.LastError(); err == nil || !strings.Contains(err.Error(), subject) {
			t.Errorf("publishing to %s: %v", subject, err)
		}
	}
}
