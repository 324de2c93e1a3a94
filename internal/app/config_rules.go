package app

import (
	"encoding"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/schemas"
)

// configRule reads the text of a setting, whichever layer it comes from.
type configRule struct {
	// allowed completes "… is not".
	allowed string
	// parse gives a value of the setting's type, and whether text is allowed.
	parse func(text string) (value any, ok bool)
}

const oneDay = 24 * 60 * 60 // seconds

// configRules are the rules of the settings, by key, and of second variables, by
// name.
var configRules = map[string]configRule{
	"backend.backend": configOneOf[string](
		[]string{archive.SQLite, archive.Postgres, archive.MariaDB},
		map[string]string{"postgresql": archive.Postgres, "mysql": archive.MariaDB}),
	"backend.url": configNonEmpty,

	"logging.level": configOneOf[string](
		[]string{"debug", "info", "warn", "error"},
		map[string]string{"notset": "debug", "warning": "warn", "critical": "error", "fatal": "error"}),
	"logging.format":        configOneOf[string]([]string{"text", "json"}, nil),
	"logging.evidence_file": configAnyText,

	"retry.enabled":       configBool,
	"retry.max_attempts":  configCount(100),
	"retry.initial_delay": configNumber(0, oneDay),
	"retry.max_delay":     configNumber(0, oneDay),
	"retry.multiplier":    configNumber(1, math.MaxFloat64),
	"retry.jitter":        configNumber(0, 1),
	"retry.seed":          configSeed,

	"batch.concurrent":        configCount(32),
	"batch.progress_interval": configCount(math.MaxInt),
	"batch.results_path":      configAnyText,

	"performance.enabled":          configBool,
	"performance.emit_to_evidence": configBool,

	"exhume.state_dir":    configNonEmpty,
	"exhume.evidence_dir": configNonEmpty,
	"exhume.memory":       configSize(32<<20, 1<<40),
	"exhume.item_timeout": {"a duration from 1s to 24h, such as 30s, 5m or a plain number of seconds", func(text string) (any, bool) {
		d, ok := configUnmarshal[Duration](text)
		return d, ok && d >= Duration(time.Second) && d <= Duration(oneDay*time.Second)
	}},
	"exhume.overwrite": configOneOf[schemas.Overwrite]([]string{
		string(schemas.OverwriteNever), string(schemas.OverwriteIfDifferent), string(schemas.OverwriteAlways),
	}, nil),
	"exhume.mode":           configMode,
	"exhume.archive_events": configBool,
	"exhume.worker_name":    configWorkerName,
	"exhume.group_size":     configCount(4096),
	"exhume.ledger_url": {"empty or a PostgreSQL URL, such as postgresql://user@host/database", func(text string) (any, bool) {
		at, err := archive.ParseURL(text)
		return text, text == "" || err == nil && at.Backend == archive.Postgres
	}},
	"exhume.single_root":   configAnyText,
	"exhume.http_listen":   configListen,
	"exhume.report_dir":    configAnyText,
	"exhume.start_timeout": configDuration,
	"exhume.drain_timeout": configDuration,
	"exhume.queue_bytes":   configSize(16<<20, 1<<50),
	"exhume.results_bytes": configSize(16<<20, 1<<50),
	"exhume.results_age": {"a duration from 1h to 87600h (ten years)", func(text string) (any, bool) {
		d, ok := configUnmarshal[Duration](text)
		return d, ok && d >= Duration(time.Hour) && d <= Duration(10*365*24*time.Hour)
	}},
	"exhume.retries_bytes": configSize(1<<20, 1<<50),

	"nats.url":      configAnyText,
	"nats.context":  configAnyText,
	"nats.creds":    configAnyText,
	"nats.nkey":     configAnyText,
	"nats.user":     configAnyText,
	"nats.password": configAnyText,
	"nats.token":    configAnyText,
	"nats.tls_ca":   configAnyText,
	"nats.tls_cert": configAnyText,
	"nats.tls_key":  configAnyText,
	"nats.replicas": configCount(5),
	"nats.listen":   configListen,

	"s3.endpoint":      configAnyText,
	"s3.region":        configAnyText,
	"s3.access_key":    configAnyText,
	"s3.secret_key":    configAnyText,
	"s3.session_token": configAnyText,
	"s3.style":         configOneOf[string]([]string{"", "path", "virtual"}, nil),
	"s3.ca":            configAnyText,
	"s3.insecure":      configBool,
	"s3.private":       configBool,
	"s3.sources":       configAnyText,

	"webhook.url":      configAnyText,
	"webhook.secret":   configAnyText,
	"webhook.insecure": configBool,

	// Some documents call this the number of attempts; the predecessor took it
	// for the longest delay in seconds.
	"CODEX_ARCHIVE_RETRY_MAX": {
		"a whole number from 1 to 10; set CODEX_ARCHIVE_RETRY_ATTEMPTS for the number of attempts, EXHUME_RETRY_MAX_DELAY for the longest delay in seconds",
		configCount(10).parse,
	},
}

