package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nextMigration adds what the present program can do without.
const nextMigration = `-- +goose Up
ALTER TABLE batch ADD COLUMN colour text NOT NULL DEFAULT 'grey';
UPDATE ledger_schema SET version = 4;
-- +goose Down
-- loses: the colours
ALTER TABLE batch DROP COLUMN colour;
UPDATE ledger_schema SET version = 3;
`

// nextBinary builds the program with a ledger schema that is one version on, and
// compatible with the present one.
func nextBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ledger, err := filepath.Abs("../internal/ledger")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := os.ReadFile(filepath.Join(ledger, "schema.go"))
	if err != nil {
		t.Fatal(err)
	}
	next := strings.Replace(string(schema), "const schemaVersion = 3\n", "const schemaVersion = 4\n", 1)
	if next == string(schema) {
		t.Fatal("the schema has another version: bring this test up to date")
	}
	files := map[string]string{"schema.go": next, "migrations/postgres/00004_next.sql": nextMigration, "migrations/sqlite/00004_next.sql": nextMigration}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for name, text := range files {
		replacement := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(replacement, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(ledger, name)] = replacement
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, text, 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "exhume-next")
	if out, err := exec.Command("go", "build", "-overlay", list, "-o", path, "../cmd/exhume").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// A fleet is brought up to date while it works on a batch: first the ledger, which
// the old roles go on with, then role after role.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	const items = 20_000
	next := nextBinary(t)
	w, _ := synthetic(t, items)
	env, old := w.fleet(t, 2)
	wait := w.submitted(t, env, "b", w.path("root"))
	waitFor(t, "the old fleet's first results", func() bool { return old[0].metric(t, "exhume_collector_recorded_total") > items/20 })

	migrate := exec.Command(next, "migrate", "up")
	migrate.Dir, migrate.Env = w.dir, append(cleanEnv(), env...)
	if out, err := migrate.CombinedOutput(); err != nil || !strings.Contains(string(out), "next") {
		t.Fatalf("migrate up: %v\n%s", err, out)
	}
	before := old[0].metric(t, "exhume_collector_recorded_total")
	waitFor(t, "the old collector to go on with the new ledger", func() bool { return old[0].metric(t, "exhume_collector_recorded_total") > before })
	for i, r := range slices.Clone(old) {
		args := []string{"collector"}
		if i > 0 {
			args = []string{"worker", "--worker-name", "next-" + r.name}
		}
		// The evidence log passes from one collector to the next, which therefore
		// do not work at the same time; workers do.
		if i == 0 {
			r.stop(t)
		}
		old[i] = w.startProgram(t, next, r.name, env, args...)
		r.stop(t)
	}
	if wait() != 0 {
		t.FailNow()
	}
	by := map[string]int{}
	for _, r := range w.results(t, "b") {
		by[strings.TrimSuffix(r.Worker, r.Worker[len(r.Worker)-1:])]++
	}
	if by["w"] == 0 || by["next-worker"] == 0 {
		t.Errorf("items by kind of worker: %v, want some of both", by)
	}
	// Whoever has the old program still reads the ledger.
	if out, said, code := w.exhume(t, env, "batch", "show", "b"); code != 0 {
		t.Errorf("batch show: exit code %d\n%s%s", code, out, said)
	}
	for _, r := range slices.Backward(old) {
		r.stop(t)
	}
	w.checkInvariants(t, "b")
}
