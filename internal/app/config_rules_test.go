package app

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// valueOf is the value of a setting.
func valueOf(c *Config, key string) any {
	for _, s := range c.Settings() {
		if s.Key == key {
			if p, ok := s.Value.(*int); ok && p != nil {
				return *p
			}
			return s.Value
		}
	}
	return nil
}

// Every rule, through variables.
func TestConfigRules(t *testing.T) {
	t.Parallel()
	const (
		words    = " is not one of 1, true, yes, on, enabled, 0, false, no, off, disabled"
		size     = " is not a size from 32MiB to 1TiB, such as 64MiB, 1GiB, 512m or a plain number of bytes"
		mode     = ` is not an octal mode of at most 0777 that lets the owner read, such as "0644"`
		name     = " is not a worker's name: 1 to 64 letters, digits, '-' or '_', a letter or digit first"
		retryMax = " is not a whole number from 1 to 10; set CODEX_ARCHIVE_RETRY_ATTEMPTS for the number of attempts, EXHUME_RETRY_MAX_DELAY for the longest delay in seconds"
	)
	for _, tt := range []struct {
		key, variable string
		good          map[string]any
		bad           []string
		not           string
	}{
		{
			key: "logging.level", variable: "CODEX_ARCHIVE_LOG_LEVEL",
			good: map[string]any{"debug": "debug", "INFO": "info", "Warning": "warn", "warn": "warn", "error": "error", "CRITICAL": "error", "fatal": "error", "notset": "debug"},
			bad:  []string{"loud", "1"}, not: " is not one of debug, info, warn, error",
		},
		{
			key: "logging.format", variable: "CODEX_ARCHIVE_LOG_FORMAT",
			good: map[string]any{"text": "text", "JSON": "json"},
			bad:  []string{"xml"}, not: " is not one of text, json",
		},
		{
			key: "retry.enabled", variable: "CODEX_ARCHIVE_RETRY_ENABLED",
			good: map[string]any{
				"1": true, "true": true, "YES": true, "On": true, "enabled": true,
				"0": false, "false": false, "NO": false, "Off": false, "disabled": false,
			},
			bad: []string{"maybe", "2", "t", " "}, not: words,
		},
		{
			key: "retry.max_attempts", variable: "CODEX_ARCHIVE_RETRY_ATTEMPTS",
			good: map[string]any{"1": 1, "100": 100},
			bad:  []string{"0", "101", "-1", "3.5", "three", "99999999999999999999"}, not: " is not a whole number from 1 to 100",
		},
		{
			key: "retry.max_attempts", variable: "CODEX_ARCHIVE_RETRY_MAX",
			good: map[string]any{"1": 1, "10": 10},
			bad:  []string{"0", "11", "32.0", "30s"}, not: retryMax,
		},
		{
			key: "retry.initial_delay", variable: "CODEX_ARCHIVE_RETRY_INITIAL",
			good: map[string]any{"0": 0.0, "0.25": 0.25, "86400": 86400.0},
			bad:  []string{"-1", "86400.5", "1s", "NaN"}, not: " is not a number from 0 to 86400",
		},
		{
			key: "retry.max_delay", variable: "EXHUME_RETRY_MAX_DELAY",
			good: map[string]any{"0": 0.0, "64.5": 64.5},
			bad:  []string{"-0.1", "1e6", "inf"}, not: " is not a number from 0 to 86400",
		},
		{
			key: "retry.multiplier", variable: "CODEX_ARCHIVE_RETRY_MULTIPLIER",
			good: map[string]any{"1": 1.0, "1e3": 1000.0},
			bad:  []string{"0.9", "+Inf", "nan", "x"}, not: " is not a number of at least 1",
		},
		{
			key: "retry.jitter", variable: "CODEX_ARCHIVE_RETRY_JITTER",
			good: map[string]any{"0": 0.0, "0.1": 0.1, "1": 1.0},
			bad:  []string{"-0.1", "1.1", "true"}, not: " is not a number from 0 to 1",
		},
		{
			key: "retry.seed", variable: "CODEX_ARCHIVE_RETRY_SEED",
			good: map[string]any{"0": 0, "-7": -7},
			bad:  []string{"1.5", "abc"}, not: " is not a whole number",
		},
		{
			key: "batch.concurrent", variable: "CODEX_ARCHIVE_BATCH_CONCURRENT",
			good: map[string]any{"1": 1, "32": 32},
			bad:  []string{"0", "33"}, not: " is not a whole number from 1 to 32",
		},
		{
			key: "batch.progress_interval", variable: "CODEX_ARCHIVE_BATCH_PROGRESS",
			good: map[string]any{"1": 1, "1000000": 1000000},
			bad:  []string{"0", "all"}, not: " is not a whole number of at least 1",
		},
		{
			key: "performance.emit_to_evidence", variable: "CODEX_ARCHIVE_PERF_EVIDENCE",
			good: map[string]any{"off": false}, bad: []string{"never"}, not: words,
		},
		{
			key: "exhume.memory", variable: "EXHUME_MEMORY",
			good: map[string]any{
				"64MiB": ByteSize(64 << 20), "512m": ByteSize(512 << 20), "1GiB": ByteSize(1 << 30), "1.5 gib": ByteSize(3 << 29), "1T": ByteSize(1 << 40),
				"33554432": ByteSize(32 << 20), "100MB": ByteSize(100_000_000), "40960ki": ByteSize(40 << 20), "33554432B": ByteSize(32 << 20),
			},
			bad: []string{"31MiB", "33554431", "1025GiB", "-64MiB", "much", "MiB", "1e400m", "64 M B", "NaN", "64MiBB"}, not: size,
		},
		{
			key: "exhume.queue_bytes", variable: "EXHUME_QUEUE_BYTES",
			good: map[string]any{"16MiB": ByteSize(16 << 20), "1024TiB": ByteSize(1 << 50)},
			bad:  []string{"0", "16777215", "1025TiB", "all"}, not: " is not a size from 16MiB to 1024TiB, such as 64MiB, 1GiB, 512m or a plain number of bytes",
		},
		{
			key: "exhume.results_age", variable: "EXHUME_RESULTS_AGE",
			good: map[string]any{"1h": Duration(time.Hour), "87600h": Duration(87600 * time.Hour), "7200": Duration(2 * time.Hour)},
			bad:  []string{"0", "59m59s", "87601h", "30d"}, not: " is not a duration from 1h to 87600h (ten years)",
		},
		{
			key: "exhume.item_timeout", variable: "EXHUME_ITEM_TIMEOUT",
			good: map[string]any{"1s": Duration(time.Second), "24h": Duration(24 * time.Hour), "90": Duration(90 * time.Second)},
			bad:  []string{"0", "999ms", "24h1s", "-1m", "soon"}, not: " is not a duration from 1s to 24h, such as 30s, 5m or a plain number of seconds",
		},
		{
			key: "exhume.overwrite", variable: "EXHUME_OVERWRITE",
			good: map[string]any{"never": "never", "If-Different": "if-different", "always": "always"},
			bad:  []string{"true", "different"}, not: " is not one of never, if-different, always",
		},
		{
			key: "exhume.mode", variable: "EXHUME_MODE",
			good: map[string]any{"0644": FileMode(0o644), "600": FileMode(0o600), "0o400": FileMode(0o400), "777": FileMode(0o777)},
			bad:  []string{"0", "0244", "1777", "0888", "rw-r--r--", "-644"}, not: mode,
		},
		{
			key: "exhume.archive_events", variable: "EXHUME_ARCHIVE_EVENTS",
			good: map[string]any{"on": true, "OFF": false}, bad: []string{"some"}, not: words,
		},
		{
			key: "exhume.worker_name", variable: "EXHUME_WORKER_NAME",
			good: map[string]any{"w-1": "w-1"}, bad: []string{"a b", "-w", strings.Repeat("x", 65)}, not: name,
		},
	} {
		t.Run(tt.variable, func(t *testing.T) {
			t.Parallel()
			for text, want := range tt.good {
				c, problems := loadDoc(t, "", tt.variable+"="+text)
				if problems != "" {
					t.Errorf("%q: %s", text, problems)
					continue
				}
				if got := valueOf(c, tt.key); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%q means %v, want %v", text, got, want)
				}
			}
			for _, text := range tt.bad {
				_, got := loadDoc(t, "", tt.variable+"="+text)
				if want := fmt.Sprintf("%s: %q from env %s%s", tt.key, text, tt.variable, tt.not); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
		})
	}
}