var (
	configTrue  = []string{"1", "true", "yes", "on", "enabled"}
	configFalse = []string{"0", "false", "no", "off", "disabled"}
)

var configBool = configRule{
	"one of " + strings.Join(slices.Concat(configTrue, configFalse), ", "),
	func(text string) (any, bool) {
		word := strings.ToLower(strings.TrimSpace(text))
		yes := slices.Contains(configTrue, word)
		return yes, yes || slices.Contains(configFalse, word)
	},
}

var configAnyText = configRule{"text", func(text string) (any, bool) { return text, true }}

var configNonEmpty = configRule{"a non-empty text", func(text string) (any, bool) { return text, text != "" }}

var configDuration = configRule{"a duration, such as 30s, 5m or a plain number of seconds, of at most a day", func(text string) (any, bool) {
	d, ok := configUnmarshal[Duration](text)
	return d, ok && d >= 0 && d <= Duration(oneDay*time.Second)
}}

var configListen = configRule{"host:port, such as 127.0.0.1:7700, or off", func(text string) (any, bool) {
	if text == "" || text == "off" {
		return text, true
	}
	_, port, err := net.SplitHostPort(text)
	n, perr := strconv.ParseUint(port, 10, 16)
	return text, err == nil && perr == nil && n <= math.MaxUint16
}}

var configSeed = configRule{"a whole number", func(text string) (any, bool) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	return &n, err == nil
}}

var configMode = configRule{"an octal mode of at most 0777 that lets the owner read, such as \"0644\"", func(text string) (any, bool) {
	return configUnmarshal[FileMode](text)
}}

var configWorkerName = configRule{
	"a worker's name: 1 to 64 letters, digits, '-' or '_', a letter or digit first",
	func(text string) (any, bool) { return text, text == "" || schemas.CheckName(text) == nil },
}

// configOneOf takes the words and, as another way to say them, the keys of also.
func configOneOf[T ~string](words []string, also map[string]string) configRule {
	return configRule{"one of " + strings.Join(words, ", "), func(text string) (any, bool) {
		word := strings.ToLower(strings.TrimSpace(text))
		if w, ok := also[word]; ok {
			word = w
		}
		return T(word), slices.Contains(words, word)
	}}
}

func configCount(high int) configRule {
	allowed := fmt.Sprintf("a whole number from 1 to %d", high)
	if high == math.MaxInt {
		allowed = "a whole number of at least 1"
	}
	return configRule{allowed, func(text string) (any, bool) {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		return n, err == nil && n >= 1 && n <= high
	}}
}

func configNumber(low, high float64) configRule {
	allowed := fmt.Sprintf("a number from %g to %g", low, high)
	if high == math.MaxFloat64 {
		allowed = fmt.Sprintf("a number of at least %g", low)
	}
	return configRule{allowed, func(text string) (any, bool) {
		n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		return n, err == nil && n >= low && n <= high
	}}
}

func configSize(low, high ByteSize) configRule {
	allowed := fmt.Sprintf("a size from %s to %s, such as 64MiB, 1GiB, 512m or a plain number of bytes", low, high)
	return configRule{allowed, func(text string) (any, bool) {
		size, ok := configUnmarshal[ByteSize](text)
		return size, ok && size >= low && size <= high
	}}
}

func configUnmarshal[T any, P interface {
	*T
	encoding.TextUnmarshaler
}](text string) (T, bool) {
	var v T
	err := P(&v).UnmarshalText([]byte(text))
	return v, err == nil
}
