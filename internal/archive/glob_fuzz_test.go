package archive

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// A pattern matches what it is defined to match, whatever the order of trying;
// and what the archive is asked for by prefixes leaves none of it out.
func FuzzGlob(f *testing.F) {
	f.Fuzz(func(t *testing.T, pattern, p string) {
		g, err := parseGlob(pattern)
		if (err == nil) != (CheckGlob(pattern) == nil) {
			t.Fatal(err)
		}
		if err != nil || len(g) > 12 || strings.Count(p, "/") > 12 {
			return
		}
		got := g.match(p)
		if want := matchNames(g, strings.Split(p, "/")); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, p, got, want)
		}
		if got && !strings.HasPrefix(p, g.prefix()) {
			t.Errorf("%q matches %q, which does not begin with %q", pattern, p, g.prefix())
		}
		if all := (globs{g}); got && all.prefixes() != nil && !slices.ContainsFunc(all.prefixes(), func(b string) bool { return strings.HasPrefix(p, b) }) {
			t.Errorf("%q matches %q, which begins with none of %q", pattern, p, all.prefixes())
		}
		if !strings.ContainsAny(pattern, `*?[\`) && got != (pattern == p) {
			t.Errorf("%q matches %q: %v", pattern, p, got)
		}
	})
}

// matchNames is the definition of a match, name by name.
func matchNames(g glob, names []string) bool {
	switch {
	case len(g) == 0:
		return len(names) == 0
	case g[0] == anyNames:
		return matchNames(g[1:], names) || len(names) > 0 && matchNames(g, names[1:])
	case len(names) == 0:
		return false
	}
	ok, err := path.Match(g[0], names[0])
	return ok && err == nil && matchNames(g[1:], names[1:])
}
