package app

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A fleet that is to stay does not wait for ever for another one.
func TestLockStateFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := lockState(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	waited := 0
	_, err = lockStateFor(t.Context(), time.Millisecond, dir, func(string) { waited++ })
	if used, ok := errors.AsType[*InUseError](err); !ok || waited != 1 || !strings.HasPrefix(used.By, "process ") || !strings.Contains(err.Error(), "join it") {
		t.Errorf("waited %d times, %v", waited, err)
	}
	if err := l.unlock(); err != nil {
		t.Fatal(err)
	}
	if l, err = lockStateFor(t.Context(), time.Minute, dir, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.unlock(); err != nil {
		t.Error(err)
	}
}
