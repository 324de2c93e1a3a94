package app

import (
	"time"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/schemas"
)

// Config says how exhume works. LoadConfig makes one; after that it is only
// read, by any number of goroutines.
//
// The tags name a setting: toml its key in a file, alias a second key there, env
// its variable, envAlias a second variable, flag the name of its flag where that
// is not the key with dashes, secret how much of it is hidden: "url" the
// credentials in it, "urls" those in several, "all" everything. What values a setting takes stands in
// configRules.
type Config struct {
	Backend     BackendConfig     `toml:"backend"`
	Logging     LoggingConfig     `toml:"logging"`
	Retry       RetryConfig       `toml:"retry"`
	Batch       BatchConfig       `toml:"batch"`
	Performance PerformanceConfig `toml:"performance"`
	Exhume      ExhumeConfig      `toml:"exhume"`
	NATS        NATSConfig        `toml:"nats"`
	S3          S3Config          `toml:"s3"`
	Webhook     WebhookConfig     `toml:"webhook"`

	// Version is the program's.
	Version string
	// File is the configuration file that was read, empty when there was none.
	File string
	// Warnings are remarks for the user, a line each, without secrets.
	Warnings []string

	origins map[string]configOrigin
}

// BackendConfig says where the archive is.
type BackendConfig struct {
	// Backend is archive.SQLite, archive.Postgres or archive.MariaDB, and always
	// the one that URL means.
	Backend string `toml:"backend" alias:"type" env:"CODEX_ARCHIVE_BACKEND"`
	// URL is understood by archive.ParseURL. It may hold a password.
	URL string `toml:"url" env:"CODEX_ARCHIVE_URL" flag:"archive" secret:"url"`
}

// LoggingConfig is about the program's own log.
type LoggingConfig struct {
	// Level is debug, info, warn or error.
	Level string `toml:"level" flag:"log-level" env:"CODEX_ARCHIVE_LOG_LEVEL"`
	// Format is text or json.
	Format string `toml:"format" flag:"log-format" env:"CODEX_ARCHIVE_LOG_FORMAT"`
	// EvidenceFile has no effect; files of the predecessor may hold it.
	EvidenceFile string `toml:"evidence_file" env:"CODEX_ARCHIVE_LOG_EVIDENCE"`
}

// RetryConfig says when a failed item is tried again.
type RetryConfig struct {
	// Enabled false means one attempt, whatever MaxAttempts says.
	Enabled bool `toml:"enabled" env:"CODEX_ARCHIVE_RETRY_ENABLED"`
	// MaxAttempts counts the first attempt too.
	MaxAttempts int `toml:"max_attempts" env:"CODEX_ARCHIVE_RETRY_ATTEMPTS" envAlias:"CODEX_ARCHIVE_RETRY_MAX"`
	// InitialDelay and MaxDelay are seconds.
	InitialDelay float64 `toml:"initial_delay" env:"CODEX_ARCHIVE_RETRY_INITIAL"`
	MaxDelay     float64 `toml:"max_delay" env:"EXHUME_RETRY_MAX_DELAY"`
	// Multiplier is the growth from one delay to the next.
	Multiplier float64 `toml:"multiplier" env:"CODEX_ARCHIVE_RETRY_MULTIPLIER"`
	// Jitter is the share of a delay that is left to chance, from 0 to 1.
	Jitter float64 `toml:"jitter" env:"CODEX_ARCHIVE_RETRY_JITTER"`
	// Seed makes chance repeatable; nil does not.
	Seed *int `toml:"seed" env:"CODEX_ARCHIVE_RETRY_SEED"`
}

// BatchConfig is about the restoration of manifests.
type BatchConfig struct {
	// Concurrent is the number of groups of items in work at once; 1 means one
	// item after the other.
	Concurrent int `toml:"concurrent" alias:"max_concurrent" env:"CODEX_ARCHIVE_BATCH_CONCURRENT"`
	// ProgressInterval has no effect; files of the predecessor may hold it.
	ProgressInterval int `toml:"progress_interval" env:"CODEX_ARCHIVE_BATCH_PROGRESS"`
	// ResultsPath is where the result document is written too; empty means nowhere.
	ResultsPath string `toml:"results_path" env:"CODEX_ARCHIVE_BATCH_RESULTS" flag:"results"`
}

// PerformanceConfig is about timings in results and evidence.
type PerformanceConfig struct {
	Enabled        bool `toml:"enabled" env:"CODEX_ARCHIVE_PERF_ENABLED"`
	EmitToEvidence bool `toml:"emit_to_evidence" env:"CODEX_ARCHIVE_PERF_EVIDENCE"`
}

