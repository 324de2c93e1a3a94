package objects

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxKey is the length of the longest key, in bytes.
const MaxKey = 1024

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// URL is s3://bucket/key, or s3://bucket without a key.
func URL(bucket, key string) string {
	if key == "" {
		return "s3://" + bucket
	}
	return "s3://" + bucket + "/" + key
}

// ParseURL understands s3://bucket and s3://bucket/key. The key, or prefix, is
// taken literally: nothing in it is decoded, and it may be empty. Errors are of
// usage, without a code; their text holds no secrets.
func ParseURL(url string) (bucket, key string, err error) {
	rest, ok := strings.CutPrefix(url, "s3://")
	if !ok {
		return "", "", fmt.Errorf("URL %q: want s3://BUCKET/KEY", Redact(url))
	}
	bucket, key, _ = strings.Cut(rest, "/")
	if !bucketName.MatchString(bucket) || strings.Contains(bucket, "..") {
		return "", "", fmt.Errorf("URL %q: that is no name of a bucket", Redact(url))
	}
	return bucket, key, nil
}

// CheckKey refuses keys that are no clean relative path, which some servers
// would take for another one, and those that no server takes.
func CheckKey(key string) error {
	switch {
	case key == "" || key == "." || key == ".." || path.IsAbs(key) || path.Clean(key) != key || strings.HasPrefix(key, "../"):
		return errors.New("want a clean relative path")
	case len(key) > MaxKey:
		return fmt.Errorf("%d bytes are too long for a key; %d are allowed, the prefix included", len(key), MaxKey)
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return errors.New("a key is UTF-8 without control characters")
	}
	return nil
}

// Redact gives a URL as it may be shown: without what stands before an @ in its
// authority, query and fragment. It need not be well-formed.
func Redact(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		scheme, rest = "", url
	}
	at, query := strings.LastIndexByte(rest, '@'), strings.IndexAny(rest, "?#")
	if query >= 0 {
		rest = rest[:query+1] + "***"
	}
	switch {
	case query >= 0 && at > query: // it is in the query, or that began in a password
		rest = "***"
	case at >= 0:
		rest = "***" + rest[at:]
	}
	if ok {
		return scheme + "://" + rest
	}
	return rest
}
