package producer

import (
	"strings"
	"testing"
)

func TestCleanOutput(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("x/", 2044) + "y" // 4089 bytes, 4095 with the root
	for _, c := range []struct{ root, output, want, err string }{
		{"/dest", "a", "a", ""},
		{"/dest", "./a//b/../c", "a/c", ""},
		{"/dest", `a\b`, `a\b`, ""},
		{"/dest", `..\b`, `..\b`, ""},
		{"/dest", "...", "...", ""},
		{"/dest", "..a/.b", "..a/.b", ""},
		{"/dest", " ", " ", ""},
		{"/dest", "~/a", "~/a", ""},
		{"/dest", ".exhum/e-", ".exhum/e-", ""},
		{"/dest", "/dest/a", "a", ""},
		{"/dest", "//dest/x/..//a/b", "a/b", ""},
		{"/", "/etc/a", "etc/a", ""},
		{"/dest", strings.Repeat("x", 255), strings.Repeat("x", 255), ""},
		{"/dest", deep, deep, ""},

		{"/dest", ".", "", `output "." names a directory, not a file`},
		{"/dest", "a/", "", `output "a/" names a directory, not a file`},
		{"/dest", "a/.", "", `output "a/." names a directory, not a file`},
		{"/dest", "a/..", "", `output "a/.." names a directory, not a file`},
		{"/dest", "/", "", `output "/" names a directory, not a file`},
		{"/dest", "/dest", "", `output "/dest" is outside the root /dest`},
		{"/dest", "/dest2/a", "", `output "/dest2/a" is outside the root /dest`},
		{"/dest", "/dest/../a", "", `output "/dest/../a" is outside the root /dest`},
		{"/dest", "../a", "", `output "../a" leaves the root /dest`},
		{"/dest", "a/../../dest/b", "", `output "a/../../dest/b" leaves the root /dest`},
		{"/", "../a", "", `output "../a" leaves the root /`},
		{"/dest", "a\x00b", "", `output "a\x00b" contains the control character U+0000`},
		{"/dest", "a\x7f", "", `output "a\x7f" contains the control character U+007F`},
		{"/dest", "a\u0085", "", `output "a\u0085" contains the control character U+0085`},
		{"/dest", "a\xff", "", `output "a\xff" is not valid UTF-8`},
		{"/dest", "a/" + strings.Repeat("é", 128), "", `output "a/` + strings.Repeat("é", 49) + `"… has a name of 256 bytes, the system allows 255`},
		{"/dest", deep + "z", "", `output "` + strings.Repeat("x/", 50) + `"… is too long: 4096 bytes with the root, the system allows 4095`},
		{"/dest", "a/.exhume-1/b", "", `output "a/.exhume-1/b" has a name that begins with ".exhume-", which is reserved for temporary files`},
	} {
		got, err := cleanOutput(c.root, c.output)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != c.want || text != c.err {
			t.Errorf("%q: got %q, %s", c.output, got, text)
		}
	}
}
