package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The kinds of archives.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
	MariaDB  = "mariadb"
)

// Location says where an archive is.
type Location struct {
	// Backend is SQLite, Postgres or MariaDB.
	Backend string
	// Path is the file of a SQLite archive, relative or absolute.
	Path string
	// URL is the URL of a server's archive as it was given, secrets included.
	URL string
}

// ParseURL understands an archive's URL or file name. It is an error of usage,
// without a code, when it cannot; the text holds no secrets.
//
//	sqlite:///./dir/x.db    relative, as is ../
//	sqlite:///dir/x.db      absolute: /dir/x.db
//	sqlite:////dir/x.db     absolute: /dir/x.db
//	sqlite:///~/x.db        below the home directory
//	dir/x.db                a plain file name, taken literally but for ~/
//	postgres://…, postgresql://…, mysql://…, mariadb://…
//
// A scheme may have a driver suffix (postgresql+psycopg2), which is ignored. The
// query and the fragment of a sqlite URL are ignored too, and nothing in its
// path is percent-decoded.
func ParseURL(url string) (Location, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return bareFile(url)
	}
	dialect, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	switch dialect {
	case "sqlite", "sqlite3":
		return sqliteURL(url, rest)
	case "postgres", "postgresql":
		return Location{Backend: Postgres, URL: url}, nil
	case "mysql", "mariadb":
		return Location{Backend: MariaDB, URL: url}, nil
	}
	return Location{}, fmt.Errorf("archive URL %q: unknown scheme %q; write sqlite:///./FILE, postgresql://…, mariadb://… or a file name",
		Redact(url), scheme)
}

func bareFile(name string) (Location, error) {
	if name == "" {
		return Location{}, errors.New("no archive given; write sqlite:///./FILE or a file name")
	}
	path, err := expandHome(name)
	return Location{Backend: SQLite, Path: path}, err
}

func sqliteURL(url, rest string) (Location, error) {
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i]
	}
	path, ok := strings.CutPrefix(rest, "/")
	if !ok || path == "" {
		return Location{}, fmt.Errorf("archive URL %q names no file; write sqlite:///./FILE (relative) or sqlite:////DIR/FILE (absolute)", url)
	}
	switch first, _, _ := strings.Cut(path, "/"); first {
	case ".", "..", "~":
	default:
		path = "/" + strings.TrimLeft(path, "/")
	}
	path, err := expandHome(path)
	return Location{Backend: SQLite, Path: path}, err
}

func expandHome(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("archive %q: the home directory is unknown: %w", path, err)
	}
	return filepath.Join(home, rest), nil
}