// What only a file can say, and say wrongly.
func TestConfigFileValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, doc string
		key       string
		want      any
		problems  string
	}{
		{name: "text for a number", doc: "[retry]\nmax_attempts = \"7\"", key: "retry.max_attempts", want: 7},
		{name: "word for a truth", doc: "[retry]\nenabled = \"off\"", key: "retry.enabled", want: false},
		{name: "word between spaces", doc: "[retry]\nenabled = \" On \"", key: "retry.enabled", want: true},
		{name: "number for a truth", doc: "[retry]\nenabled = 0", key: "retry.enabled", want: false},
		{name: "whole number for a fraction", doc: "[retry]\nmax_delay = 8", key: "retry.max_delay", want: 8.0},
		{name: "bytes", doc: "[exhume]\nmemory = 67_108_864", key: "exhume.memory", want: ByteSize(64 << 20)},
		{name: "octal mode", doc: "[exhume]\nmode = 0o640", key: "exhume.mode", want: FileMode(0o640)},
		{name: "dotted key", doc: "retry.max_attempts = 2", key: "retry.max_attempts", want: 2},
		{name: "alias of the backend", doc: "[backend]\ntype = \"postgresql\"\nurl = \"postgresql://db/x\"", key: "backend.backend", want: "postgres"},
		{name: "alias of concurrent", doc: "[batch]\nmax_concurrent = 9", key: "batch.concurrent", want: 9},
		{name: "key and alias agree", doc: "[batch]\nmax_concurrent = 9\nconcurrent = 9", key: "batch.concurrent", want: 9},
		{name: "key and alias agree in other words", doc: "[backend]\ntype = \"mysql\"\nbackend = \"mariadb\"\nurl = \"mysql://db/x\"", key: "backend.backend", want: "mariadb"},
		{name: "no results wanted", doc: "[batch]\nresults_path = \"\"", key: "batch.results_path", want: ""},

		{
			name: "key and alias differ", doc: "[batch]\nmax_concurrent = 9\nconcurrent = 8",
			problems: `file exhume.toml: batch.concurrent is "8" and batch.max_concurrent is "9"; keep one of them`,
		},
		{
			name: "backend and type differ", doc: "[backend]\nbackend = \"sqlite\"\ntype = \"mariadb\"",
			problems: `file exhume.toml: backend.backend is "sqlite" and backend.type is "mariadb"; keep one of them`,
		},
		{
			name: "bad alias", doc: "[backend]\ntype = \"oracle\"",
			problems: `backend.type: "oracle" from file exhume.toml is not one of sqlite, postgres, mariadb`,
		},
		{
			name: "decimal mode", doc: "[exhume]\nmode = 644",
			problems: `exhume.mode: "01204" from file exhume.toml is not an octal mode of at most 0777 that lets the owner read, such as "0644"`,
		},
		{
			name: "list", doc: "[batch]\nconcurrent = [1, 2]",
			problems: `batch.concurrent: a list from file exhume.toml is not a whole number from 1 to 32`,
		},
		{
			name: "table", doc: "[batch.concurrent]\nx = 1",
			problems: `batch.concurrent: a table from file exhume.toml is not a whole number from 1 to 32`,
		},
		{
			name: "date", doc: "[retry]\nseed = 2026-01-01",
			problems: `retry.seed: a date or time from file exhume.toml is not a whole number`,
		},
		{
			name: "list of secrets", doc: "[backend]\nurl = [\"postgres://u:lion@db/x\"]",
			problems: `backend.url: a list from file exhume.toml is not a non-empty text`,
		},
		{
			name: "empty texts", doc: "[backend]\nurl = \"\"\n[exhume]\nstate_dir = \"\"\nevidence_dir = \"\"",
			problems: `backend.url: "" from file exhume.toml is not a non-empty text` + "\n" +
				`exhume.state_dir: "" from file exhume.toml is not a non-empty text` + "\n" +
				`exhume.evidence_dir: "" from file exhume.toml is not a non-empty text`,
		},
		{
			name: "unknown section", doc: "\n[retries]\nenabled = true",
			problems: "exhume.toml:2: unknown key retries; did you mean retry?",
		},
		{
			name: "unknown keys", doc: "[batch]\nmax_concurent = 3\ntimeout_per_item = 4\n\nmemory = \"1GiB\"\n\"a\\nb\" = 1",
			problems: "exhume.toml:2: unknown key batch.max_concurent; did you mean batch.max_concurrent?\n" +
				"exhume.toml:3: unknown key batch.timeout_per_item\n" +
				"exhume.toml:5: unknown key batch.memory; did you mean exhume.memory?\n" +
				`exhume.toml:6: unknown key "batch.a\nb"`,
		},
		{
			name: "names of variables and fields are no keys", doc: "[retry]\nF0 = true\nCODEX_ARCHIVE_RETRY_MAX = 3",
			problems: "exhume.toml:2: unknown key retry.F0\nexhume.toml:3: unknown key retry.CODEX_ARCHIVE_RETRY_MAX",
		},
		{
			name: "value for a section", doc: "# here\nbackend = \"sqlite\"",
			problems: "exhume.toml:2: backend must be a section: write [backend]",
		},
		{name: "list of sections", doc: "[[retry]]\nenabled = true", problems: "exhume.toml:1:3: cannot store an array table in a struct"},
		{name: "twice", doc: "[retry]\nseed = 1\nseed = 1", problems: "exhume.toml:3:1: key seed is already defined"},
		{name: "no TOML", doc: "retry: {}", problems: "exhume.toml:1:6: expected '=' after key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, problems := loadDoc(t, tt.doc)
			if problems != tt.problems {
				t.Fatalf("got  %s\nwant %s", problems, tt.problems)
			}
			if problems == "" && !reflect.DeepEqual(valueOf(c, tt.key), tt.want) {
				t.Errorf("%s = %v, want %v", tt.key, valueOf(c, tt.key), tt.want)
			}
		})
	}
}

