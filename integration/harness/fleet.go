package harness

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// StartNATS runs a NATS server with JetStream on a loopback port until the test
// ends, and gives its URL.
func StartNATS(tb testing.TB) string {
	tb.Helper()
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: tb.TempDir(), SyncAlways: true,
		JetStreamMaxStore: 1 << 50, MaxPayload: 8 << 20,
	})
	if err != nil {
		tb.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(30 * time.Second) {
		tb.Fatal("the NATS server does not start")
	}
	tb.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return ns.ClientURL()
}

// Fleet is a world whose roles are processes of their own, with an in-process
// broker, unless it has one, and a ledger in PostgreSQL. It gives the roles'
// environment and the roles: the collector, and the workers w0, w1 and so on.
func (w *World) Fleet(tb testing.TB, workers int, env ...string) (_ []string, roles []*Role) {
	tb.Helper()
	return w.FleetWith(tb, dbtest.PostgresURL(tb), workers, env...)
}

// FleetWith is a fleet with this ledger; empty means the collector's own, in SQLite.
func (w *World) FleetWith(tb testing.TB, ledger string, workers int, env ...string) (_ []string, roles []*Role) {
	tb.Helper()
	if w.NATS == "" {
		w.NATS = StartNATS(tb)
	}
	w.Config.Exhume.LedgerURL = ledger
	w.Config.Exhume.StateDir = w.Path("roles", "collector", ".exhume")
	w.Config.Exhume.EvidenceDir = w.Path("roles", "collector", ".codex", "evidence")
	env = append(w.FleetEnv(), env...)
	if ledger != "" {
		w.Must(tb, env, "migrate", "up")
	}
	roles = append(roles, w.Start(tb, "collector", env, "collector"))
	for i := range workers {
		roles = append(roles, w.Start(tb, fmt.Sprint("worker", i), env, "worker", "--worker-name", fmt.Sprint("w", i)))
	}
	return env, roles
}

// FleetEnv is what the roles of a fleet have in common.
func (w *World) FleetEnv() []string {
	return []string{"EXHUME_NATS_URL=" + w.NATS, "CODEX_ARCHIVE_URL=" + w.Config.Backend.URL, "EXHUME_LEDGER_URL=" + w.Config.Exhume.LedgerURL}
}

// StopAll stops the roles in order, the first one last.
func StopAll(tb testing.TB, roles []*Role) {
	tb.Helper()
	for _, r := range slices.Backward(roles) {
		r.Stop(tb)
	}
}

// Ledger opens the world's ledger for questions until the test ends.
func (w *World) Ledger(tb testing.TB) *ledger.Reader {
	tb.Helper()
	l, err := app.OpenLedgerReader(tb.Context(), w.Config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l
}

// Results reads a batch's results from the ledger.
func (w *World) Results(tb testing.TB, id string) []schemas.Result {
	tb.Helper()
	l, err := app.OpenLedgerReader(tb.Context(), w.Config)
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // opened for reading
	var all []schemas.Result
	for r, err := range l.Results(tb.Context(), id, ledger.Filter{}) {
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}
