package archive

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseURL(t *testing.T) {
	t.Setenv("HOME", "/home/ann")
	tests := []struct {
		url  string
		want Location
		err  string
	}{
		{url: "sqlite:///./.codex/archive.sqlite", want: Location{Backend: SQLite, Path: "./.codex/archive.sqlite"}},
		{url: "sqlite:///../x.db", want: Location{Backend: SQLite, Path: "../x.db"}},
		{url: "sqlite:///a/b.db", want: Location{Backend: SQLite, Path: "/a/b.db"}},
		{url: "sqlite:////a/b.db", want: Location{Backend: SQLite, Path: "/a/b.db"}},
		{url: "sqlite:///.codex/x.db", want: Location{Backend: SQLite, Path: "/.codex/x.db"}},
		{url: "sqlite:///~/x.db", want: Location{Backend: SQLite, Path: "/home/ann/x.db"}},
		{url: "SQLite+pysqlite:////a/b.db?mode=ro&x=1#top", want: Location{Backend: SQLite, Path: "/a/b.db"}},
		{url: "sqlite:////a/%20b.db", want: Location{Backend: SQLite, Path: "/a/%20b.db"}},
		{url: "archive.sqlite", want: Location{Backend: SQLite, Path: "archive.sqlite"}},
		{url: "/a/what?.db", want: Location{Backend: SQLite, Path: "/a/what?.db"}},
		{url: "~/x.db", want: Location{Backend: SQLite, Path: "/home/ann/x.db"}},
		{url: "postgres://u:p@h/d", want: Location{Backend: Postgres, URL: "postgres://u:p@h/d"}},
		{url: "postgresql+psycopg2://h/d", want: Location{Backend: Postgres, URL: "postgresql+psycopg2://h/d"}},
		{url: "mysql+pymysql://h/d", want: Location{Backend: MariaDB, URL: "mysql+pymysql://h/d"}},
		{url: "MariaDB://h/d", want: Location{Backend: MariaDB, URL: "MariaDB://h/d"}},
		{url: "", err: "no archive given"},
		{url: "sqlite://", err: "names no file"},
		{url: "sqlite:///", err: "names no file"},
		{url: "sqlite:///?x=1", err: "names no file"},
		{url: "sqlite://a/b.db", err: "names no file"},
		{url: "foo://u:secret@x", err: `unknown scheme "foo"`},
	}
	for _, tt := range tests {
		got, err := ParseURL(tt.url)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("ParseURL(%q) (-want +got):\n%s", tt.url, diff)
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("ParseURL(%q): %v", tt.url, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("ParseURL(%q): error %v, want %q", tt.url, err, tt.err)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("ParseURL(%q): the error tells the password: %v", tt.url, err)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgresql://user:s3cret@db:5432/x":           "postgresql://***@db:5432/x",
		"postgresql://user@db/x":                       "postgresql://***@db/x",
		"postgresql://db/x":                            "postgresql://db/x",
		"postgresql://u:p@ss/w?x@db/x":                 "postgresql://***@db/x",
		"postgresql://db/x?password=s3cret&a=b":        "postgresql://db/x?password=***&a=b",
		"postgresql://db/x?a=b&PassWd=p@ss#f":          "postgresql://db/x?a=b&PassWd=***#f",
		"postgresql://db/x?p%61ssword=s3cret":          "postgresql://db/x?p%61ssword=***",
		"postgresql://db/x?p%zzword=s3cret":            "postgresql://db/x?p%zzword=***",
		"mysql://u:p@h/d?access_token=t;ssl=1":         "mysql://***@h/d?access_token=***;ssl=1",
		"postgresql://u:p@db/x?sslmode=require&user=u": "postgresql://***@db/x?sslmode=require&user=u",
		"sqlite:////home/a@b/x.db?pwd=1":               "sqlite:////home/a@b/x.db?pwd=***",
		"/home/a@b/x.db":                               "/home/a@b/x.db",
		"":                                             "",
	} {
		if got := Redact(url); got != want {
			t.Errorf("Redact(%q) = %q, want %q", url, got, want)
		}
	}
}
