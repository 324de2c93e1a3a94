package objects

import (
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// An s3 URL is taken apart into what it was made of.
func FuzzParseURL(f *testing.F) {
	f.Fuzz(func(t *testing.T, url string) {
		bucket, key, err := ParseURL(url)
		if err != nil {
			return
		}
		if again := URL(bucket, key); again != url && again+"/" != url {
			t.Errorf("%q is bucket %q and key %q: %q", url, bucket, key, again)
		}
		if len(bucket) < 3 || strings.ContainsAny(bucket, "/@:?#") {
			t.Errorf("%q names bucket %q", url, bucket)
		}
		if CheckKey(key) == nil && (path.Clean("/"+key) != "/"+key || len(key) > MaxKey) {
			t.Errorf("key %q", key)
		}
	})
}

// What a URL shows has no password.
func FuzzRedact(f *testing.F) {
	f.Fuzz(func(t *testing.T, scheme, user, password, rest string) {
		if len(password) < 8 || strings.ContainsAny(rest, "@") || strings.Contains(password, "://") || strings.Contains(scheme+user, "://") {
			return
		}
		const mark = "://***@"
		if strings.Contains("https://host/key?"+scheme+mark+rest+"?***#***", password) {
			return // it is no secret
		}
		for _, url := range []string{
			scheme + "://" + user + ":" + password + "@" + rest, "https://" + user + ":" + password + "@" + rest, "https://host/key?signature=" + password,
		} {
			if shown := Redact(url); strings.Contains(shown, password) {
				t.Errorf("%q shows the password %q: %q", url, password, shown)
			}
		}
	})
}

// Wherever an artifact's URL points, what is read comes from where reading is
// allowed, and what is refused is refused with a code.
func FuzzOpen(f *testing.F) {
	const open, secret = "open to all", "a secret"
	dir := f.TempDir()
	for name, text := range map[string]string{"open/a/b": open, "open/ü %41": open, "secret/a": secret, "opened": secret} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	for name, to := range map[string]string{"up": "..", "away": filepath.Join(dir, "secret"), "in": "a", "file": "../secret/a"} {
		if err := os.Symlink(to, filepath.Join(dir, "open", name)); err != nil {
			f.Fatal(err)
		}
	}
	r, err := NewReader(nil, []string{filepath.Join(dir, "open")})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = r.Close() })
	f.Fuzz(func(t *testing.T, url string) {
		body, size, err := r.Open(t.Context(), strings.ReplaceAll(url, "$DIR", dir))
		if err != nil {
			switch code := fault.CodeOf(err); code {
			case schemas.CodeArtifactMissing, schemas.CodeArtifactDenied, schemas.CodeArtifactPurged:
			default:
				t.Errorf("%q: %s: %v", url, code, err)
			}
			return
		}
		text, err := io.ReadAll(body)
		if cerr := body.Close(); err != nil || cerr != nil || string(text) != open || size != int64(len(open)) {
			t.Errorf("%q: %d bytes %q, %v, %v", url, size, text, err, cerr)
		}
	})
}
