package broker

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                      "",
		"nats://host:4222":                      "nats://host:4222",
		"host:4222":                             "host:4222",
		"nats://user:secret@host:4222":          "nats://***@host:4222",
		"user:secret@host":                      "***@host",
		"nats://secrettoken@host":               "nats://***@host",
		"nats://a:secret@h1,tls://b:secret@h2":  "nats://***@h1,tls://***@h2",
		"nats://h1,nats://b:secret@h2":          "nats://h1,nats://***@h2",
		"nats://a:sec,ret@h1,nats://h2":         "nats://***@h1,nats://h2",
		"nats://a:se/cr@et@h1":                  "nats://***@h1",
		"NATS://a:secret@h1, nats://b:secret@h": "NATS://***@h1, nats://***@h",
		"nats://a:secret@h1,b:secret@h2":        "nats://***@h2",
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("user", "p,/@ ss", "host")
	f.Fuzz(func(t *testing.T, user, password, host string) {
		if len(password) < 8 || strings.Contains(password, "://") || strings.ContainsAny(host, "@:,/") ||
			strings.Contains(user+host, password) || strings.Contains("nats://***@"+host, password) {
			return
		}
		if got := Redact("nats://" + user + ":" + password + "@" + host); strings.Contains(got, password) {
			t.Errorf("%q shows the password %q", got, password)
		}
	})
}
