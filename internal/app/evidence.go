package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"github.com/exhume/exhume/internal/evidence"
)

// evidenceWriter is the right to be the only collector that writes to an
// evidence directory, and the name that a ledger which several collectors share
// knows that log by.
type evidenceWriter struct {
	name string
	lock *flock.Flock
}

// writerFile is the file in the directory that has the name.
const writerFile = "writer"

// writerOf is the name of the evidence in a directory, empty where it has none.
func writerOf(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, writerFile)) // one that cannot be read names nobody
	return strings.TrimSpace(string(text))
}

// logAt is the log in a directory, or that which is named itself.
func logAt(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, evidence.FileName)
	}
	return path
}

var errClaimed = errors.New("another collector writes there")

// claimEvidence takes the right. The name is kept in the directory, so that it
// moves along with the log and outlives host and process.
func claimEvidence(dir string) (_ *evidenceWriter, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("evidence: %w (choose another directory with --evidence-dir)", err)
	}
	path := filepath.Join(dir, writerFile)
	w := &evidenceWriter{lock: flock.New(path, flock.SetPermissions(0o644))}
	switch free, err := w.lock.TryLock(); {
	case err != nil:
		return nil, errors.Join(fmt.Errorf("evidence directory %s: %w", dir, err), w.lock.Close())
	case !free:
		return nil, fmt.Errorf("evidence directory %s: %w: give each its own with --evidence-dir", dir, errClaimed)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.lock.Close())
		}
	}()
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if w.name = strings.TrimSpace(string(text)); w.name != "" {
		return w, nil
	}
	w.name = uuid.NewString()
	if err := os.WriteFile(path, []byte(w.name+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return w, nil
}

func (w *evidenceWriter) release() error { return w.lock.Close() }
