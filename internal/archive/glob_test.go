package archive

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern  string
		yes, not []string
	}{
		{"docs/a.md", []string{"docs/a.md"}, []string{"docs/a.mdx", "x/docs/a.md", "docs", "Docs/a.md", "/docs/a.md"}},
		{"*.go", []string{"a.go", ".go"}, []string{"src/a.go", "a.gox"}},
		{"src/*.go", []string{"src/a.go"}, []string{"src/b/a.go", "a.go"}},
		{"docs/**", []string{"docs/a", "docs/a/b/c"}, []string{"docs", "docsx/a", "x/docs/a"}},
		{"**", []string{"a", "a/b", "/a"}, nil},
		{"**/*.go", []string{"a.go", "x/a.go", "x/y/a.go", "/x/a.go"}, []string{"a.goo", "a.go/b"}},
		{"a/**/z", []string{"a/z", "a/b/z", "a/b/c/z", "a/z/z"}, []string{"a", "z", "a/b", "a/zz", "b/a/z"}},
		{"a/**/b/**/c", []string{"a/b/c", "a/x/b/c", "a/b/x/b/y/c"}, []string{"a/c", "a/b", "a/c/b"}},
		{"**/b/**", []string{"b/x", "a/b/x/y"}, []string{"b", "a/b", "bb/x"}},
		{"a/**/**", []string{"a/b", "a/b/c"}, []string{"a"}},
		{"?.txt", []string{"a.txt", "日.txt"}, []string{"ab.txt", ".txt", "/.txt"}},
		{"[a-c]x[^0-9]", []string{"axz", "cxz"}, []string{"dxz", "ax1", "ax"}},
		{`a\*b`, []string{"a*b"}, []string{"axb", `a\*b`}},
		{`a\[1].txt`, []string{"a[1].txt"}, []string{"a1.txt"}},
		{"/etc/*", []string{"/etc/passwd"}, []string{"etc/passwd"}},
		{"sp ace, com*", []string{"sp ace, comma.txt"}, nil},
	} {
		g, err := parseGlob(tt.pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, p := range tt.yes {
			if !g.match(p) || !strings.HasPrefix(p, g.prefix()) {
				t.Errorf("%q does not match %q, or its prefix is not %q", tt.pattern, p, g.prefix())
			}
		}
		for _, p := range tt.not {
			if g.match(p) {
				t.Errorf("%q matches %q", tt.pattern, p)
			}
		}
	}
}

// A pattern with many ** does not take for ever.
func TestGlobSteps(t *testing.T) {
	t.Parallel()
	g, err := parseGlob(strings.Repeat("**/a/", 50) + "b")
	if err != nil {
		t.Fatal(err)
	}
	if g.match(strings.Repeat("a/", 2000) + "c") {
		t.Error("matches")
	}
}

func TestGlobFlaws(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"":         "an empty pattern",
		"a\xff":    "not valid UTF-8",
		"a/[b":     "a [ is not closed",
		"a/[]/c":   "a class is empty",
		"abc/d\\":  "a backslash",
		"docs/**.": "** must be a whole name",
		"a**/b":    "** must be a whole name",
	} {
		if err := CheckGlob(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", pattern, err, want)
		}
	}
}

func TestGlobPrefixes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		patterns, want []string
	}{
		{nil, nil},
		{[]string{"docs/**", "src/a?.go", "x[1]", `y\*`, "all/of/it"}, []string{"docs/", "src/a", "x", "y", "all/of/it"}},
		{[]string{"docs/**", "*.go"}, nil},
	} {
		all, err := parseGlobs(tt.patterns)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, all.prefixes()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.patterns, diff)
		}
	}
}
