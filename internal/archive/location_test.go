package archive

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
		{url: "postgresql://u:p%40@[::1]:5433/d?sslmode=require", want: Location{Backend: Postgres, URL: "postgresql://u:p%40@[::1]:5433/d?sslmode=require"}},
		{url: "mariadb+mariadbconnector://h:3307/d", want: Location{Backend: MariaDB, URL: "mariadb+mariadbconnector://h:3307/d"}},
		{url: "mysql://u:p@h/d?tls=true", want: Location{Backend: MariaDB, URL: "mysql://u:p@h/d?tls=true"}},
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

func TestPostgresConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url                  string
		host, user, password string
		port                 uint16
		database             string
		timeout              time.Duration
		runtime              map[string]string
		err                  string
	}{
		{url: "postgres://u:p%40%2F@h/d", host: "h", user: "u", password: "p@/", port: 5432, database: "d", timeout: connectTimeout},
		{url: "PostgreSQL+psycopg2://u@h:5433/d?connect_timeout=3&sslmode=require&application_name=x&keepalives=1&gssencmode=disable",
			host: "h", user: "u", port: 5433, database: "d", timeout: 3 * time.Second, runtime: map[string]string{"application_name": "x"}},
		{url: "postgresql+asyncpg://u@/d?host=/run/postgresql", host: "/run/postgresql", user: "u", port: 5432, database: "d", timeout: connectTimeout},
		{url: "postgresql://u:secret@h/d?sslmode=maybe", err: "sslmode"},
		{url: "postgresql://u:secret@h:port/d", err: "port"},
		{url: "postgresql://u:secret@h/d?pool_max_conns=many", err: "pool_max_conns"},
		{url: "postgresql://u:secret@h/d?sslmode=verify-ca&sslrootcert=/no/such/file", err: "/no/such/file"},
	} {
		c, err := postgresConfig(tt.url)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: error %v, want %q and no secret", tt.url, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		got := c.ConnConfig
		if got.Host != tt.host || got.User != tt.user || got.Password != tt.password || got.Port != tt.port || got.Database != tt.database ||
			got.ConnectTimeout != tt.timeout {
			t.Errorf("%s: host %q, user %q, password %q, port %d, database %q, timeout %s",
				tt.url, got.Host, got.User, got.Password, got.Port, got.Database, got.ConnectTimeout)
		}
		if diff := cmp.Diff(tt.runtime, got.RuntimeParams, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: settings (-want +got):\n%s", tt.url, diff)
		}
	}
}

func TestMariaDBConfig(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(bad, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		url, net, addr, user, password, database, tls string
		timeout                                       time.Duration
		err                                           string
	}{
		{url: "mariadb://u:p%40%2F@h/d", net: "tcp", addr: "h", user: "u", password: "p@/", database: "d", timeout: connectTimeout},
		{url: "MySQL+PyMySQL://u@h:3307/d?charset=utf8mb4&connect_timeout=3&sql_mode=NO_ENGINE_SUBSTITUTION&tls=skip-verify",
			net: "tcp", addr: "h:3307", user: "u", database: "d", tls: "skip-verify", timeout: 3 * time.Second},
		{url: "mariadb://[::1]:3306/d?timeout=1.5s&ssl=1", net: "tcp", addr: "[::1]:3306", database: "d", tls: "true", timeout: 1500 * time.Millisecond},
		{url: "mysql://u@/d?unix_socket=/run/mysqld/mysqld.sock", net: "unix", addr: "/run/mysqld/mysqld.sock", user: "u", database: "d", timeout: connectTimeout},
		{url: "mysql:///d", net: "tcp", addr: "127.0.0.1:3306", database: "d", timeout: connectTimeout},
		{url: "mariadb://u:secret@h/", err: "names no database"},
		{url: "mariadb://u:sec#ret@h/d", err: "written as %XX"},
		{url: "mariadb://u:sec%ret@h/d", err: "written as %XX"},
		{url: "mariadb://u:secret@h:port/d", err: "written as %XX"},
		{url: "mariadb://u:secret@h/d?parseTime=true", err: `option "parseTime" is not known; there are allowCleartextPasswords, `},
		{url: "mariadb://u:secret@h/d?tls=maybe", err: "option tls=maybe: want true, false, skip-verify or preferred"},
		{url: "mariadb://u:secret@h/d?connect_timeout=-1", err: "option connect_timeout=-1"},
		{url: "mariadb://u:secret@h/d?charset=latin1", err: "names need utf8mb4"},
		{url: "mariadb://u:secret@h/d?ssl_ca=/no/such/file", err: "/no/such/file"},
		{url: "mariadb://u:secret@h/d?ssl_ca=" + bad, err: "holds no certificate"},
		{url: "mariadb://u:secret@h/d?ssl_cert=" + bad, err: "ssl_cert and ssl_key"},
	} {
		c, err := mariadbConfig(tt.url)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "sec") && !strings.Contains(err.Error(), "seconds") {
				t.Errorf("%s: error %v, want %q and no secret", tt.url, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if c.Net != tt.net || c.Addr != tt.addr || c.User != tt.user || c.Passwd != tt.password || c.DBName != tt.database ||
			c.TLSConfig != tt.tls || c.Timeout != tt.timeout {
			t.Errorf("%s: %s %s, user %q, password %q, database %q, TLS %q, timeout %s",
				tt.url, c.Net, c.Addr, c.User, c.Passwd, c.DBName, c.TLSConfig, c.Timeout)
		}
		if !strings.Contains(c.Params["sql_mode"], "STRICT") {
			t.Errorf("%s: sql_mode %s", tt.url, c.Params["sql_mode"])
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
		"MySQL+PyMySQL://u:p@h/d?ssl_key=/k&passwd=p":  "MySQL+PyMySQL://***@h/d?ssl_key=/k&passwd=***",
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
