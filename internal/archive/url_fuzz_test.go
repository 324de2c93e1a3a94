package archive

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exhume/exhume/internal/secrettest"
)

// However a URL is written, no text about it shows the password in it.
func FuzzURLKeepsItsPassword(f *testing.F) {
	f.Fuzz(func(t *testing.T, server bool, password, rest string) {
		scheme := "postgresql"
		if server {
			scheme = "mariadb"
		}
		if len(password) < 8 || strings.Contains(password, "://") || strings.Contains(rest, "@") {
			return
		}
		texts := func(password string) string {
			archiveURL := scheme + "://user:" + password + "@" + rest
			return Redact(archiveURL) + "\n" + configError(t, archiveURL)
		}
		// What is said of any password does not show this one.
		if text := texts(password); secrettest.Shown(text, password) >= max(8, 1+secrettest.Shown(texts("=-=-=-=-="), password)) {
			t.Errorf("the password %q is shown: %s", password, text)
		}
	})
}

// configError is what is said of the URL of a server that cannot be used.
func configError(t *testing.T, archiveURL string) string {
	at, err := ParseURL(archiveURL)
	if err != nil {
		return err.Error()
	}
	switch at.Backend {
	case MariaDB:
		_, err = mariadbConfig(archiveURL)
	case Postgres:
		_, err = postgresConfig(archiveURL)
	default:
		t.Fatalf("%q is of %s", archiveURL, at.Backend)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// What a well-formed URL says of a MariaDB server is what its connections use.
func FuzzMariaDBURL(f *testing.F) {
	f.Fuzz(func(t *testing.T, user, password, host, database, option, value string) {
		u := url.URL{Scheme: "mariadb", User: url.UserPassword(user, password), Host: host, Path: "/" + database}
		if option != "" {
			u.RawQuery = url.Values{option: {value}}.Encode()
		}
		text := u.String()
		if again, err := url.Parse(text); err != nil || again.Host != host || again.Path != u.Path {
			return // the host is none
		}
		c, err := mariadbConfig(text)
		if err != nil {
			return
		}
		if c.User != user || c.Passwd != password || c.DBName != database || database == "" {
			t.Errorf("%s: user %q, password %q, database %q", text, c.User, c.Passwd, c.DBName)
		}
		if c.Net == "tcp" && c.Addr != host && u.Hostname() != "" {
			t.Errorf("%s: address %q", text, c.Addr)
		}
		if c.Timeout <= 0 || c.ReadTimeout < 0 || c.WriteTimeout < 0 || c.InterpolateParams && c.Params["sql_mode"] == "" {
			t.Errorf("%s: %+v", text, c)
		}
	})
}

// A place is of one of the kinds, and that of a file names it.
func FuzzParseURL(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		at, err := ParseURL(text)
		if err != nil {
			return
		}
		if !slices.Contains([]string{SQLite, Postgres, MariaDB}, at.Backend) || (at.Backend == SQLite) != (at.Path != "") || (at.Backend == SQLite) == (at.URL != "") {
			t.Errorf("%q is %+v", text, at)
		}
		if at.URL != "" && at.URL != text {
			t.Errorf("%q became %q", text, at.URL)
		}
		if rest, ok := strings.CutPrefix(text, "sqlite:///"); ok && !strings.HasPrefix(rest, ".") && !filepath.IsAbs(at.Path) && rest != "~" {
			t.Errorf("%q is the relative %q", text, at.Path)
		}
		// A file's name means itself.
		if again, err := ParseURL(at.Path); at.Path != "" && !strings.Contains(at.Path, "://") && !strings.HasPrefix(at.Path, "~/") && (err != nil || again != at) {
			t.Errorf("%q is %+v, and that %+v, %v", text, at, again, err)
		}
	})
}
