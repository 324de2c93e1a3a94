package broker

import (
	"regexp"
	"strings"
)

var scheme = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*://`)

// Redact gives the URLs of a broker, with commas between, as they may be shown:
// user, password and token become "***@". It does not need well-formed URLs.
// Where it is unclear how far a password reaches, it hides too much rather than
// too little.
func Redact(urls string) string {
	var out strings.Builder
	from := 0
	for _, at := range append(scheme.FindAllStringIndex(urls, -1), []int{len(urls), len(urls)}) {
		part := urls[from:at[0]]
		if i := strings.LastIndexByte(part, '@'); i >= 0 {
			part = "***" + part[i:]
		}
		out.WriteString(part)
		out.WriteString(urls[at[0]:at[1]])
		from = at[1]
	}
	return out.String()
}
