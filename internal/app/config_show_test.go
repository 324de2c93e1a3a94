package app

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/golden"
)

func TestConfigShow(t *testing.T) {
	t.Parallel()
	defaults := LoadOptions{Dir: t.TempDir(), Environ: []string{}}
	layered := LoadOptions{
		File: filepath.Join("testdata", "config_layered.toml"),
		Environ: []string{
			"CODEX_ARCHIVE_URL=postgresql://user:s3cret@db:5432/x?sslmode=require&sslpassword=s3cret",
			"CODEX_ARCHIVE_RETRY_MAX=3", "CODEX_ARCHIVE_RETRY_SEED=0", "CODEX_ARCHIVE_BATCH_RESULTS=out/<results>.json",
		},
		Flags: map[string]string{"exhume.memory": "512m", "exhume.overwrite": "if-different", "exhume.state_dir": "/var/lib/exhume"},
	}
	for _, tt := range []struct {
		name, format string
		options      LoadOptions
		debug        bool
	}{
		{"config_default.json", "json", defaults, false},
		{"config_default.txt", "table", defaults, false},
		{"config_layered.json", "json", layered, false},
		{"config_layered.txt", "table", layered, false},
		{"config_debug.json", "json", layered, true},
		{"config_debug.txt", "table", layered, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := LoadConfig(tt.options)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := c.Show(&out, tt.format, tt.debug); err != nil {
				t.Fatal(err)
			}
			if shown := bytes.Contains(out.Bytes(), []byte("s3cret")); shown && !tt.debug {
				t.Error("the password is shown")
			}
			if tt.format == "json" && !json.Valid(out.Bytes()) {
				t.Error("no JSON")
			}
			golden.Compare(t, filepath.Join("testdata", tt.name), out.Bytes())
		})
	}
}

func TestConfigShowErrors(t *testing.T) {
	t.Parallel()
	c, problems := loadDoc(t, "")
	if problems != "" {
		t.Fatal(problems)
	}
	const want = `format "yaml" is not one of json, table`
	if err := c.Show(&bytes.Buffer{}, "yaml", false); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close() //nolint:errcheck // nothing can be written to it
	for _, format := range []string{"json", "table"} {
		if err := c.Show(full, format, false); err == nil {
			t.Errorf("%s: no error from a full device", format)
		}
	}
}

// The settings are complete, in order, and the URL is marked.
func TestConfigSettings(t *testing.T) {
	t.Parallel()
	c, problems := loadDoc(t, "", "CODEX_ARCHIVE_URL=postgres://u:lion@db/x")
	if problems != "" {
		t.Fatal(problems)
	}
	var keys []string
	for _, s := range c.Settings() {
		keys = append(keys, s.Key)
		if s.Secret != (s.Key == "backend.url") {
			t.Errorf("%s: secret %v", s.Key, s.Secret)
		}
		if s.Secret && s.Value != "postgres://u:lion@db/x" {
			t.Errorf("%s = %v", s.Key, s.Value)
		}
	}
	want := []string{
		"backend.backend", "backend.url", "logging.level", "logging.format", "logging.evidence_file",
		"retry.enabled", "retry.max_attempts", "retry.initial_delay", "retry.max_delay", "retry.multiplier", "retry.jitter", "retry.seed",
		"batch.concurrent", "batch.progress_interval", "batch.results_path", "performance.enabled", "performance.emit_to_evidence",
		"exhume.state_dir", "exhume.evidence_dir", "exhume.memory", "exhume.overwrite", "exhume.mode", "exhume.archive_events", "exhume.worker_name",
	}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	for _, key := range keys {
		if configRules[key].parse == nil {
			t.Errorf("%s has no rule", key)
		}
	}
}
