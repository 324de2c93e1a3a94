package archive

import (
	"net/url"
	"regexp"
	"strings"
)

var (
	parameter = regexp.MustCompile(`([?&;])([^=&;#\s]+)=([^&;#\s]*)`)
	secretKey = regexp.MustCompile(`(?i)pass|pwd|secret|token|credential`)
)

// Redact gives the URL of an archive as it may be shown: user and password
// become "***@", and the values of query parameters whose names sound like
// passwords become "***". It does not need a well-formed URL. Where it is
// unclear how far a password with raw special characters reaches, it hides too
// much rather than too little.
func Redact(archiveURL string) string {
	s := parameter.ReplaceAllStringFunc(archiveURL, func(p string) string {
		key, _, _ := strings.Cut(p[1:], "=")
		name, err := url.QueryUnescape(key)
		if err != nil || secretKey.MatchString(name) {
			return p[:1] + key + "=***"
		}
		return p
	})
	scheme, rest, ok := strings.Cut(s, "://")
	at := strings.LastIndexByte(rest, '@')
	switch {
	case !ok || strings.HasPrefix(strings.ToLower(scheme), SQLite):
		return s
	case at >= 0:
		return scheme + "://***" + rest[at:]
	case strings.Contains(archiveURL, "@") && strings.Contains(rest[:max(strings.IndexAny(rest, "?&;"), 0)], ":"):
		// What was taken for a parameter may be the end of a password.
		return scheme + "://***"
	}
	return s
}