// ExhumeConfig is what the predecessor did not have.
type ExhumeConfig struct {
	// StateDir holds the embedded queue and the ledger.
	StateDir string `toml:"state_dir" env:"EXHUME_STATE_DIR"`
	// EvidenceDir holds the evidence log.
	EvidenceDir string `toml:"evidence_dir" env:"CODEX_EVIDENCE_DIR"`
	// Memory is the budget for artifacts in work.
	Memory ByteSize `toml:"memory" env:"EXHUME_MEMORY"`
	// ItemTimeout is how long one item may take before it is given up.
	ItemTimeout Duration `toml:"item_timeout" env:"EXHUME_ITEM_TIMEOUT"`
	// Overwrite is the policy for outputs that exist.
	Overwrite schemas.Overwrite `toml:"overwrite" env:"EXHUME_OVERWRITE"`
	// Mode is the permission bits of restored files, before the umask.
	Mode FileMode `toml:"mode" env:"EXHUME_MODE"`
	// ArchiveEvents says whether restorations are noted in the archive.
	ArchiveEvents bool `toml:"archive_events" env:"EXHUME_ARCHIVE_EVENTS"`
	// WorkerName names this process's worker; empty means after the host.
	WorkerName string `toml:"worker_name" env:"EXHUME_WORKER_NAME"`
	// GroupSize is about how many items are restored together.
	GroupSize int `toml:"group_size" env:"EXHUME_GROUP_SIZE"`
	// LedgerURL is the ledger's PostgreSQL database; empty means a SQLite file
	// in StateDir. It may hold a password.
	LedgerURL string `toml:"ledger_url" env:"EXHUME_LEDGER_URL" flag:"ledger" secret:"url"`
	// SingleRoot is the destination root of requests that are published one at a
	// time; empty refuses them.
	SingleRoot string `toml:"single_root" env:"EXHUME_SINGLE_ROOT"`
	// HTTPListen is where a role answers HTTP, host:port; empty means the role's
	// own port on loopback, "off" nowhere.
	HTTPListen string `toml:"http_listen" env:"EXHUME_HTTP_LISTEN"`
	// ReportDir is where the collector leaves a directory with a report of each
	// batch that has ended; empty means reports in StateDir, "off" nowhere.
	ReportDir string `toml:"report_dir" env:"EXHUME_REPORT_DIR"`
	// StartTimeout bounds how long a role waits for broker and databases when it
	// starts, DrainTimeout how long it finishes what it has in hand when it stops.
	StartTimeout Duration `toml:"start_timeout" env:"EXHUME_START_TIMEOUT"`
	DrainTimeout Duration `toml:"drain_timeout" env:"EXHUME_DRAIN_TIMEOUT"`
	// QueueBytes, ResultsBytes, ResultsAge and RetriesBytes are broker.Bounds. They
	// are settings of whoever sets the broker up: the collector, or a fleet in one
	// process.
	QueueBytes   ByteSize `toml:"queue_bytes" env:"EXHUME_QUEUE_BYTES"`
	ResultsBytes ByteSize `toml:"results_bytes" env:"EXHUME_RESULTS_BYTES"`
	ResultsAge   Duration `toml:"results_age" env:"EXHUME_RESULTS_AGE"`
	RetriesBytes ByteSize `toml:"retries_bytes" env:"EXHUME_RETRIES_BYTES"`
}

// NATSConfig says how the broker is reached. Without URL and Context the roles
// run with a broker of their own, in the process.
type NATSConfig struct {
	// URL is one or several addresses, with commas between.
	URL string `toml:"url" env:"EXHUME_NATS_URL" flag:"nats" secret:"urls"`
	// Context is the name of a context of the nats command line tool.
	Context string `toml:"context" env:"EXHUME_NATS_CONTEXT" flag:"context"`
	// Creds and NKey are files, the others what a server asks for.
	Creds    string `toml:"creds" env:"EXHUME_NATS_CREDS" flag:"nats-creds"`
	NKey     string `toml:"nkey" env:"EXHUME_NATS_NKEY" flag:"nats-nkey"`
	User     string `toml:"user" env:"EXHUME_NATS_USER" flag:"nats-user"`
	Password string `toml:"password" env:"EXHUME_NATS_PASSWORD" flag:"nats-password" secret:"all"`
	Token    string `toml:"token" env:"EXHUME_NATS_TOKEN" flag:"nats-token" secret:"all"`
	// TLSCA, TLSCert and TLSKey are PEM files.
	TLSCA   string `toml:"tls_ca" env:"EXHUME_NATS_TLS_CA" flag:"nats-tls-ca"`
	TLSCert string `toml:"tls_cert" env:"EXHUME_NATS_TLS_CERT" flag:"nats-tls-cert"`
	TLSKey  string `toml:"tls_key" env:"EXHUME_NATS_TLS_KEY" flag:"nats-tls-key"`
	// Replicas is on how many servers of a cluster streams and buckets are kept.
	Replicas int `toml:"replicas" env:"EXHUME_NATS_REPLICAS" flag:"nats-replicas"`
	// Listen is where the broker of 'exhume up' listens, host:port.
	Listen string `toml:"listen" env:"EXHUME_LISTEN" flag:"listen"`
}

