package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/exhume/exhume/schemas"
)

// writeConfig writes a configuration file and gives its path.
func writeConfig(t testing.TB, dir, name, doc string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(doc), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// loadDoc loads the document as exhume.toml under the environment. The text of
// the error has the file's name alone.
func loadDoc(t testing.TB, doc string, environ ...string) (c *Config, problems string) {
	t.Helper()
	o := LoadOptions{Dir: t.TempDir(), Environ: append([]string{}, environ...)}
	if doc != "" {
		writeConfig(t, o.Dir, "exhume.toml", doc)
	}
	c, err := LoadConfig(o)
	return c, withoutDir(err, o.Dir)
}

// withoutDir is the error's text with the names of files relative to dir.
func withoutDir(err error, dir string) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
}

// origins are the origins that are not "default", by key.
func origins(c *Config) map[string]string {
	out := map[string]string{}
	for _, s := range c.Settings() {
		if s.Origin != "default" {
			out[s.Key] = s.Origin
		}
	}
	return out
}

func equalConfig(t *testing.T, got *Config, want Config) {
	t.Helper()
	if diff := cmp.Diff(&want, got, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c, problems := loadDoc(t, "")
	if problems != "" {
		t.Fatal(problems)
	}
	equalConfig(t, c, Config{
		Backend:     BackendConfig{Backend: "sqlite", URL: "sqlite:///./.codex/archive.sqlite"},
		Logging:     LoggingConfig{Level: "info", Format: "text"},
		Retry:       RetryConfig{Enabled: true, MaxAttempts: 5, InitialDelay: 1, MaxDelay: 32, Multiplier: 2, Jitter: 1},
		Batch:       BatchConfig{Concurrent: 2, ProgressInterval: 10},
		Performance: PerformanceConfig{Enabled: true, EmitToEvidence: true},
		Exhume: ExhumeConfig{
			StateDir: ".exhume", EvidenceDir: ".codex/evidence", Memory: 268435456, ItemTimeout: 600_000_000_000,
			Overwrite: schemas.OverwriteNever, Mode: 420, ArchiveEvents: true,
			GroupSize: 512, StartTimeout: 60_000_000_000, DrainTimeout: 30_000_000_000,
			QueueBytes: 8589934592, ResultsBytes: 6442450944, ResultsAge: 2_592_000_000_000_000, RetriesBytes: 1073741824,
		},
		NATS: NATSConfig{Replicas: 1, Listen: "127.0.0.1:4222"},
		S3:   S3Config{Region: "us-east-1"},
	})
	if got := origins(c); len(got) > 0 {
		t.Errorf("origins of defaults: %v", got)
	}
}

// predecessorTOML is a file as the predecessor's documents show it.
const predecessorTOML = `[backend]
type = "sqlite"
url = "sqlite:///./.codex/archive.sqlite"
[retry]
enabled = true
max_attempts = 3
[batch]
max_concurrent = 5
`

func TestConfigPredecessorFile(t *testing.T) {
	t.Parallel()
	c, problems := loadDoc(t, predecessorTOML)
	if problems != "" {
		t.Fatal(problems)
	}
	want := defaultConfig()
	want.Retry.MaxAttempts, want.Batch.Concurrent, want.File = 3, 5, c.File
	equalConfig(t, c, want)
	if got := len(origins(c)); got != 5 {
		t.Errorf("%d settings are from the file, want 5", got)
	}
}

// Every key and every variable works, and variables win over the file.
func TestConfigAllNames(t *testing.T) {
	t.Parallel()
	doc := `
[backend]
backend = "sqlite"
url = "sqlite:///./file.db"
[logging]
level = "debug"
format = "json"
evidence_file = "file.log"
[retry]
enabled = false
max_attempts = 7
initial_delay = 0.5
max_delay = 8
multiplier = 1.5
jitter = 0.25
seed = 11
[batch]
concurrent = 2
progress_interval = 3
results_path = "file.json"
[performance]
enabled = false
emit_to_evidence = false
[exhume]
state_dir = "file-state"
evidence_dir = "file-evidence"
memory = "64MiB"
item_timeout = 90
overwrite = "if-different"
mode = "0600"
archive_events = false
worker_name = "file-worker"
group_size = 7
ledger_url = "postgresql://db/file"
single_root = "file-single"
http_listen = "off"
report_dir = "file-reports"
start_timeout = "5s"
drain_timeout = 90
queue_bytes = "32MiB"
results_bytes = 33554432
results_age = "48h"
retries_bytes = "2MiB"
[nats]
url = "file-url"
context = "file-context"
creds = "file-creds"
nkey = "file-nkey"
user = "file-user"
password = "file-password"
token = "file-token"
tls_ca = "file-tls_ca"
tls_cert = "file-tls_cert"
tls_key = "file-tls_key"
replicas = 3
listen = "localhost:1"
[s3]
endpoint = "file-endpoint"
region = "file-region"
access_key = "file-access_key"
secret_key = "file-secret_key"
session_token = "file-session"
style = "path"
insecure = true
private = true
ca = "file-ca"
sources = "file-sources"
[webhook]
url = "file-webhook"
secret = "file-secret"
insecure = true
`
	environ := []string{
		"CODEX_ARCHIVE_BACKEND=postgresql", "CODEX_ARCHIVE_URL=postgres://db/env",
		"CODEX_ARCHIVE_LOG_LEVEL=warning", "CODEX_ARCHIVE_LOG_FORMAT=text", "CODEX_ARCHIVE_LOG_EVIDENCE=env.log",
		"CODEX_ARCHIVE_RETRY_ENABLED=true", "CODEX_ARCHIVE_RETRY_ATTEMPTS=100", "CODEX_ARCHIVE_RETRY_INITIAL=0.1",
		"EXHUME_RETRY_MAX_DELAY=9.5", "CODEX_ARCHIVE_RETRY_MULTIPLIER=3", "CODEX_ARCHIVE_RETRY_JITTER=0", "CODEX_ARCHIVE_RETRY_SEED=-4",
		"CODEX_ARCHIVE_BATCH_CONCURRENT=32", "CODEX_ARCHIVE_BATCH_PROGRESS=1", "CODEX_ARCHIVE_BATCH_RESULTS=env.json",
		"CODEX_ARCHIVE_PERF_ENABLED=on", "CODEX_ARCHIVE_PERF_EVIDENCE=yes",
		"EXHUME_STATE_DIR=env-state", "CODEX_EVIDENCE_DIR=env-evidence", "EXHUME_MEMORY=1GiB", "EXHUME_ITEM_TIMEOUT=1h", "EXHUME_OVERWRITE=always",
		"EXHUME_MODE=0640", "EXHUME_ARCHIVE_EVENTS=on", "EXHUME_WORKER_NAME=env-worker",
		"EXHUME_GROUP_SIZE=9", "EXHUME_LEDGER_URL=postgres://db/env", "EXHUME_SINGLE_ROOT=env-single", "EXHUME_HTTP_LISTEN=:7", "EXHUME_REPORT_DIR=env-reports", "EXHUME_START_TIMEOUT=1.5", "EXHUME_DRAIN_TIMEOUT=2m",
		"EXHUME_QUEUE_BYTES=1TiB", "EXHUME_RESULTS_BYTES=2TiB", "EXHUME_RESULTS_AGE=8760h", "EXHUME_RETRIES_BYTES=3GiB",
		"EXHUME_NATS_REPLICAS=5", "EXHUME_LISTEN=off",
		"EXHUME_NATS_URL=env-url",
		"EXHUME_NATS_CONTEXT=env-context",
		"EXHUME_NATS_CREDS=env-creds",
		"EXHUME_NATS_NKEY=env-nkey",
		"EXHUME_NATS_USER=env-user",
		"EXHUME_NATS_PASSWORD=env-password",
		"EXHUME_NATS_TOKEN=env-token",
		"EXHUME_NATS_TLS_CA=env-tls_ca",
		"EXHUME_NATS_TLS_CERT=env-tls_cert",
		"EXHUME_NATS_TLS_KEY=env-tls_key",
		"EXHUME_S3_ENDPOINT=env-endpoint",
		"EXHUME_S3_REGION=env-region",
		"EXHUME_S3_ACCESS_KEY=env-access_key",
		"EXHUME_S3_SECRET_KEY=env-secret_key",
		"EXHUME_S3_SESSION_TOKEN=env-session", "EXHUME_S3_STYLE=virtual", "EXHUME_S3_INSECURE=off", "EXHUME_S3_PRIVATE=off",
		"EXHUME_S3_CA=env-ca",
		"EXHUME_S3_SOURCES=env-sources",
		"EXHUME_WEBHOOK_URL=env-webhook", "EXHUME_WEBHOOK_SECRET=env-secret", "EXHUME_WEBHOOK_INSECURE=off",
	}
	fromFile, fromEnv := 11, -4
	wantFile := Config{
		Backend:     BackendConfig{Backend: "sqlite", URL: "sqlite:///./file.db"},
		Logging:     LoggingConfig{Level: "debug", Format: "json", EvidenceFile: "file.log"},
		Retry:       RetryConfig{MaxAttempts: 7, InitialDelay: 0.5, MaxDelay: 8, Multiplier: 1.5, Jitter: 0.25, Seed: &fromFile},
		Batch:       BatchConfig{Concurrent: 2, ProgressInterval: 3, ResultsPath: "file.json"},
		Performance: PerformanceConfig{},
		Exhume: ExhumeConfig{
			StateDir: "file-state", EvidenceDir: "file-evidence", Memory: 64 << 20, ItemTimeout: 90e9,
			Overwrite: schemas.OverwriteIfDifferent, Mode: 0o600, WorkerName: "file-worker",
			GroupSize: 7, LedgerURL: "postgresql://db/file", SingleRoot: "file-single", HTTPListen: "off", ReportDir: "file-reports", StartTimeout: 5e9, DrainTimeout: 90e9,
			QueueBytes: 32 << 20, ResultsBytes: 32 << 20, ResultsAge: Duration(48 * time.Hour), RetriesBytes: 2 << 20,
		},
		NATS: NATSConfig{
			URL: "file-url", Context: "file-context", Creds: "file-creds", NKey: "file-nkey", User: "file-user", Password: "file-password", Token: "file-token",
			TLSCA: "file-tls_ca", TLSCert: "file-tls_cert", TLSKey: "file-tls_key", Replicas: 3, Listen: "localhost:1",
		},
		S3: S3Config{
			Endpoint: "file-endpoint", Region: "file-region", AccessKey: "file-access_key", SecretKey: "file-secret_key", SessionToken: "file-session", Style: "path", Insecure: true, Private: true, CA: "file-ca", Sources: "file-sources",
		},
		Webhook:  WebhookConfig{URL: "file-webhook", Secret: "file-secret", Insecure: true},
		Warnings: []string{`logging.evidence_file from file exhume.toml has no effect: the evidence is in the directory CODEX_EVIDENCE_DIR, now "file-evidence"`},
	}
	wantEnv := Config{
		Backend:     BackendConfig{Backend: "postgres", URL: "postgres://db/env"},
		Logging:     LoggingConfig{Level: "warn", Format: "text", EvidenceFile: "env.log"},
		Retry:       RetryConfig{Enabled: true, MaxAttempts: 100, InitialDelay: 0.1, MaxDelay: 9.5, Multiplier: 3, Jitter: 0, Seed: &fromEnv},
		Batch:       BatchConfig{Concurrent: 32, ProgressInterval: 1, ResultsPath: "env.json"},
		Performance: PerformanceConfig{Enabled: true, EmitToEvidence: true},
		Exhume: ExhumeConfig{
			StateDir: "env-state", EvidenceDir: "env-evidence", Memory: 1 << 30, ItemTimeout: 3600e9,
			Overwrite: schemas.OverwriteAlways, Mode: 0o640, ArchiveEvents: true, WorkerName: "env-worker",
			GroupSize: 9, LedgerURL: "postgres://db/env", SingleRoot: "env-single", HTTPListen: ":7", ReportDir: "env-reports", StartTimeout: 1.5e9, DrainTimeout: 120e9,
			QueueBytes: 1 << 40, ResultsBytes: 2 << 40, ResultsAge: Duration(8760 * time.Hour), RetriesBytes: 3 << 30,
		},
		NATS: NATSConfig{
			URL: "env-url", Context: "env-context", Creds: "env-creds", NKey: "env-nkey", User: "env-user", Password: "env-password", Token: "env-token",
			TLSCA: "env-tls_ca", TLSCert: "env-tls_cert", TLSKey: "env-tls_key", Replicas: 5, Listen: "off",
		},
		S3: S3Config{
			Endpoint: "env-endpoint", Region: "env-region", AccessKey: "env-access_key", SecretKey: "env-secret_key", SessionToken: "env-session", Style: "virtual", CA: "env-ca", Sources: "env-sources",
		},
		Webhook:  WebhookConfig{URL: "env-webhook", Secret: "env-secret"},
		Warnings: []string{`logging.evidence_file from env CODEX_ARCHIVE_LOG_EVIDENCE has no effect: the evidence is in the directory CODEX_EVIDENCE_DIR, now "env-evidence"`},
	}
	for _, tt := range []struct {
		name, layer string
		environ     []string
		want        Config
	}{
		{"file", "file ", nil, wantFile},
		{"environment", "env ", environ, wantEnv},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, problems := loadDoc(t, doc, tt.environ...)
			if problems != "" {
				t.Fatal(problems)
			}
			tt.want.File = c.File
			for i, w := range c.Warnings {
				c.Warnings[i] = strings.ReplaceAll(w, c.File, "exhume.toml")
			}
			equalConfig(t, c, tt.want)
			for _, s := range c.Settings() {
				if !strings.HasPrefix(s.Origin, tt.layer) {
					t.Errorf("%s is from %q", s.Key, s.Origin)
				}
			}
		})
	}
}