func TestConfigRetryMaxAgainstAttempts(t *testing.T) {
	t.Parallel()
	c, problems := loadDoc(t, "[retry]\nmax_attempts = 9", "CODEX_ARCHIVE_RETRY_MAX=3")
	if problems != "" || c.Retry.MaxAttempts != 3 || origins(c)["retry.max_attempts"] != "env CODEX_ARCHIVE_RETRY_MAX" {
		t.Errorf("%s %+v", problems, c)
	}
	c, problems = loadDoc(t, "", "CODEX_ARCHIVE_RETRY_MAX=3", "CODEX_ARCHIVE_RETRY_ATTEMPTS=03")
	if problems != "" || c.Retry.MaxAttempts != 3 {
		t.Errorf("%s %+v", problems, c)
	}
	_, problems = loadDoc(t, "", "CODEX_ARCHIVE_RETRY_MAX=3", "CODEX_ARCHIVE_RETRY_ATTEMPTS=4")
	if want := `environment: CODEX_ARCHIVE_RETRY_ATTEMPTS is "4" and CODEX_ARCHIVE_RETRY_MAX is "3"; keep one of them`; problems != want {
		t.Errorf("got  %s\nwant %s", problems, want)
	}
}

func TestConfigBackend(t *testing.T) {
	t.Parallel()
	const (
		backend = "CODEX_ARCHIVE_BACKEND="
		url     = "CODEX_ARCHIVE_URL="
	)
	for _, tt := range []struct {
		name, doc string
		environ   []string
		flags     map[string]string
		want      string // backend and its origin
		problems  string
	}{
		{name: "default", want: "sqlite default"},
		{name: "URL in the file", doc: "[backend]\nurl = \"postgresql+psycopg2://db/x\"", want: "postgres file exhume.toml"},
		{name: "URL in the environment", environ: []string{url + "mysql+pymysql://db/x"}, want: "mariadb env CODEX_ARCHIVE_URL"},
		{name: "URL on the command line", flags: map[string]string{"backend.url": "postgres://db/x"}, want: "postgres flag --archive"},
		{name: "file name as URL", environ: []string{url + "a.db"}, want: "sqlite env CODEX_ARCHIVE_URL"},
		{name: "both", environ: []string{backend + "MySQL", url + "mariadb://db/x"}, want: "mariadb env CODEX_ARCHIVE_BACKEND"},
		{name: "backend above its URL", doc: "[backend]\nurl = \"postgres://db/x\"", environ: []string{backend + "postgres"}, want: "postgres env CODEX_ARCHIVE_BACKEND"},
		{name: "URL over a weaker backend", doc: "[backend]\nbackend = \"sqlite\"", environ: []string{url + "postgres://db/x"}, want: "postgres env CODEX_ARCHIVE_URL"},
		{
			name: "contradiction in the file", doc: "[backend]\ntype = \"mariadb\"\nurl = \"postgres://eve:lion@db/x?password=lion\"",
			problems: `backend.backend: "mariadb" from file exhume.toml contradicts backend.url from file exhume.toml, which is postgres (postgres://***@db/x?password=***); give a URL that fits, or the URL alone`,
		},
		{
			name: "backend against a weaker URL", environ: []string{backend + "postgres"},
			problems: `backend.backend: "postgres" from env CODEX_ARCHIVE_BACKEND contradicts backend.url from default, which is sqlite (sqlite:///./.codex/archive.sqlite); give a URL that fits, or the URL alone`,
		},
		{
			name: "unknown backend", environ: []string{backend + "oracle", url + "postgres://db/x"},
			problems: `backend.backend: "oracle" from env CODEX_ARCHIVE_BACKEND is not one of sqlite, postgres, mariadb`,
		},
		{
			name: "names that differ are one problem", doc: "[backend]\nbackend = \"sqlite\"\ntype = \"mariadb\"\nurl = \"mysql://db/x\"",
			problems: `file exhume.toml: backend.backend is "sqlite" and backend.type is "mariadb"; keep one of them`,
		},
		{
			name: "a refused URL is one problem", doc: "[backend]\ntype = \"mariadb\"\nurl = \"\"",
			problems: `backend.url: "" from file exhume.toml is not a non-empty text`,
		},
		{
			name: "unknown scheme", environ: []string{url + "foo://u:lion@x"},
			problems: `backend.url from env CODEX_ARCHIVE_URL: archive URL "foo://***@x": unknown scheme "foo"; write sqlite:///./FILE, postgresql://…, mariadb://… or a file name`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if tt.doc != "" {
				writeConfig(t, dir, "exhume.toml", tt.doc)
			}
			c, err := LoadConfig(LoadOptions{Dir: dir, Environ: append([]string{}, tt.environ...), Flags: tt.flags})
			if got := withoutDir(err, dir); got != tt.problems {
				t.Fatalf("got  %s\nwant %s", got, tt.problems)
			}
			if err != nil {
				return
			}
			s := c.Settings()[0]
			if got := s.Value.(string) + " " + strings.ReplaceAll(s.Origin, dir+"/", ""); got != tt.want {
				t.Errorf("backend %s, want %s", got, tt.want)
			}
		})
	}
}

