package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/exhume/exhume/integration/harness"
)

// nextMigration adds what the present program can do without, and leads from one
// version of the ledger to the next.
const nextMigration = `-- +goose Up
ALTER TABLE batch ADD COLUMN colour text NOT NULL DEFAULT 'grey';
UPDATE ledger_schema SET version = %[2]d;
-- +goose Down
-- loses: the colours
ALTER TABLE batch DROP COLUMN colour;
UPDATE ledger_schema SET version = %[1]d;
`

var schemaVersion = regexp.MustCompile(`const schemaVersion = (\d+)\n`)

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
	found := schemaVersion.FindSubmatch(schema)
	if found == nil {
		t.Fatal("schema.go does not tell its version any more: bring this test up to date")
	}
	version, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	migration := fmt.Sprintf(nextMigration, version, version+1)
	files := map[string]string{"schema.go": string(schemaVersion.ReplaceAll(schema, fmt.Appendf(nil, "const schemaVersion = %d\n", version+1)))}
	for _, kind := range []string{"postgres", "sqlite"} {
		files[fmt.Sprintf("migrations/%s/%05d_next.sql", kind, version+1)] = migration
	}
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
	path, err := harness.Build("exhume-next", "./cmd/exhume", "-overlay", list)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A fleet is brought up to date while it works on a batch: first the ledger, which
// the old roles go on with, then role after role.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	const items = 20_000
	next := nextBinary(t)
	w, _ := harness.Synthetic(t, items)
	env, old := w.Fleet(t, 2)
	wait := w.Submitted(t, env, "b", w.Path("root"))
	harness.WaitFor(t, "the old fleet's first results", func() bool { return old[0].Metric(t, "exhume_collector_recorded_total") > items/20 })

	migrate := exec.Command(next, "migrate", "up")
	migrate.Dir, migrate.Env = w.Dir, append(harness.CleanEnv(), env...)
	if out, err := migrate.CombinedOutput(); err != nil || !strings.Contains(string(out), "next") {
		t.Fatalf("migrate up: %v\n%s", err, out)
	}
	before := old[0].Metric(t, "exhume_collector_recorded_total")
	harness.WaitFor(t, "the old collector to go on with the new ledger", func() bool { return old[0].Metric(t, "exhume_collector_recorded_total") > before })
	for i, r := range slices.Clone(old) {
		args := []string{"collector"}
		if i > 0 {
			args = []string{"worker", "--worker-name", "next-" + r.Name}
		}
		// The evidence log passes from one collector to the next, which therefore
		// do not work at the same time; workers do.
		if i == 0 {
			r.Stop(t)
		}
		old[i] = w.StartProgram(t, next, r.Name, env, args...)
		r.Stop(t)
	}
	if wait() != 0 {
		t.FailNow()
	}
	by := map[string]int{}
	for _, r := range w.Results(t, "b") {
		by[strings.TrimSuffix(r.Worker, r.Worker[len(r.Worker)-1:])]++
	}
	if by["w"] == 0 || by["next-worker"] == 0 {
		t.Errorf("items by kind of worker: %v, want some of both", by)
	}
	// Whoever has the old program still reads the ledger.
	if out, said, code := w.Exhume(t, env, "batch", "show", "b"); code != 0 {
		t.Errorf("batch show: exit code %d\n%s%s", code, out, said)
	}
	harness.StopAll(t, old)
	w.CheckInvariants(t, "b")
}
