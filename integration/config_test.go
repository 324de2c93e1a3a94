package integration

import (
	"path/filepath"
	"testing"

	"github.com/exhume/exhume/internal/app"
)

// testConfig is a configuration whose archive, state and evidence lie in dir,
// whatever the environment says.
func testConfig(tb testing.TB, dir string) *app.Config {
	tb.Helper()
	cfg, err := app.LoadConfig(app.LoadOptions{Dir: dir, Environ: []string{}, Flags: map[string]string{
		"backend.url":         "sqlite:///" + filepath.Join(dir, "archive.sqlite"),
		"exhume.state_dir":    filepath.Join(dir, ".exhume"),
		"exhume.evidence_dir": filepath.Join(dir, ".codex", "evidence"),
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}