func TestConfigPrecedence(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := writeConfig(t, dir, "exhume.toml", "[exhume]\nmemory = \"64MiB\"\n")
	for _, tt := range []struct {
		name    string
		environ []string
		flags   map[string]string
		memory  ByteSize
		origin  string
	}{
		{"default", []string{"CODEX_ARCHIVE_CONFIG_DISABLED=true"}, nil, 256 << 20, ""},
		{"file", nil, nil, 64 << 20, "file " + path},
		{"empty variable", []string{"EXHUME_MEMORY="}, nil, 64 << 20, "file " + path},
		{"environment", []string{"EXHUME_MEMORY=128MiB"}, nil, 128 << 20, "env EXHUME_MEMORY"},
		{"flag", []string{"EXHUME_MEMORY=128MiB"}, map[string]string{"exhume.memory": "512m"}, 512 << 20, "flag --memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := LoadConfig(LoadOptions{Dir: dir, Environ: append([]string{}, tt.environ...), Flags: tt.flags})
			if err != nil {
				t.Fatal(err)
			}
			if got := origins(c)["exhume.memory"]; c.Exhume.Memory != tt.memory || got != tt.origin {
				t.Errorf("memory %v from %q, want %v from %q", c.Exhume.Memory, got, tt.memory, tt.origin)
			}
		})
	}
}

