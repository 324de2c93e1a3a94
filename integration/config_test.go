package integration

import (
	"testing"

	"github.com/exhume/exhume/internal/app"
)

// testConfig is a configuration whose archive, state and evidence lie in dir,
// whatever the environment says.
func testConfig(tb testing.TB, dir string) *app.Config {
	tb.Helper()
	cfg, err := app.LocalConfig(dir, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}