// S3Config says how object storage is reached, and what of it may be read.
type S3Config struct {
	// Endpoint is the server, as a URL; empty means Amazon's. Without keys here,
	// those of the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY count.
	Endpoint  string `toml:"endpoint" env:"EXHUME_S3_ENDPOINT" flag:"s3-endpoint"`
	Region    string `toml:"region" env:"EXHUME_S3_REGION" flag:"s3-region"`
	AccessKey string `toml:"access_key" env:"EXHUME_S3_ACCESS_KEY" flag:"s3-access-key"`
	SecretKey string `toml:"secret_key" env:"EXHUME_S3_SECRET_KEY" flag:"s3-secret-key" secret:"all"`
	// SessionToken belongs to temporary keys.
	SessionToken string `toml:"session_token" env:"EXHUME_S3_SESSION_TOKEN" flag:"s3-session-token" secret:"all"`
	// Style is path or virtual; empty means what the endpoint needs.
	Style string `toml:"style" env:"EXHUME_S3_STYLE" flag:"s3-style"`
	// CA is a PEM file.
	CA string `toml:"ca" env:"EXHUME_S3_CA" flag:"s3-ca"`
	// Insecure allows http beyond loopback, Private an endpoint whose name leads
	// to a private address.
	Insecure bool `toml:"insecure" env:"EXHUME_S3_INSECURE" flag:"s3-insecure"`
	Private  bool `toml:"private" env:"EXHUME_S3_PRIVATE" flag:"s3-private"`
	// Sources are what artifacts may be read from: s3://bucket/prefix and
	// directories as file:///path, with commas between; empty means nothing.
	Sources string `toml:"sources" env:"EXHUME_S3_SOURCES" flag:"s3-sources"`
}

// WebhookConfig says who is told of what happens to batches, by HTTP.
type WebhookConfig struct {
	// URL is where events are posted; empty means nowhere.
	URL string `toml:"url" env:"EXHUME_WEBHOOK_URL" flag:"webhook" secret:"all"`
	// Secret signs them: whsec_ and 24 bytes or more in base64, several with spaces
	// between while one replaces another.
	Secret string `toml:"secret" env:"EXHUME_WEBHOOK_SECRET" flag:"webhook-secret" secret:"all"`
	// Insecure allows http beyond loopback.
	Insecure bool `toml:"insecure" env:"EXHUME_WEBHOOK_INSECURE" flag:"webhook-insecure"`
}

func defaultConfig() Config {
	return Config{
		Backend:     BackendConfig{Backend: archive.SQLite, URL: "sqlite:///./.codex/archive.sqlite"},
		Logging:     LoggingConfig{Level: "info", Format: "text"},
		Retry:       RetryConfig{Enabled: true, MaxAttempts: 5, InitialDelay: 1, MaxDelay: 32, Multiplier: 2, Jitter: 1},
		Batch:       BatchConfig{Concurrent: 2, ProgressInterval: 10},
		Performance: PerformanceConfig{Enabled: true, EmitToEvidence: true},
		Exhume: ExhumeConfig{
			StateDir: ".exhume", EvidenceDir: ".codex/evidence", Memory: 256 << 20, ItemTimeout: Duration(10 * time.Minute),
			Overwrite: schemas.OverwriteNever, Mode: 0o644, ArchiveEvents: true,
			GroupSize: 512, StartTimeout: Duration(time.Minute), DrainTimeout: Duration(30 * time.Second),
			QueueBytes: 8 << 30, ResultsBytes: 6 << 30, ResultsAge: Duration(30 * 24 * time.Hour), RetriesBytes: 1 << 30,
		},
		NATS: NATSConfig{Replicas: 1, Listen: "127.0.0.1:4222"},
		S3:   S3Config{Region: "us-east-1"},
	}
}
