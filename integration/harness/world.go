package harness

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/schemas"
)

// World is a directory with an archive and everything that exhume makes of it.
type World struct {
	Dir    string
	Config *app.Config
	// NATS is the URL of the fleet's broker; empty for an embedded one.
	NATS string
	// Attempts are how many an item may have taken that was restored, in a world
	// in which its attempts are made to fail; 0 is 1.
	Attempts int
	// Collectors are the names of the roles that have recorded, each with an
	// evidence log of its own; none means that Config tells the only log.
	Collectors []string
}

// New makes an empty world.
func New(tb testing.TB) *World {
	tb.Helper()
	dir := tb.TempDir()
	return &World{Dir: dir, Config: LocalConfig(tb, dir)}
}

// LocalConfig is a configuration whose archive, state and evidence lie in dir,
// whatever the environment says.
func LocalConfig(tb testing.TB, dir string) *app.Config {
	tb.Helper()
	cfg, err := app.LocalConfig(dir, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}

// Fixture copies an archive that the predecessor wrote into a new world.
func Fixture(tb testing.TB, name string) *World {
	tb.Helper()
	root, err := ModuleRoot()
	if err != nil {
		tb.Fatal(err)
	}
	w := New(tb)
	if err := os.CopyFS(w.Dir, os.DirFS(filepath.Join(root, "integration", "testdata", name))); err != nil {
		tb.Fatal(err)
	}
	return w
}

// ServerFixture is a fixture whose archive is in a database of the kind.
func ServerFixture(tb testing.TB, backend string) *World {
	tb.Helper()
	w := Fixture(tb, backend)
	switch backend {
	case archive.Postgres:
		w.Config.Backend.Backend, w.Config.Backend.URL = backend, dbtest.PostgresURL(tb)
		load(tb, w.Path("archive.sql"), "psql", "-q", "-v", "ON_ERROR_STOP=1", w.Config.Backend.URL)
	case archive.MariaDB:
		w.Config.Backend.Backend, w.Config.Backend.URL = backend, dbtest.MariaDBURL(tb)
		at, err := url.Parse(w.Config.Backend.URL)
		if err != nil {
			tb.Fatal(err)
		}
		load(tb, w.Path("archive.sql"), "mariadb", "--no-defaults", "-h", at.Hostname(), "-P", at.Port(), "-u", "root", strings.TrimPrefix(at.Path, "/"))
	}
	return w
}

// load feeds a dump to a database's own client.
func load(tb testing.TB, dump string, client ...string) {
	tb.Helper()
	f, err := os.Open(dump)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	cmd := exec.Command(client[0], client[1:]...)
	cmd.Stdin = f
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", client[0], err, out)
	}
}

// Path is a path in the world's directory.
func (w *World) Path(elem ...string) string {
	return filepath.Join(append([]string{w.Dir}, elem...)...)
}

// Restore restores a manifest of the world with an embedded fleet.
func (w *World) Restore(tb testing.TB, manifest string, change ...func(*app.BatchOptions)) (app.Batch, error) {
	tb.Helper()
	return w.RestoreContext(tb.Context(), tb, manifest, change...)
}

// RestoreContext is Restore until the context ends.
func (w *World) RestoreContext(ctx context.Context, tb testing.TB, manifest string, change ...func(*app.BatchOptions)) (app.Batch, error) {
	tb.Helper()
	o := app.BatchOptions{Manifest: w.Path(manifest), Actor: "tester", Progress: Quiet{}}
	for _, c := range change {
		c(&o)
	}
	return app.BatchRestore(ctx, w.Config, o, zerolog.New(zerolog.NewTestWriter(tb)))
}

// MustRestore restores a manifest whose batch must end in the state.
func (w *World) MustRestore(tb testing.TB, manifest string, want schemas.State, change ...func(*app.BatchOptions)) app.Batch {
	tb.Helper()
	b, err := w.Restore(tb, manifest, change...)
	if err != nil {
		tb.Fatalf("restore %s: %v", manifest, err)
	}
	if b.State != want {
		tb.Fatalf("restore %s: batch ended %s with %+v, want %s", manifest, b.State, b.Counts, want)
	}
	return b
}

// Quiet hears of progress and says nothing.
type Quiet struct{}

// Waiting implements app.Progress, as the other methods do.
func (Quiet) Waiting(string) {}

// Checking says nothing.
func (Quiet) Checking(int64) {}

// Submitting says nothing.
func (Quiet) Submitting(_, _ int64) {}

// Full says nothing.
func (Quiet) Full(error) {}

// Restoring says nothing.
func (Quiet) Restoring(schemas.Summary) {}

// Where says nothing.
func (Quiet) Where(schemas.Whereabouts) {}

// Expectation is one item of a fixture's expected.json.
type Expectation struct {
	Tombstone string `json:"tombstone"`
	Output    string `json:"output"`
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"`
	State     string `json:"state"`
}

// Expected are the items of a fixture.
func (w *World) Expected(tb testing.TB) []Expectation {
	tb.Helper()
	var doc struct {
		Items []Expectation `json:"items"`
	}
	b, err := os.ReadFile(w.Path("expected.json"))
	if err := errors.Join(err, json.Unmarshal(b, &doc)); err != nil {
		tb.Fatal(err)
	}
	return doc.Items
}
