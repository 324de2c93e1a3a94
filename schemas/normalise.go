package schemas

import (
	"regexp"
	"strings"
)

// variable are the parts of an error's text that differ from item to item, and
// what stands for them in a group of alike errors. The order counts. Most texts
// have few of them: may says cheaply which patterns are worth trying.
var variable = []struct {
	pattern *regexp.Regexp
	with    string
	may     func(string) bool
}{
	{regexp.MustCompile(`"(?:[^"\\]|\\.)*"`), `"…"`, has(`"`)},
	{regexp.MustCompile(`[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`), "<id>", hasHex(12)},
	{regexp.MustCompile(`\b[0-9a-fA-F]{32,}\b`), "<digest>", hasHex(32)},
	{regexp.MustCompile(`\b[a-z][a-z0-9+.-]*://[^\s,;]+`), "<url>", has("://")},
	{regexp.MustCompile(`(^|[\s(=])/[^\s,;:)]+`), "$1<path>", has("/")},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ns|µs|ms|s|m|h)?\b`), "<n>", func(s string) bool { return strings.ContainsAny(s, "0123456789") }},
}

func has(part string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, part) }
}

// hasHex says whether n hexadecimal digits follow each other.
func hasHex(n int) func(string) bool {
	return func(s string) bool {
		run := 0
		for i := range len(s) {
			switch c := s[i]; {
			case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
				if run++; run == n {
					return true
				}
			default:
				run = 0
			}
		}
		return false
	}
}

// maxNormalised bounds a normalised text, in bytes.
const maxNormalised = 200

// Normalise makes the details of alike errors equal: quoted texts, ids, digests,
// URLs, paths and numbers are replaced by what they are. It is idempotent but for
// the bound on its length.
func Normalise(detail string) string {
	if len(detail) > 4*maxNormalised {
		detail = strings.ToValidUTF8(detail[:4*maxNormalised], "")
	}
	for _, v := range variable {
		if v.may(detail) {
			detail = v.pattern.ReplaceAllString(detail, v.with)
		}
	}
	if len(detail) > maxNormalised {
		detail = strings.ToValidUTF8(detail[:maxNormalised], "")
	}
	return detail
}
