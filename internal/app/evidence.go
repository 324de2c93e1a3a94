package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/google/uuid"
)

// evidenceWriter is the right to be the only collector that writes to an
// evidence directory, and the name that a ledger which several collectors share
// knows that log by.
type evidenceWriter struct {
	name string
	lock *flock.Flock
}

var errClaimed = errors.New("another collector writes there")

// claimEvidence takes the right. The name is kept in the directory, so that it
// moves along with the log and outlives host and process.
func claimEvidence(dir string) (_ *evidenceWriter, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("evidence: %w (choose another directory with --evidence-dir)", err)
	}
	path := filepath.Join(dir, "writer")
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
