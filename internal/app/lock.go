package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// stateLock makes sure that one process at a time works in a state directory.
// The lock is the kernel's and ends with the process, however it ends.
type stateLock struct{ f *flock.Flock }

// lockState creates the state directory and locks it. When another process
// works there, waiting is called once with a description of it, and lockState
// returns when that one has ended or with the context's error.
func lockState(ctx context.Context, dir string, waiting func(owner string)) (*stateLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w (choose another with --state-dir)", err)
	}
	path := filepath.Join(dir, "lock")
	f := flock.New(path, flock.SetPermissions(0o600))
	ok, err := f.TryLock()
	if err == nil && !ok {
		waiting(lockOwner(path))
		_, err = f.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state directory %s: %w", dir, err), f.Close())
	}
	owner := fmt.Sprintf("process %d since %s", os.Getpid(), time.Now().Format(time.DateTime))
	if err := os.WriteFile(path, []byte(owner+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("state directory: %w", err), f.Close())
	}
	return &stateLock{f}, nil
}

// lockStateFor is lockState that gives up after so long; 0 is never.
func lockStateFor(ctx context.Context, patience time.Duration, dir string, waiting func(owner string)) (*stateLock, error) {
	if patience <= 0 {
		return lockState(ctx, dir, waiting)
	}
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l, err := lockState(within, dir, waiting)
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w, let 'exhume worker' join it, or choose another --state-dir and --listen",
			&InUseError{"state directory " + dir, lockOwner(filepath.Join(dir, "lock"))})
	}
	return l, err
}

func lockOwner(path string) string {
	b, err := os.ReadFile(path)
	if owner := strings.TrimSpace(string(b)); err == nil && owner != "" {
		return owner
	}
	return "another process"
}

func (l *stateLock) unlock() error { return l.f.Close() }