func TestByteSizeText(t *testing.T) {
	t.Parallel()
	for size, want := range map[ByteSize]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1KiB", 1025: "1025", 256 << 20: "256MiB", 3 << 29: "1536MiB", 1 << 40: "1TiB", 100_000_000: "100000000",
	} {
		got, err := size.MarshalText()
		if err != nil || string(got) != want {
			t.Errorf("%d is written %q (%v), want %q", int64(size), got, err, want)
		}
		var back ByteSize
		if err := back.UnmarshalText(got); err != nil || back != size {
			t.Errorf("%q is read as %d (%v), want %d", got, int64(back), err, int64(size))
		}
	}
}

// Whatever a file holds, loading it ends with a configuration or with lines that
// name the file.
func FuzzConfigFile(f *testing.F) {
	for _, doc := range []string{predecessorTOML, "[[retry]]", "retry.x.y = 1", "[backend]\nurl = {a = 1}", "\ufeff", "a = \"\x00", "[exhume]\nmode = 0xffff"} {
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		c, problems := loadDoc(t, doc)
		if (c == nil) != (problems != "") {
			t.Fatalf("configuration %v with problems %q", c, problems)
		}
		for line := range strings.Lines(problems) {
			if !strings.Contains(line, "exhume.toml") {
				t.Errorf("line %q", line)
			}
		}
	})
}
