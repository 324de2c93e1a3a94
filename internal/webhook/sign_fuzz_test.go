package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Secrets are long enough or refused, in words that repeat none of them, and each
// signs: whoever has one of them can check what is signed, and nothing else passes
// for it.
func FuzzSecrets(f *testing.F) {
	f.Fuzz(func(t *testing.T, text, id string, seconds int64, body, other []byte) {
		keys, err := parseSecrets(text)
		if err != nil {
			for _, secret := range strings.Fields(text) {
				if len(secret) >= minSecret && strings.Contains(err.Error(), secret) {
					t.Errorf("%q shows %q", err, secret)
				}
			}
			return
		}
		if len(keys) != len(strings.Fields(text)) {
			t.Fatalf("%d keys of %q", len(keys), text)
		}
		if !safeID.MatchString(id) {
			return // nothing is sent
		}
		header := signatures(keys, id, time.Unix(seconds, 0), body)
		signed := strings.Split(header, " ")
		for i, key := range keys {
			if len(key) < minSecret {
				t.Errorf("a key of %d bytes", len(key))
			}
			if want := receiverSign(key, id, seconds, body); len(signed) != len(keys) || signed[i] != want {
				t.Errorf("%q, want %q in its place %d", header, want, i)
			}
			if !bytes.Equal(body, other) && strings.Contains(header, receiverSign(key, id, seconds, other)) {
				t.Errorf("%q signs %q, too", header, other)
			}
		}
	})
}

// receiverSign is how a receiver makes the signature that it wants.
func receiverSign(key []byte, id string, seconds int64, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + strconv.FormatInt(seconds, 10) + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Of a URL nothing is shown but scheme and host, and without TLS nothing is sent
// elsewhere.
func FuzzURL(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, insecure bool) {
		shown, err := check(Config{URL: text, Insecure: insecure})
		if err != nil {
			return
		}
		scheme, host, ok := strings.Cut(shown, "://")
		if !ok || scheme != "http" && scheme != "https" || host == "" || strings.ContainsAny(host, "/?#@") {
			t.Errorf("%q is shown as %q", text, shown)
		}
		if name := strings.Trim(strings.TrimRight(host, ":0123456789"), "[]"); scheme == "http" && !insecure && !strings.HasPrefix(host, "127.") && !strings.HasPrefix(host, "[") && name != "localhost" {
			t.Errorf("%q would be posted to without TLS", text)
		}
	})
}

// A receiver is left alone for as long as it says, within bounds.
func FuzzRetryAfter(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, now int64) {
		if got := retryAfter(text, time.Unix(now, 0)); got < 0 || got > maxRetryAfter {
			t.Errorf("%q: %v", text, got)
		}
	})
}
