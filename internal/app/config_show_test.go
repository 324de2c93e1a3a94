package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
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
	secrets := map[string]string{
		"backend.url": "url", "exhume.ledger_url": "url", "nats.url": "urls",
		"nats.password": "all", "nats.token": "all", "s3.secret_key": "all", "s3.session_token": "all",
		"webhook.url": "all", "webhook.secret": "all",
	}
	var keys []string
	for _, s := range c.Settings() {
		keys = append(keys, s.Key)
		if s.Secret != secrets[s.Key] {
			t.Errorf("%s: secret %q", s.Key, s.Secret)
		}
	}
	want := []string{
		"backend.backend", "backend.url", "logging.level", "logging.format", "logging.evidence_file",
		"retry.enabled", "retry.max_attempts", "retry.initial_delay", "retry.max_delay", "retry.multiplier", "retry.jitter", "retry.seed",
		"batch.concurrent", "batch.progress_interval", "batch.results_path", "performance.enabled", "performance.emit_to_evidence",
		"exhume.state_dir", "exhume.evidence_dir", "exhume.memory", "exhume.item_timeout", "exhume.overwrite", "exhume.mode", "exhume.archive_events", "exhume.worker_name",
		"exhume.group_size", "exhume.ledger_url", "exhume.single_root", "exhume.http_listen", "exhume.report_dir", "exhume.start_timeout", "exhume.drain_timeout",
		"exhume.queue_bytes", "exhume.results_bytes", "exhume.results_age", "exhume.retries_bytes",
		"nats.url", "nats.context", "nats.creds", "nats.nkey", "nats.user", "nats.password", "nats.token",
		"nats.tls_ca", "nats.tls_cert", "nats.tls_key", "nats.replicas", "nats.listen",
		"s3.endpoint", "s3.region", "s3.access_key", "s3.secret_key", "s3.session_token", "s3.style", "s3.ca",
		"s3.insecure", "s3.private", "s3.sources", "webhook.url", "webhook.secret", "webhook.insecure",
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

// No secret is shown unless it is asked for.
func TestConfigShowHidesSecrets(t *testing.T) {
	t.Parallel()
	c, problems := loadDoc(t, "", "CODEX_ARCHIVE_URL=postgres://u:lion@db/x", "EXHUME_LEDGER_URL=postgresql://u:lion@db/y",
		"EXHUME_NATS_URL=nats://u:lion@a:4222,nats://u:lion@b:4222", "EXHUME_NATS_PASSWORD=lion", "EXHUME_NATS_TOKEN=lion", "EXHUME_S3_SECRET_KEY=lion")
	if problems != "" {
		t.Fatal(problems)
	}
	for _, format := range []string{"json", "table"} {
		var hidden, open bytes.Buffer
		if err := errors.Join(c.Show(&hidden, format, false), c.Show(&open, format, true)); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(hidden.String(), "lion") || !strings.Contains(hidden.String(), "@b:4222") {
			t.Error(hidden.String())
		}
		if n := strings.Count(open.String(), "lion"); n != 7 {
			t.Errorf("%d secrets in %s", n, open.String())
		}
	}
}
