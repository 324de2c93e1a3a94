package app

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/exhume/exhume/internal/secrettest"
)

// Whatever a variable holds, it is taken, or refused in a line that names it.
func FuzzConfigEnvironment(f *testing.F) {
	known := configTables().knownVariables()
	f.Fuzz(func(t *testing.T, name, value string) {
		if !slices.Contains(known, name) || name == configFileVariable || strings.Contains(value, "\x00") {
			return // the one that names a file, and what no environment holds
		}
		c, err := LoadConfig(LoadOptions{Dir: t.TempDir(), Environ: []string{name + "=" + value}})
		if err != nil {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%q: %v", name, value, err)
			}
			return
		}
		if again := saidAgain(t, c); !slices.Equal(c.Settings(), again.Settings()) {
			var a, b bytes.Buffer
			if err := errors.Join(c.Show(&a, "json", true), again.Show(&b, "json", true)); err != nil {
				t.Fatal(err)
			}
			if a, b := values(a.String()), values(b.String()); a != b {
				t.Errorf("%s=%q: %s\nbecame %s", name, value, a, b)
			}
		}
	})
}

// values is what is shown of a configuration, without the origins.
func values(shown string) string {
	before, _, _ := strings.Cut(shown, "\n  \"origins\"")
	return before
}

// saidAgain is the configuration that the settings make when they are given, as
// they are shown, on the command line.
func saidAgain(t *testing.T, c *Config) *Config {
	t.Helper()
	flags := map[string]string{}
	for _, s := range c.Settings() {
		value := s.Value
		if seed, ok := value.(*int); ok && seed != nil {
			value = *seed
		} else if ok {
			value = ""
		}
		if text := fmt.Sprint(value); text != "" {
			flags[s.Key] = text
		}
	}
	again, err := LoadConfig(LoadOptions{Dir: t.TempDir(), Environ: []string{}, Flags: flags})
	if err != nil {
		t.Fatalf("%v is not taken again: %v", flags, err)
	}
	return again
}

// No text about a configuration shows a secret in it.
func FuzzConfigSecrets(f *testing.F) {
	secrets := map[string]string{}
	for _, s := range configTables().settings {
		secrets[s.key] = s.secret
	}
	f.Fuzz(func(t *testing.T, key, scheme, secret, rest string) {
		if secrets[key] == "" || len(secret) < 8 || strings.Contains(secret, "://") || strings.Contains(rest, "@") || strings.HasPrefix(strings.ToLower(scheme), "sqlite") {
			return
		}
		dir := t.TempDir()
		load := func(secret string) (texts []string) {
			value := secret
			if secrets[key] != "all" {
				value = scheme + "://user:" + secret + "@" + rest
			}
			c, err := LoadConfig(LoadOptions{Dir: dir, Environ: []string{}, Flags: map[string]string{key: value}})
			if err != nil {
				return []string{err.Error()}
			}
			texts = append(texts, c.Warnings...)
			for _, format := range []string{"json", "table"} {
				var b bytes.Buffer
				if err := c.Show(&b, format, false); err != nil {
					t.Fatal(err)
				}
				texts = append(texts, b.String())
			}
			return texts
		}
		known := strings.Join(load("=-=-=-=-="), "")
		for _, text := range load(secret) {
			// What is said of any secret does not show this one.
			if n := secrettest.Shown(text, secret); n >= 8 && n > secrettest.Shown(known, secret) {
				t.Errorf("%s with %q shows %d bytes of it: %s", key, secret, n, lineWith(text, secret, n))
			}
		}
	})
}

// lineWith is the line of a text that shows most of a secret.
func lineWith(text, secret string, most int) string {
	for line := range strings.Lines(text) {
		if secrettest.Shown(line, secret) == most {
			return line
		}
	}
	return text
}

// Sizes, durations and modes are read again as they are written, within their
// bounds.
func FuzzConfigValues(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		var size, size2 ByteSize
		if size.UnmarshalText([]byte(text)) == nil {
			if err := size2.UnmarshalText([]byte(size.String())); err != nil || size2 != size || size < 0 {
				t.Errorf("size %q is %v, and that %v, %v", text, size, size2, err)
			}
		}
		var d, d2 Duration
		if d.UnmarshalText([]byte(text)) == nil {
			if err := d2.UnmarshalText([]byte(d.String())); err != nil || d2 != d {
				t.Errorf("duration %q is %v, and that %v, %v", text, d, d2, err)
			}
		}
		var m, m2 FileMode
		if m.UnmarshalText([]byte(text)) == nil {
			if err := m2.UnmarshalText([]byte(m.String())); err != nil || m2 != m || m > 0o777 || m&0o400 == 0 {
				t.Errorf("mode %q is %v, and that %v, %v", text, m, m2, err)
			}
		}
	})
}