func TestConfigOwnEnvironment(t *testing.T) {
	t.Setenv("EXHUME_WORKER_NAME", "here")
	t.Chdir(t.TempDir())
	writeConfig(t, "", "exhume.toml", "[exhume]\nstate_dir = \"there\"\n")
	c, err := LoadConfig(LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Exhume.WorkerName != "here" || c.Exhume.StateDir != "there" || c.File != "exhume.toml" {
		t.Errorf("worker %q, state %q, file %q", c.Exhume.WorkerName, c.Exhume.StateDir, c.File)
	}
}

// A flag has the rule of its setting, also where a variable has another.
func TestConfigFlagRule(t *testing.T) {
	t.Parallel()
	c, err := LoadConfig(LoadOptions{
		Dir: t.TempDir(), Environ: []string{"CODEX_ARCHIVE_RETRY_MAX=3"}, Flags: map[string]string{"retry.max_attempts": "50"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := origins(c)["retry.max_attempts"]; c.Retry.MaxAttempts != 50 || got != "flag --max-attempts" {
		t.Errorf("%d attempts from %q", c.Retry.MaxAttempts, got)
	}
}

// The switches by which operators go back after a release.
func TestConfigRollbackSwitches(t *testing.T) {
	t.Parallel()
	c, problems := loadDoc(t, "this is no TOML", "CODEX_ARCHIVE_RETRY_ENABLED=false", "CODEX_ARCHIVE_CONFIG_DISABLED=true",
		"CODEX_ARCHIVE_BATCH_CONCURRENT=1", "CODEX_ARCHIVE_PERF_ENABLED=false")
	if problems != "" {
		t.Fatal(problems)
	}
	if c.Retry.Enabled || c.Batch.Concurrent != 1 || c.Performance.Enabled || c.File != "" {
		t.Errorf("got %+v", c)
	}
}

func TestConfigFileChoice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		exhume, codex bool   // the files that stand there
		file, env     string // the files that are named
		disabled      string
		want          string // whose file it was
		warning, err  string
	}{
		{name: "none"},
		{name: "predecessor's place", codex: true, want: "old"},
		{name: "own place first", exhume: true, codex: true, want: "own"},
		{name: "variable", exhume: true, codex: true, env: "env.toml", want: "env"},
		{name: "flag", exhume: true, env: "env.toml", file: "flag.toml", want: "flag"},
		{name: "flag over missing variable", env: "nowhere.toml", file: "flag.toml", want: "flag"},
		{name: "disabled", exhume: true, codex: true, env: "env.toml", disabled: "YES"},
		{name: "not disabled", exhume: true, disabled: "off", want: "own"},
		{name: "flag, not disabled", file: "flag.toml", disabled: "off", want: "flag"},
		{name: "disabled against flag", file: "flag.toml", disabled: "1", warning: `the file "flag.toml" of --config-file is not read: CODEX_ARCHIVE_CONFIG_DISABLED is set`},
		{name: "missing flag", file: "nowhere.toml", exhume: true, err: `configuration file "nowhere.toml", named by --config-file: no such file or directory`},
		{name: "missing variable", env: "nowhere.toml", exhume: true, err: `configuration file "nowhere.toml", named by CODEX_ARCHIVE_CONFIG: no such file or directory`},
		{name: "bad switch", disabled: "ja", err: `CODEX_ARCHIVE_CONFIG_DISABLED: "ja" is not one of 1, true, yes, on, enabled, 0, false, no, off, disabled`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			doc := func(name, worker string) {
				writeConfig(t, dir, name, "[exhume]\nworker_name = \""+worker+"\"\n")
			}
			doc("flag.toml", "flag")
			doc("env.toml", "env")
			if tt.exhume {
				doc("exhume.toml", "own")
			}
			if tt.codex {
				doc(".codex/archive.toml", "old")
			}
			c, err := LoadConfig(LoadOptions{
				Dir: dir, File: tt.file,
				Environ: []string{"CODEX_ARCHIVE_CONFIG=" + tt.env, "CODEX_ARCHIVE_CONFIG_DISABLED=" + tt.disabled},
			})
			if tt.err != "" {
				if got := withoutDir(err, dir); got != tt.err {
					t.Fatalf("error %s\nwant  %s", got, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Exhume.WorkerName != tt.want || (c.File != "") != (tt.want != "") || strings.Join(c.Warnings, "\n") != tt.warning {
				t.Errorf("worker %q, file %q, warnings %q; want %q", c.Exhume.WorkerName, c.File, c.Warnings, tt.want)
			}
		})
	}
}

func TestConfigUnreadableFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "exhume.toml"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := LoadConfig(LoadOptions{Dir: dir, Environ: []string{}})
	const want = `configuration file "exhume.toml": is a directory; make it readable, or set CODEX_ARCHIVE_CONFIG_DISABLED=true`
	if got := withoutDir(err, dir); got != want {
		t.Errorf("error %s\nwant  %s", got, want)
	}

	big := writeConfig(t, t.TempDir(), "exhume.toml", strings.Repeat("#", configFileLimit+1))
	_, err = LoadConfig(LoadOptions{File: big, Environ: []string{}})
	if err == nil || !strings.HasSuffix(err.Error(), "larger than 1MiB") {
		t.Errorf("error %v", err)
	}

	// A file .codex is no directory, and no reason to fail.
	plain := t.TempDir()
	writeConfig(t, plain, ".codex", "")
	if _, err := LoadConfig(LoadOptions{Dir: plain, Environ: []string{}}); err != nil {
		t.Error(err)
	}
}

// What is wrong is reported together, a line each, without secrets.
func TestConfigAllProblemsTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeConfig(t, dir, "exhume.toml", "[retry]\nmax_attempt = 3\nmax_attempts = 0\n[batch]\nconcurrent = \"many\"\n")
	c, err := LoadConfig(LoadOptions{
		Dir:     dir,
		Environ: []string{"CODEX_ARCHIVE_RETRY_ENABLED=maybe", "CODEX_ARCHIVE_URL=oracle://scott:tiger@db/x?password=lion", "EXHUME_MEMORY=1MiB"},
		Flags:   map[string]string{"exhume.mode": "rw", "exhume.speed": "high"},
	})
	want := strings.Join([]string{
		"exhume.toml:2: unknown key retry.max_attempt; did you mean retry.max_attempts?",
		`retry.max_attempts: "0" from file exhume.toml is not a whole number from 1 to 100`,
		`batch.concurrent: "many" from file exhume.toml is not a whole number from 1 to 32`,
		`retry.enabled: "maybe" from env CODEX_ARCHIVE_RETRY_ENABLED is not one of 1, true, yes, on, enabled, 0, false, no, off, disabled`,
		`exhume.memory: "1MiB" from env EXHUME_MEMORY is not a size from 32MiB to 1TiB, such as 64MiB, 1GiB, 512m or a plain number of bytes`,
		`flag for "exhume.speed": there is no such setting`,
		`exhume.mode: "rw" from flag --mode is not an octal mode of at most 0777 that lets the owner read, such as "0644"`,
		`backend.url from env CODEX_ARCHIVE_URL: archive URL "oracle://***@db/x?password=***": unknown scheme "oracle"; write sqlite:///./FILE, postgresql://…, mariadb://… or a file name`,
	}, "\n")
	if c != nil {
		t.Error("a configuration came with the error")
	}
	if diff := cmp.Diff(want, withoutDir(err, dir)); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func TestConfigUnknownVariables(t *testing.T) {
	t.Parallel()
	c, problems := loadDoc(t, "", "EXHUME_MEMROY=1GiB", "EXHUME_RETRY_ENABLED=1", "CODEX_ARCHIVE_RETRY_MAX_DELAY=3", "CODEX_ARCHIVE_CONCURRENT=3",
		"EXHUME_EVIDENCE_DIR=x", "CODEX_ACTOR=eve", "EXHUME_EMPTY=", "CODEX_ARCHIVE_CONFIG=", "CODEX_ARCHIVE_CONFIG_DISABLED=no")
	if problems != "" {
		t.Fatal(problems)
	}
	want := []string{
		`CODEX_ARCHIVE_CONCURRENT is set but unknown and has no effect; the nearest known variable is CODEX_ARCHIVE_BATCH_CONCURRENT`,
		`CODEX_ARCHIVE_RETRY_MAX_DELAY is set but unknown and has no effect; the nearest known variable is EXHUME_RETRY_MAX_DELAY`,
		`EXHUME_EVIDENCE_DIR is set but unknown and has no effect; the nearest known variable is CODEX_EVIDENCE_DIR`,
		`EXHUME_MEMROY is set but unknown and has no effect; the nearest known variable is EXHUME_MEMORY`,
		`EXHUME_RETRY_ENABLED is set but unknown and has no effect; the nearest known variable is CODEX_ARCHIVE_RETRY_ENABLED`,
	}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func BenchmarkLoadConfig(b *testing.B) {
	dir := b.TempDir()
	writeConfig(b, dir, "exhume.toml", predecessorTOML)
	for b.Loop() {
		if _, err := LoadConfig(LoadOptions{Dir: dir}); err != nil {
			b.Fatal(err)
		}
	}
}
