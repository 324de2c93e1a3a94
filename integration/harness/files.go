package harness

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FilesBelow lists the regular files below a directory that need not exist.
func FilesBelow(tb testing.TB, dir string) (found []string) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			found = append(found, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	return found
}

// FileSHA256 is the digest of a file, or why there is none.
func FileSHA256(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close() //nolint:errcheck // opened for reading
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err.Error()
	}
	return hex.EncodeToString(h.Sum(nil))
}

// OpenSQL opens an SQLite database.
func OpenSQL(tb testing.TB, path string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?_pragma=busy_timeout(5000)", path))
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

// Lines goes through the lines of a text that are not empty.
func Lines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if line = strings.TrimRight(line, "\n"); line != "" && !yield(line) {
				return
			}
		}
	}
}

// ContainsLine says whether some line of the text contains the part.
func ContainsLine(text, part string) bool {
	for line := range Lines(text) {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}

// WaitFor waits, up to a minute, for a condition that another process brings
// about.
func WaitFor(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	WaitAtMost(tb, time.Minute, what, ok)
}

// WaitAtMost is WaitFor with a bound of its own.
func WaitAtMost(tb testing.TB, most time.Duration, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(most)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("waited in vain for %s", what)
		}
	}
}
