package archive

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// CheckGlob says what is wrong with a pattern for paths.
//
// A pattern stands for a whole path, letter by letter. Within one name of the
// path, * is any run of characters, ? is any one, [a-z] one of some, [^a-z] one of
// all others, and a backslash takes its meaning from the character after it. A
// name that is ** stands for any number of names, none included; at the end for
// one at least, so that docs/** is all that lies below docs.
func CheckGlob(pattern string) error {
	_, err := parseGlob(pattern)
	return err
}

// anyNames is the name in a pattern that stands for any number of names.
const anyNames = "**"

// glob is a pattern, name by name.
type glob []string

func parseGlob(pattern string) (glob, error) {
	flaw := func(cause string) error { return fmt.Errorf("pattern %q: %s", pattern, cause) }
	switch {
	case pattern == "":
		return nil, errors.New("an empty pattern stands for no path")
	case !utf8.ValidString(pattern):
		return nil, flaw("it is not valid UTF-8")
	}
	g := glob(strings.Split(pattern, "/"))
	for _, name := range g {
		if _, err := path.Match(name, ""); err != nil {
			return nil, flaw("a [ is not closed, a class is empty or a backslash stands at the end of a name")
		}
		if name != anyNames && strings.Contains(name, anyNames) {
			return nil, flaw("** must be a whole name: write a/**/*.go, not a/**.go")
		}
	}
	if last := len(g) - 1; g[last] == anyNames {
		g = append(g[:last], "*", anyNames) // one name at least
	}
	return g, nil
}

// match says whether the whole path is one that the pattern stands for. It takes
// steps in proportion to the product of their lengths at most.
func (g glob) match(p string) bool {
	names := strings.Split(p, "/")
	// back is where to go on after the last ** has taken in one name more.
	backGlob, backName := -1, 0
	i, j := 0, 0
	for j < len(names) {
		switch {
		case i < len(g) && g[i] == anyNames:
			backGlob, backName = i+1, j
			i++
		case i < len(g) && matchName(g[i], names[j]):
			i, j = i+1, j+1
		case backGlob >= 0:
			backName++
			i, j = backGlob, backName
		default:
			return false
		}
	}
	for i < len(g) && g[i] == anyNames {
		i++
	}
	return i == len(g)
}

func matchName(pattern, name string) bool {
	ok, _ := path.Match(pattern, name) // parseGlob has checked it
	return ok
}

// prefix is what every path begins with that the pattern stands for.
func (g glob) prefix() string {
	whole := strings.Join(g, "/")
	if i := strings.IndexAny(whole, `*?[\`); i >= 0 {
		return whole[:i]
	}
	return whole
}

// globs are patterns of which one is to match, or none at all.
type globs []glob

func parseGlobs(patterns []string) (globs, error) {
	var all globs
	for _, p := range patterns {
		g, err := parseGlob(p)
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, nil
}

func (all globs) match(p string) bool {
	return len(all) == 0 || slices.ContainsFunc(all, func(g glob) bool { return g.match(p) })
}

// prefixes are such that every path that matches begins with one of them; none
// if paths may begin with anything.
func (all globs) prefixes() []string {
	var list []string
	for _, g := range all {
		p := g.prefix()
		if p == "" {
			return nil
		}
		list = append(list, p)
	}
	return list
}
